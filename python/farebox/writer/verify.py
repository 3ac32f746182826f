"""M1 to M4 over store and journals, right while traffic runs (MONEY section 10).

Promises: every user with his rows and lots is read in one snapshot, so what it names is wrong and no race;
what is not applied yet is counted as pending, what waits for an operator is listed, neither is a difference.
It changes nothing, and keeps no more than one user's rows and one page of a journal in memory.

The order makes it right online (hole 57): journals are read before accounts, because a journal that has ended
never leases again; `applied` is read before the journal's records, because what it covers was booked before
it was raised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farebox.base import limits
from farebox.base.errors import JournalDamagedError
from farebox.base.records import Account, Settlement
from farebox.ledger import conservation
from farebox.store.base import JournalState, Store
from farebox.writer.batch import Finished, finished_of
from farebox.writer.journals import JournalSource, journal_paths

OnProgress = Callable[[str, int], None]
"""Called with what is being read ("user NAME", "journal ID") and how many of them are done."""

_ENDED = frozenset({"retired", "lost"})


@dataclass(slots=True)
class VerifyReport:
    """What verify found; clean when there are no differences."""

    differences: list[str] = field(default_factory=list)
    differences_total: int = 0
    users: int = 0
    rows: int = 0
    journals: int = 0
    records: int = 0
    """Settlements on disk that `applied` covers, each with its rows looked up."""
    pending: dict[str, int] = field(default_factory=dict)
    """Journal -> settlements on disk beyond `applied`."""
    parked: list[str] = field(default_factory=list)
    parked_total: int = 0
    notes: list[str] = field(default_factory=list)

    def differ(self, difference: str) -> None:
        """Note a difference; the list is bounded, the count is not."""
        self.differences_total += 1
        if len(self.differences) < limits.findings_max:
            self.differences.append(difference)

    def lines(self) -> list[str]:
        """The report as text rows."""
        verdict = "no differences" if not self.differences_total else f"DIFFERENCES: {self.differences_total}"
        return [
            f"{self.users} users, {self.rows} ledger rows: balances, lots, leases and rows compared",
            f"{self.journals} journals on disk, {self.records} applied settlements looked up",
            *(f"pending: journal {journal}: {count} settlements" for journal, count in self.pending.items()),
            *(f"parked: {parked}" for parked in self.parked),
            *(f"note: {note}" for note in self.notes),
            *self.differences,
            verdict,
        ]

    def to_plain(self) -> dict[str, object]:
        """The report, JSON-ready."""
        return {
            "clean": not self.differences_total,
            "differences": self.differences,
            "differences_total": self.differences_total,
            "users": self.users,
            "rows": self.rows,
            "journals": self.journals,
            "records": self.records,
            "pending": self.pending,
            "parked": self.parked,
            "parked_total": self.parked_total,
            "notes": self.notes,
        }


async def verify(
    store: Store, journals_root: Path | None, on_progress: OnProgress | None = None
) -> VerifyReport:
    """Compare everything; without `journals_root` the store alone."""
    report = VerifyReport()
    tell = on_progress or (lambda _what, _count: None)
    states = {state.journal: state for state in await store.journal_states()}
    if journals_root is not None:
        for path in journal_paths(journals_root):
            await _verify_journal(store, path, states.get(path.name), report)
            report.journals += 1
            tell(f"journal {path.name}", report.journals)
    ended = {state.journal for state in states.values() if state.state in _ENDED}
    async for account in store.accounts():
        await _verify_user(store, account.user, ended, report)
        tell(f"user {account.user}", report.users)
    await _list_parked(store, report)
    return report


async def _verify_user(store: Store, user: str, ended: set[str], report: VerifyReport) -> None:
    snapshot = await store.account_with_rows(user)
    if snapshot is None:
        report.differ(f"M1 {user}: the account has disappeared")
        return
    account, rows = snapshot
    report.users += 1
    report.rows += len(rows)
    for difference in conservation.differences(account, rows):
        report.differ(difference)
    for difference in ended_leases(account, ended):
        report.differ(difference)
    if account.parked is not None:
        report.notes.append(f"user {user} is parked: {account.parked}")


def ended_leases(account: Account, ended: set[str]) -> list[str]:
    """Leases that outlived their journal: money nobody can spend."""
    return [
        f"M2 {account.user}: journal {journal} has ended and still leases {amount} of lot {lot}"
        for journal, entry in account.leases.items()
        if journal in ended
        for lot, amount in entry.lots.items()
        if amount
    ]


async def _verify_journal(store: Store, path: Path, state: JournalState | None, report: VerifyReport) -> None:
    """Look up the rows of every settlement on disk that `applied` covers."""
    applied = 0 if state is None else state.applied
    if state is None:
        report.notes.append(f"journal {path.name} is not known to the store yet")
    source = JournalSource(path, 0)
    try:
        while frames := (await source.read_synced())[0]:
            records, _ = finished_of(path.name, frames)
            covered = [record for record in records if record.pos <= applied]
            await _verify_rows(store, path.name, covered, report)
            if len(records) > len(covered):
                pending = report.pending.get(path.name, 0)
                report.pending[path.name] = pending + len(records) - len(covered)
    except JournalDamagedError as error:
        report.differ(str(error))
    finally:
        source.close()


async def _verify_rows(store: Store, journal: str, records: Sequence[Finished], report: VerifyReport) -> None:
    owing = [record for record in records if leaves_rows(record.settlement)]
    report.records += len(records)
    if not owing:
        return
    there = await store.row_ids([(record.settlement.user, record.settlement.exchange) for record in owing])
    for pos, settlement in owing:
        if settlement.exchange not in there:
            report.differ(
                f"M4 exchange {settlement.exchange} of {settlement.user}, journal {journal} position {pos}: "
                f"applied, but it has no rows ({settlement.amount_pico} pico)"
            )


def leaves_rows(settlement: Settlement) -> bool:
    """Whether booking must leave a trace: all but refusals that charge and set aside nothing."""
    moves_money = settlement.amount_pico or settlement.takes or settlement.quarantine
    return bool(moves_money) or settlement.outcome != "refused"


async def _list_parked(store: Store, report: VerifyReport) -> None:
    for parked in await store.parked():
        report.parked_total += 1
        if len(report.parked) < limits.findings_max:
            report.parked.append(f"{parked['exchange']} of {parked['user']}: {parked['reason']}")
