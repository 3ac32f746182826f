"""Which store a command works on, and how it gets it: `--config FILE…` or `--store URL`, also from the
environment.
 SQLite is opened directly (several processes may); what a command changes reaches running workers over the
change feed. MongoDB addresses with a password come from the environment or a file, never from an argument
list.
"""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import unquote

import typer

from farebox.base.errors import UsageError

if TYPE_CHECKING:
    from farebox.store.base import Store

T = TypeVar("T")

ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", envvar="FAREBOX_CONFIG", help="Configuration file; names the store."),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", envvar="FAREBOX_STORE", help="sqlite:///PATH or mongodb://HOST/DATABASE."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document for programs.")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the store is, and the journals that go with it."""

    url: str
    journal_dir: Path


def place_of(config: list[Path] | None, store: str | None) -> Place:
    """The place named by the common options. Raises UsageError when there is none, or an SQLite file is
    absent.
    """
    if store:
        path = sqlite_path(store)
        return Place(store, path.parent / "journals" if path else Path("farebox-data/journals"))
    if not config:
        raise UsageError("name the store: --config FILE, --store URL, or FAREBOX_CONFIG or FAREBOX_STORE")
    return _configured_place(config)


def _configured_place(config: list[Path]) -> Place:
    from farebox.config.load import load  # noqa: PLC0415 - pydantic takes longer to import than most commands to run
    from farebox.run.paths import store_address  # noqa: PLC0415

    settings = load(config)
    return Place(store_address(settings), settings.journal_dir)


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite address; None for other stores."""
    return Path(unquote(url.removeprefix("sqlite:///"))) if url.startswith("sqlite:///") else None


def with_store(place: Place, work: Callable[["Store"], Awaitable[T]], *, create: bool = False) -> T:
    """Open the store, run `work`, close it. Only `create` makes a new SQLite file: a mistyped path stays an
    error.
    """
    from farebox.store import open_store  # noqa: PLC0415 - `serve` takes its options from here, and no store

    path = sqlite_path(place.url)
    if path is not None and not path.exists():
        if not create:
            raise UsageError(f"there is no store at {path}; `farebox serve` or `farebox user add` makes one")
        path.parent.mkdir(parents=True, exist_ok=True)

    async def session() -> T:
        store = open_store(place.url)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(session())


async def of_known_user(store: "Store", user: str, found: Awaitable[list[T]]) -> list[T]:
    """What was found of a user. Raises UsageError where it is nothing because there is no such user."""
    from farebox.credits.accounts import unknown_user  # noqa: PLC0415 - the same

    rows = await found
    if not rows and await store.account(user) is None:
        raise UsageError(unknown_user(user))
    return rows


def actor() -> str:
    """Who is named in the audit log for what this command does."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return "cli"
