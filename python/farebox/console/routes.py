"""A route of the console and a call of it: method, path, who may, what it takes, what it does.

One table of these is all there is to serve: no handler is reached without passing its route's row, so that a
test can try every row with every credential.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel

from farebox.config.credits import CreditsSettings
from farebox.console.answers import Declined
from farebox.console.lockout import Attempts
from farebox.store.base import Store

if TYPE_CHECKING:
    from farebox.console.access import Presented

ANYONE: Final = "anyone"
"""No credential is looked at."""
USER: Final = "user"
"""Who holds an API key: sees and changes what is his own."""
READ_ONLY, SUPPORT, ADMIN = "read-only", "support", "admin"

READERS: Final = frozenset({READ_ONLY, SUPPORT, ADMIN})
SUPPORTERS: Final = frozenset({SUPPORT, ADMIN})
ADMINS: Final = frozenset({ADMIN})
USERS: Final = frozenset({USER})
EVERYONE: Final = frozenset({ANYONE})
KNOWN: Final = READERS | USERS
"""Whoever has a credential."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `name` is an admin's or a user's, `actor` how the audit log calls him."""

    role: str
    name: str

    @property
    def actor(self) -> str:
        """For the audit log."""
        return f"user:{self.name}" if self.role == USER else f"admin:{self.name}"


@dataclass(frozen=True, slots=True)
class Call:
    """One request that passed its route's row. `key` is its Idempotency-Key, empty where none is needed."""

    store: Store
    settings: CreditsSettings
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: BaseModel | None
    asked: BaseModel | None
    route: "Route"
    key: str
    now_ms: int
    shown: "Presented"
    attempts: Attempts
    hosts: frozenset[str]
    zone: tzinfo

    @property
    def reference(self) -> str:
        """Names this request for ever: the same caller, route and Idempotency-Key give the same."""
        text = f"{self.caller.actor}\n{self.route.method}\n{self.route.path}\n{self.key}"
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number of the query between 0 and `most`. Raises Declined."""
        found = whole_number(self.query.get(name, str(default)), 16)
        if found is None or found > most:
            raise Declined(400, "invalid", f"{name} must be a whole number of at most {most}")
        return found


def whole_number(text: str, digits_max: int) -> int | None:
    """The number that so many decimal digits say; None for anything else, digits of other scripts too."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits_max else None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that also changes the browser's session: a token to keep, or "" to forget it."""

    document: Mapping[str, object]
    session: str


Handler = Callable[[Call], Awaitable[Mapping[str, object] | Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table. A route with a body is a write and needs an Idempotency-Key, unless doing it
    again does no harm (`keyed`).
    """

    method: str
    path: str
    roles: frozenset[str]
    handler: Handler
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    keyed: bool = True
