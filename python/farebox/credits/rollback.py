"""The way back: balances as the replaced system keeps them, doubles in its own documents.

Promises: refused while anything is leased, reserved, claimed, unapplied, parked or does not add up, so that
what goes back is all there is; a double is the nearest to the exact balance, and what that rounds away is
summed and shown.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from farebox.base.errors import JournalLockedError, UsageError
from farebox.base.keys import key_digest
from farebox.base.records import Account
from farebox.base.units import PICO_PER_USD
from farebox.journal import open_journal
from farebox.store.base import Store
from farebox.store.legacy.source import Document, LegacySource, Unreadable
from farebox.store.legacy.writing import DumpWriter
from farebox.writer.journals import journal_paths
from farebox.writer.verify import verify

LEGACY_POOLS: Final = ("credits", "refCredits", "creditsNew")
_ENDS: Final = {"credits": "expiresAt", "creditsNew": "expiresAtNew"}
_NAMED_MAX: Final = 5

ROLLED_BACK: Final = (
    "rolled back: the replaced system holds this balance; `farebox wallet adopt` takes it over again"
)
"""Why an account is parked whose balances were written back in place."""


@dataclass(slots=True)
class RollbackReport:
    """What went back: users, sums by pool in pico-USD, and what doubles could not hold."""

    users: int = 0
    pools: dict[str, int] = field(default_factory=dict)
    rounding: Fraction = Fraction(0)
    keys_missing: int = 0
    """Active keys whose text nobody has any more: their owners need new ones."""

    def add(self, account: Account) -> None:
        """Count a user."""
        self.users += 1
        for pool, amount_pico in account.balances.items():
            if amount_pico:
                self.pools[pool] = self.pools.get(pool, 0) + amount_pico
                self.rounding += Fraction(usd_double(amount_pico)) * PICO_PER_USD - amount_pico


def usd_double(amount_pico: int) -> float:
    """The double nearest to an exact amount: what the replaced system's documents hold."""
    return amount_pico / PICO_PER_USD


async def check_all_is_home(store: Store, journal_dir: Path) -> None:
    """Raise UsageError with everything that still has to be done before balances may go back."""
    found = _running(journal_dir)
    here = {path.name for path in journal_paths(journal_dir)}
    for state in await store.journal_states():
        if state.state == "live" and state.journal not in here:
            found.append(f"journal {state.journal} of host {state.host} is not here: retire it first")
    report = await verify(store, journal_dir)
    found += report.differences[:_NAMED_MAX]
    found += [f"journal {name}: {count} settlements not applied" for name, count in report.pending.items()]
    found += [f"parked: {parked}" for parked in report.parked[:_NAMED_MAX]]
    async for account in store.accounts():
        found += held(account)
    if found:
        more = f" (and {len(found) - _NAMED_MAX} more)" if len(found) > _NAMED_MAX else ""
        raise UsageError(f"balances cannot go back yet: {'; '.join(found[:_NAMED_MAX])}{more}")


def held(account: Account) -> list[str]:
    """What of a user's money is not at home."""
    found = []
    if account.parked not in {None, ROLLED_BACK}:
        found.append(f"user {account.user} is parked")
    if any(lot.leased_pico for lot in account.lots):
        found.append(f"user {account.user}: money is leased or reserved; stop `farebox serve` and wait")
    if account.claims:
        found.append(f"user {account.user}: a debit still waits for money")
    return found


def _running(journal_dir: Path) -> list[str]:
    found = []
    for path in journal_paths(journal_dir):
        try:
            open_journal(path).close()
        except JournalLockedError:
            found.append(f"journal {path.name} is in use: stop `farebox serve` first")
    return found


async def write_documents(
    store: Store,
    original: LegacySource | None,
    dump: DumpWriter,
    on_progress: Callable[[str, int, int], None],
) -> RollbackReport:
    """Write all accounts in the old shape. `original` is the dump they once came from: it has what Farebox
    does not keep (passwords, referral codes, the text of keys).
    """
    report = RollbackReport()
    written: set[str] = set()
    for document in _documents(original, "usersNew"):
        account = await store.account(str(document.get("_id")))
        if account is not None:
            written.add(account.user)
            await _write(store, dump, account, document, report)
            on_progress("usersNew", len(written), 0)
    async for found in store.accounts():
        account = None if found.user in written else await store.account(found.user)  # opens what is old
        if account is not None:
            await _write(
                store, dump, account, {"_id": account.user, "role": "user", "migration": True}, report
            )
            on_progress("usersNew", report.users, 0)
    await _write_keys(store, original, dump, report)
    return report


async def _write(
    store: Store, dump: DumpWriter, account: Account, base: Document, report: RollbackReport
) -> None:
    lifetime = await store.lifetime(account.user) or {}
    key = base.get("apiKey")
    if isinstance(key, str) and not await _is_active(store, key):
        base = {name: value for name, value in base.items() if name not in {"apiKey", "apiKeyCreatedAt"}}
    dump.write("usersNew", {**base, **money_fields(account, lifetime)})
    if account.balances.get("credits_monthly") or account.balances.get("credits_permanent"):
        dump.write("users_credits", two_pool_document(account, lifetime))
    report.add(account)


def money_fields(account: Account, lifetime: Mapping[str, int]) -> dict[str, Any]:
    """The fields of usersNew that Farebox is the authority on: amounts as doubles, counts as integers."""
    fields: dict[str, Any] = {pool: usd_double(account.balances.get(pool, 0)) for pool in LEGACY_POOLS}
    for name in ("creditsUsed", "creditsNewUsed"):
        fields[name] = usd_double(lifetime.get(f"{name}_pico", 0))
    for name in ("tokensUserNew", "totalInputTokens", "totalOutputTokens"):
        fields[name] = lifetime.get(name, 0)
    for pool, name in _ENDS.items():
        fields[name] = _end(account, pool)
    return {**fields, "isActive": account.is_active}


def two_pool_document(account: Account, lifetime: Mapping[str, int]) -> dict[str, Any]:
    """A document of users_credits; amounts are USD: what a credit was worth is the operator's to know."""
    return {
        "user_id": account.user,
        "credits_monthly": usd_double(account.balances.get("credits_monthly", 0)),
        "credits_permanent": usd_double(account.balances.get("credits_permanent", 0)),
        "total_earned": usd_double(lifetime.get("total_earned_pico", 0)),
        "total_spent": usd_double(lifetime.get("total_spent_pico", 0)),
    }


def _end(account: Account, pool: str) -> datetime | None:
    """One date for the whole pool, the latest of its lots: nobody loses credit early by going back."""
    ends = [lot.expires_at_ms for lot in account.lots if lot.pool == pool and lot.left_pico]
    if not ends or None in ends:
        return None
    return datetime.fromtimestamp(max(end for end in ends if end is not None) / 1000, UTC)


async def _write_keys(
    store: Store, original: LegacySource | None, dump: DumpWriter, report: RollbackReport
) -> None:
    known: set[str] = set()
    for document in _documents(original, "user_keys"):
        key = str(document.get("_id"))
        known.add(key_digest(key))
        dump.write("user_keys", {**document, "isActive": await _is_active(store, key)})
    for document in _documents(original, "usersNew"):
        known.add(key_digest(str(document.get("apiKey"))))
    async for account in store.accounts():
        keys = await store.keys_of(account.user)
        report.keys_missing += sum(key.key_active and key.digest not in known for key in keys)


async def _is_active(store: Store, key: str) -> bool:
    found = await store.key(key_digest(key))
    return found is not None and found.key_active


def _documents(source: LegacySource | None, collection: str) -> Iterator[Document]:
    for found, _ in source.documents(collection) if source is not None else ():
        if not isinstance(found, Unreadable):
            yield found
