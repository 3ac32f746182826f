"""The way back inside the database: a store that lies in the replaced system's MongoDB gives it its own
fields back.

Promises: every balance and counter becomes the nearest double in the document it stands in, under the
revision it was read at; the account is parked, so that Farebox spends nothing of it until `farebox wallet
adopt` takes the balance over again, whatever it has become. An interrupted run goes on where it was.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from farebox.base.errors import StoreConflictError
from farebox.base.keys import key_digest
from farebox.base.records import POOLS, Account
from farebox.credits.rollback import ROLLED_BACK, RollbackReport, money_fields, usd_double
from farebox.store.base import Store
from farebox.store.legacy.source import Document, Unreadable

if TYPE_CHECKING:
    from farebox.store.legacy.in_place import DatabaseInPlace


async def give_back(
    store: Store, database: "DatabaseInPlace", on_progress: Callable[[str, int, int], None]
) -> RollbackReport:
    """Change every account's document. Nothing may run meanwhile; `check_all_is_home` comes first.

    Raises StoreConflictError where a document has changed since it was read.
    """
    report = RollbackReport()
    async for found in store.accounts():
        account = await store.account(found.user)  # opens what nobody has touched yet
        if account is None:
            continue
        if account.parked != ROLLED_BACK:
            fields = _fields(account, await store.lifetime(account.user) or {})
            guard = {"_id": account.user, "rev": account.rev}
            if not await asyncio.to_thread(database.change, "usersNew", guard, fields):
                raise StoreConflictError(
                    f"user {account.user} changed meanwhile: stop whatever writes, then run the command again"
                )
        report.add(account)
        on_progress("usersNew", report.users, 0)
    await _end_keys(store, database, report)
    return report


def _fields(account: Account, lifetime: Mapping[str, int]) -> dict[str, Any]:
    return {
        **{pool: usd_double(account.balances.get(pool, 0)) for pool in POOLS},
        **money_fields(account, lifetime),
        "total_earned": usd_double(lifetime.get("total_earned_pico", 0)),
        "total_spent": usd_double(lifetime.get("total_spent_pico", 0)),
        "parked": ROLLED_BACK,
    }


async def _end_keys(store: Store, database: "DatabaseInPlace", report: RollbackReport) -> None:
    """Keys revoked here are ended there; active ones that exist only as digests are counted."""
    known: set[str] = set()
    for document in _documents(database, "user_keys"):
        if await _is_revoked(store, str(document["_id"]), known):
            database.change("user_keys", {"_id": document["_id"]}, {"isActive": False})
    for document in _documents(database, "usersNew"):
        if document.get("apiKey") and await _is_revoked(store, str(document["apiKey"]), known):
            database.change("usersNew", {"_id": document["_id"]}, {}, ("apiKey", "apiKeyCreatedAt"))
    async for account in store.accounts():
        keys = await store.keys_of(account.user)
        report.keys_missing += sum(key.key_active and key.digest not in known for key in keys)


async def _is_revoked(store: Store, text: str, known: set[str]) -> bool:
    digest = key_digest(text)
    known.add(digest)
    key = await store.key(digest)
    return key is not None and not key.key_active


def _documents(database: "DatabaseInPlace", collection: str) -> Iterator[Document]:
    for found, _ in database.documents(collection):
        if not isinstance(found, Unreadable):
            yield found
