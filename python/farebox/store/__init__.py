"""Room: where balances live.

Owns the Store protocol and its implementations. Promises that a ledger row and its effect on the balance are
one transaction and that a row's id is unique. Does not price, hold or decide: callers pass finished amounts
and conditions.
"""

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from farebox.base.errors import StoreRefusedError
from farebox.store.base import Store

_SCHEME: Final = "sqlite:///"


def open_store(url: str, sessions: Path | None = None) -> Store:
    """The store a URL names, not yet opened: `sqlite:///relative/path`, `sqlite:////absolute/path`, or
    `mongodb://HOST/DATABASE` and `mongodb+srv://HOST/DATABASE` with the driver's options.

    `sessions`: a file of this process alone, by which its successor ends what it leaves open when it is
    killed (MongoDB). Raises StoreRefusedError for any other form; durability cannot be lowered by options
    (S07, S16).
    """
    parts = urlsplit(url)
    if parts.scheme in {"mongodb", "mongodb+srv"}:
        from farebox.store.mongo import MongoStore  # noqa: PLC0415 - the same, and the driver takes long to import

        return MongoStore(url, sessions=sessions)
    if not url.startswith(_SCHEME) or len(url) == len(_SCHEME):
        raise StoreRefusedError(
            "a store is named as sqlite:///PATH (sqlite:////PATH for an absolute one) or mongodb://HOST/DATABASE"
        )
    if parts.query or parts.fragment:
        raise StoreRefusedError("sqlite:///PATH takes no options: journal mode and synchronous are fixed")
    from farebox.store.sqlite import SQLiteStore  # noqa: PLC0415 - workers import this room without a store client

    return SQLiteStore(unquote(parts.path.removeprefix("/")))
