"""M1 to M4 over store and journals, right while traffic runs (MONEY section 10).

Promises: every user, his lots and the sums of his rows are read in one snapshot, so what it names is wrong
and no race; what is not applied yet is counted as pending, what waits for an operator is listed, neither is a
difference. It changes nothing, and keeps no more than one user and one segment of a journal in memory.

Three rules make it right online (hole 57). Journals are read before accounts, and `applied` before the
journal's records, because what it covers was booked before it was raised. What joins two reads (a lease and
the state of its journal, a reserved amount and what is parked) is read again before it is a difference. A
journal whose files move on or away under the reader is read on from where they are then.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from farebox.base import limits
from farebox.base.errors import JournalDamagedError, JournalError
from farebox.base.records import Account, Settlement
from farebox.journal.check import walk
from farebox.journal.files import Files
from farebox.journal.frames import Frame
from farebox.ledger import conservation
from farebox.ledger.conservation import Finding
from farebox.store.base import JournalState, Store
from farebox.writer.batch import Finished, finished_of
from farebox.writer.journals import JournalSource, journal_paths
from farebox.writer.repair import remedy
from farebox.writer.verify_payments import payment_findings
from farebox.writer.verify_rollups import rollup_findings

OnProgress = Callable[[str, int], None]
"""Called with what was read last: ("journal ID", settlements so far) or ("user NAME", users so far)."""

_ENDED: Final = frozenset({"retired", "lost"})


@dataclass(slots=True)
class VerifyReport:
    """What verify found; clean when there are no differences."""

    differences: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    """What would mend each of the differences, in their order."""
    differences_total: int = 0
    delta_pico: int = 0
    """Money in question: the sum of what the differences are off by."""
    users: int = 0
    rows: int = 0
    payments: int = 0
    journals: int = 0
    records: int = 0
    """Settlements on disk that `applied` covers, each with its rows looked up."""
    pending: dict[str, int] = field(default_factory=dict)
    """Journal -> settlements on disk beyond `applied`."""
    parked: list[str] = field(default_factory=list)
    parked_total: int = 0
    notes: list[str] = field(default_factory=list)

    def differ(self, finding: Finding) -> None:
        """Note a difference; the list is bounded, the count is not."""
        self.differences_total += 1
        self.delta_pico += finding.delta_pico
        if len(self.differences) < limits.findings_max:
            self.differences.append(finding.text)
            self.repairs.append(remedy(finding))

    def lines(self) -> list[str]:
        """The report as text rows."""
        verdict = "no differences" if not self.differences_total else f"DIFFERENCES: {self.differences_total}"
        return [
            f"{self.users} users, {self.rows} ledger rows: balances, lots, leases and rows compared",
            *([f"{self.payments} payments compared with the rows they earned"] if self.payments else []),
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
            "delta_pico": self.delta_pico,
            "repairs": self.repairs,
            "users": self.users,
            "rows": self.rows,
            "payments": self.payments,
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
    states = await states_of(store)
    if journals_root is not None:
        for path in journal_paths(journals_root):
            await _verify_journal(store, path, report, tell)
            report.journals += 1
    accounts = AccountCheck(store, states)
    keeps_payments = bool(await store.records("payment", limit=1))
    async for account in store.accounts():
        await accounts.check(account.user, report)
        if keeps_payments:
            await _check_payments(store, account.user, report)
        tell(f"user {account.user}", report.users)
    for finding in await rollup_findings(store):
        report.differ(finding)
    await _list_parked(store, report)
    return report


async def _check_payments(store: Store, user: str, report: VerifyReport) -> None:
    """In a store that keeps payments, every purchase names the one that paid for it."""
    count, findings = await payment_findings(store, user)
    report.payments += count
    for finding in findings:
        report.differ(finding)


async def states_of(store: Store) -> dict[str, JournalState]:
    """Journal -> its row in the store."""
    return {state.journal: state for state in await store.journal_states()}


# -- accounts ------------------------------------------------------------------------------------------------


class AccountCheck:
    """Checks of single accounts, with what they have in common read as seldom as is safe."""

    def __init__(self, store: Store, states: Mapping[str, JournalState]) -> None:
        """`states` may grow old: what they contradict is looked up again."""
        self._store = store
        self._states = states
        self._parked: frozenset[str] = frozenset()

    async def check(self, user: str, report: VerifyReport) -> None:
        """Compare one user's snapshot with itself, then with journals and with what is parked."""
        snapshot = await self._store.account_with_sums(user)
        if snapshot is None:
            report.differ(Finding("gone", f"M1 {user}: the account has disappeared", 0, {"user": user}))
            return
        account, row_sums, row_count = snapshot
        report.users += 1
        report.rows += row_count
        for finding in conservation.findings(account, row_sums):
            report.differ(finding)
        for finding in await self._outlived(account):
            report.differ(finding)
        for finding in await self._forgotten(account):
            report.differ(finding)
        if account.parked is not None:
            report.notes.append(f"user {user} is parked: {account.parked}")

    async def _outlived(self, account: Account) -> Sequence[Finding]:
        """Leases of journals that have ended. A lost journal may have come back to life and leased again:
        only what stands between two looks at the same epoch is wrong.
        """
        if not ended_leases(account, self._states):
            return ()
        before = await states_of(self._store)
        again = await self._store.account(account.user)
        self._states = await states_of(self._store)
        same = {name: state for name, state in self._states.items() if _epoch(before, name) == state.epoch}
        return () if again is None else ended_leases(again, same)

    async def _forgotten(self, account: Account) -> Sequence[Finding]:
        """Reserved amounts nobody can decide on. They come and go with the parked record in one transaction:
        only what is reserved before and after it was not parked is wrong.
        """
        if account.reserved.keys() <= self._parked:
            return ()
        self._parked = frozenset([str(parked["id"]) for parked in await self._store.parked()])
        lost = account.reserved.keys() - self._parked
        again = await self._store.account(account.user) if lost else None
        return (
            ()
            if again is None
            else [_forgotten(again, exchange) for exchange in lost & again.reserved.keys()]
        )


def _epoch(states: Mapping[str, JournalState], journal: str) -> int:
    return states[journal].epoch if journal in states else 0


def ended_leases(account: Account, states: Mapping[str, JournalState]) -> list[Finding]:
    """Leases that outlived their journal: money nobody can spend."""
    return [
        Finding(
            "ended lease",
            f"M2 {account.user}: journal {journal} has ended and still leases {amount} of lot {lot}",
            amount,
            {"user": account.user, "journal": journal},
        )
        for journal, entry in account.leases.items()
        if journal in states and states[journal].state in _ENDED
        for lot, amount in entry.lots.items()
        if amount
    ]


def _forgotten(account: Account, exchange: str) -> Finding:
    amount = sum(account.reserved[exchange].values())
    return Finding(
        "reserved",
        f"M3 {account.user}: {amount} pico are reserved for exchange {exchange}, which waits for nobody",
        amount,
        {"user": account.user, "exchange": exchange, "amount": amount},
    )


# -- journals ------------------------------------------------------------------------------------------------


async def _verify_journal(store: Store, path: Path, report: VerifyReport, tell: OnProgress) -> None:
    """Check a journal's files, and look up the rows of every settlement on disk that `applied` covers.

    The writer removes applied segments meanwhile: what cannot be read is read on from the segments there are
    then.
    """
    state = (await states_of(store)).get(path.name)
    if state is None:
        report.notes.append(f"journal {path.name} is not known to the store yet")
    check = _JournalCheck(store, path, 0 if state is None else state.applied, tell)
    error: JournalError | None = None
    for _ in range(limits.journal_reads_max):
        try:
            await check.read_on(report)
        except JournalError as found:
            if isinstance(found, JournalDamagedError) and str(found) == str(error):
                report.differ(Finding("damaged", str(found), 0, {"journal": path.name}))
                return
            error = found
            continue
        error = None
        if check.place >= check.applied:
            return
    if not await asyncio.to_thread(path.is_dir):
        report.notes.append(f"journal {path.name} was retired meanwhile")
        return
    report.differ(check.short(error))


class _JournalCheck:
    """One journal, read on as far as its files go."""

    def __init__(self, store: Store, path: Path, applied: int, tell: OnProgress) -> None:
        self.applied = applied
        self._tell = tell
        self.place = 0
        self._store = store
        self._path = path

    async def read_on(self, report: VerifyReport) -> None:
        """Look up the records behind `place`. Raises JournalError: the same one twice is no race."""
        await asyncio.to_thread(walk, Files(), self._path, _ignore)
        source = JournalSource(self._path, self.place)
        try:
            while frames := (await source.read_synced())[0]:
                records, _ = finished_of(self._path.name, frames)
                covered = [record for record in records if record.pos <= self.applied]
                await _verify_rows(self._store, self._path.name, covered, report)
                if len(records) > len(covered):
                    pending = report.pending.get(self._path.name, 0)
                    report.pending[self._path.name] = pending + len(records) - len(covered)
                self.place = frames[-1].pos
                self._tell(f"journal {self._path.name}", report.records)
            self.place = max(self.place, source.place)
        finally:
            source.close()

    def short(self, error: JournalError | None) -> Finding:
        """The files end before what the store has applied, or cannot be read."""
        reason = f" ({error})" if error is not None else ""
        return Finding(
            "short journal",
            f"M6 journal {self._path.name}: applied up to {self.applied}, but its files in {self._path} end "
            f"at {self.place}{reason}",
            0,
            {"journal": self._path.name, "applied": self.applied},
        )


def _ignore(_frame: Frame, _synced_pos: int) -> None:
    """Walk for the damage alone."""


async def _verify_rows(store: Store, journal: str, records: Sequence[Finished], report: VerifyReport) -> None:
    owing = [record for record in records if leaves_rows(record.settlement)]
    report.records += len(records)
    if not owing:
        return
    there = await store.row_ids([(record.settlement.user, record.settlement.exchange) for record in owing])
    for pos, settlement in owing:
        if settlement.exchange not in there:
            user, amount = settlement.user, settlement.amount_pico
            report.differ(
                Finding(
                    "no rows",
                    f"M4 exchange {settlement.exchange} of {user}, journal {journal} position {pos}: "
                    f"applied, but it has no rows ({amount} pico)",
                    amount,
                    {"journal": journal, "before": pos - 1, "user": user, "amount": amount},
                )
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
