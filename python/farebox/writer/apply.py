"""One journal's settled exchanges into the store (MONEY section 4): exactly once, whatever fails in between.

Promises: a record is booked or parked before `applied` passes it; a user whose booking fails waits alone
while the others go on; nothing is taken from a journal before it is synced; a store that is down costs time,
never the place.

Request-log rows follow the booking, because they say what was taken from the pools; a row the store will not
have goes to the dead letters. Rollups go before `applied`, so that no replay is needed for them (hole 27).
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum, auto
from typing import Final, Protocol

from farebox.base import limits
from farebox.base.errors import FareboxError, FaultError, StoreConflictError, StoreUnknownError
from farebox.base.records import Settlement
from farebox.journal.frames import Frame
from farebox.store.base import Booked, JournalState, Store
from farebox.writer.batch import Finished, by_user, finished_of, stand_in, transactions_of
from farebox.writer.charged import charged_of
from farebox.writer.dead_letter import DeadLetters

_log = logging.getLogger(__name__)

_POISON: Final = (FareboxError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a store raises over a record it cannot digest, when it is no FaultError: the record's fault, not the
store's.
"""


class _Tried(Enum):
    """How one booking transaction went."""

    DONE = auto()
    LATER = auto()
    """A conflict or an unknown outcome."""
    POISON = auto()
    """Some record in it cannot be booked at all."""


class FrameSource(Protocol):
    """A journal as the applier reads it: synced frames only, in order, each once."""

    async def read_synced(self) -> tuple[Sequence[Frame], bool]:
        """The next frames after those returned before, and whether there are more; empty at the end of what
        is synced.
        """
        ...


class JournalApplier:
    """Applies one journal, a batch a `step`; every queue below keeps its place when a step fails.

    `source` starts after the `applied` that the store has. `on_fence(journal, user)` is told whose lease the
    journal's worker must read anew.
    """

    def __init__(
        self,
        journal: str,
        store: Store,
        source: FrameSource,
        dead_letters: DeadLetters,
        on_fence: Callable[[str, str], None],
    ) -> None:
        self.journal = journal
        self.applied = 0
        self.booked_count = 0
        self.parked_count = 0
        self.dead_letters = dead_letters
        self._store = store
        self._source = source
        self._on_fence = on_fence
        self._read_pos = 0
        self._confirmed = 0
        self._unbooked: dict[str, list[Finished]] = {}
        self._apart: set[str] = set()
        self._unknown: set[str] = set()
        self._unlogged: list[Finished] = []
        self._charge_unsure: list[Finished] = []
        self._unrolled: list[Finished] = []
        self._at_once = limits.records_per_batch_max

    @property
    def unbooked_count(self) -> int:
        """Records read and not booked yet."""
        return sum(len(records) for records in self._unbooked.values())

    @property
    def is_unfinished(self) -> bool:
        """Whether something was read of which the store has not confirmed that `applied` covers it."""
        return self._confirmed < self._read_pos

    def oldest_unbooked_ms(self) -> int | None:
        """When the oldest exchange that is read and not booked ended; None when all are booked."""
        return min((records[0].settlement.ended_ms for records in self._unbooked.values()), default=None)

    async def step(self, state: JournalState, now_ms: int) -> bool:
        """Apply the next batch; whether it was a full one, so that the journal has more.

        `state` is the journal's row as the store has it now. Raises FaultError (store down, unusable, unsure;
        journal unreadable) with the place kept: the next step goes on where this one stopped.
        """
        self._confirmed = state.applied
        self.applied = max(self.applied, state.applied)
        self._unrolled = [record for record in self._unrolled if record.pos > state.rolled]
        is_behind = await self._read(state)
        await self._book(state.epoch, now_ms)
        await self._finish(state)
        return is_behind

    # -- reading ---------------------------------------------------------------------------------------------

    async def _read(self, state: JournalState) -> bool:
        if max(self.unbooked_count, len(self._unlogged), len(self._unrolled)) >= limits.records_per_batch_max:
            return False
        read, is_behind = await self._source.read_synced()
        if not read:
            return False
        self._read_pos = read[-1].pos
        records, unreadable = finished_of(self.journal, read)
        if unreadable:
            self.dead_letters.append(
                unreadable, f"journal {self.journal}: a record cannot be read; it is parked"
            )
        for user, group in by_user(records).items():
            self._unbooked.setdefault(user, []).extend(group)
        self._unrolled += [record for record in records if record.pos > state.rolled]
        return is_behind

    # -- booking ---------------------------------------------------------------------------------------------

    async def _book(self, epoch: int, now_ms: int) -> None:
        """Book what is unbooked: many users a transaction, then by himself each user whose transaction
        failed.
        """
        together = [records for user, records in self._unbooked.items() if user not in self._apart]
        for records in list(transactions_of(together, limits.users_per_transaction_max, self._at_once)):
            if await self._try_all(records, epoch, now_ms) is not _Tried.DONE:
                self._apart.update(record.settlement.user for record in records)
        for user in sorted(self._apart):
            if await self._book_alone(user, epoch, now_ms) is _Tried.DONE:
                self._apart.discard(user)

    async def _book_alone(self, user: str, epoch: int, now_ms: int) -> _Tried:
        """Book one user's records; what is not done waits for the next step and holds up nobody."""
        if user in self._unknown:
            await self._drop_booked(user)
        records = self._unbooked.get(user)
        if records is None:
            return _Tried.DONE
        tried = await self._try_all(records, epoch, now_ms)
        if tried is _Tried.POISON:
            tried = await self._find_poison(user, epoch, now_ms)
        return tried

    async def _try_all(self, records: Sequence[Finished], epoch: int, now_ms: int) -> _Tried:
        """Records in order, as many in a transaction as the store takes in time at present."""
        rest = list(records)
        while rest:
            part = rest[: self._at_once]
            tried = await self._try(part, epoch, now_ms)
            if tried is not _Tried.DONE:
                return tried
            del rest[: len(part)]
        return _Tried.DONE

    async def _find_poison(self, user: str, epoch: int, now_ms: int) -> _Tried:
        """Book a user's records one by one; an operator gets to see the one that is poison."""
        for record in list(self._unbooked[user]):
            tried = await self._try([record], epoch, now_ms)
            if tried is _Tried.POISON:
                tried = await self._try([self._poison_stand_in(record)], epoch, now_ms)
            if tried is not _Tried.DONE:
                return tried
        return _Tried.DONE

    def _poison_stand_in(self, record: Finished) -> Finished:
        """Put a settlement that only says "look at this" in the place of one that cannot be booked."""
        lost = record.settlement
        self.dead_letters.append(
            [record], f"journal {self.journal}: a settlement cannot be booked; it is parked"
        )
        raw = lost.encode().decode()[: limits.usage_raw_bytes_max]
        reason = f"cannot be booked; {self.journal}:{record.pos} is in the dead letters"
        instead = Finished(record.pos, stand_in(lost.exchange, lost.user, reason, raw))
        self._unbooked[lost.user] = [instead if one is record else one for one in self._unbooked[lost.user]]
        return instead

    async def _try(self, records: Sequence[Finished], epoch: int, now_ms: int) -> _Tried:
        """One transaction. Raises only when the store is down or unusable: then nothing was booked."""
        settlements = [record.settlement for record in records]
        try:
            results = await self._store.book(self.journal, epoch, settlements, now_ms)
        except StoreConflictError:
            return _Tried.LATER
        except StoreUnknownError as error:
            _log.warning(
                "journal %s: outcome of booking %d records is unknown: %s", self.journal, len(records), error
            )
            self._unknown.update(settlement.user for settlement in settlements)
            self._ask_less(len(records))
            return _Tried.LATER
        except FaultError:
            self._ask_less(len(records))
            raise
        except _POISON:
            _log.exception("journal %s: %d records cannot be booked together", self.journal, len(records))
            return _Tried.POISON
        self._at_once = min(limits.records_per_batch_max, 2 * self._at_once)
        self._take_out(records)
        self._note_results(records, results)
        return _Tried.DONE

    def _ask_less(self, count: int) -> None:
        """So many records were perhaps more than the store does in the time of a call: half of them next.

        A slow store would otherwise be asked for the same for ever, and never be through with it.
        """
        self._at_once = max(limits.records_at_once_min, min(self._at_once, count // 2))

    def _take_out(self, done: Sequence[Finished]) -> None:
        """Remove booked or parked records from the queue; they go on to their request-log rows.

        They are all that waits of their users, or a part of what waits of one.
        """
        users = {record.settlement.user for record in done}
        if sum(len(self._unbooked[user]) for user in users) == len(done):
            for user in users:
                del self._unbooked[user]
        else:
            gone = {record.pos for record in done}
            for user in users:
                self._unbooked[user] = [record for record in self._unbooked[user] if record.pos not in gone]
        self._unlogged.extend(done)
        self.booked_count += len(done)

    def _note_results(self, records: Sequence[Finished], results: Sequence[Booked]) -> None:
        """Act on what is not plainly booked: alarms, fences, charges whose log row needs a look."""
        if results.count(Booked.BOOKED) == len(results):
            return
        for record, result in zip(records, results, strict=True):
            if result is Booked.BOOKED:
                continue
            self._charge_unsure.append(record)
            if result is Booked.DUPLICATE:
                continue
            settlement = record.settlement
            self._on_fence(self.journal, settlement.user)
            if result is Booked.PARKED:
                self.parked_count += 1
                why = settlement.quarantine or "see `farebox quarantine list`"
                _log.error("exchange %s of %s is parked: %s", settlement.exchange, settlement.user, why)

    async def _drop_booked(self, user: str) -> None:
        """After an unknown outcome: ask the store what is there before anything is repeated."""
        records = self._unbooked[user]
        booked = await self._store.row_ids([(user, record.settlement.exchange) for record in records])
        self._unknown.discard(user)
        found = [record for record in records if record.settlement.exchange in booked]
        if found:
            self._take_out(found)
            self._note_results(found, [Booked.DUPLICATE] * len(found))

    # -- logs, rollups, position -----------------------------------------------------------------------------

    async def _finish(self, state: JournalState) -> None:
        """Write what follows the booking: request-log rows, rollups, then the marks.

        A call that meets another epoch has no effect on the marks and is repeated next time.
        """
        low_water = self._low_water()
        if not self._unlogged and self._read_pos <= state.rolled and low_water <= state.applied:
            return
        charged = await charged_of(self._store, [record.settlement for record in self._charge_unsure])
        await self._log_ahead(charged)
        to_log = [record.settlement for record in self._unlogged]
        to_roll_up = [record.settlement for record in self._unrolled]
        try:
            failed: Collection[str] = await self._store.finish(
                self.journal,
                state.epoch,
                to_log,
                charged,
                to_roll_up,
                state.rolled,
                self._read_pos,
                low_water,
            )
        except FaultError:
            self._ask_less(len(to_log))
            raise
        except _POISON as error:
            _log.error("journal %s: logs and rollups are written apart: %s", self.journal, error)
            failed = await self._finish_apart(state, to_log, charged, to_roll_up, low_water)
        self._lose_log_rows(failed)
        self._unlogged.clear()
        self._charge_unsure.clear()
        self.applied = max(self.applied, low_water)

    async def _log_ahead(self, charged: Mapping[str, int]) -> None:
        """Write request-log rows until no more are left than the store takes in time at present."""
        while len(self._unlogged) > self._at_once:
            part = self._unlogged[: self._at_once]
            try:
                failed = await self._store.log([record.settlement for record in part], charged)
            except FaultError:
                self._ask_less(len(part))
                raise
            except _POISON as error:
                _log.error("journal %s: request logs cannot be written: %s", self.journal, error)
                failed = [record.settlement.exchange for record in part]
            self._lose_log_rows(failed)
            del self._unlogged[: len(part)]

    async def _finish_apart(
        self,
        state: JournalState,
        to_log: Sequence[Settlement],
        charged: Mapping[str, int],
        to_roll_up: Sequence[Settlement],
        low_water: int,
    ) -> Collection[str]:
        """The same step by step: what a record spoils is left out, and the position rises all the same."""
        try:
            failed: Collection[str] = await self._store.log(to_log, charged)
        except FaultError:
            raise
        except _POISON as error:
            _log.error("journal %s: request logs cannot be written: %s", self.journal, error)
            failed = {settlement.exchange for settlement in to_log}
        epoch, rolled = state.epoch, state.rolled
        try:
            is_rolled = await self._store.roll_up(self.journal, epoch, to_roll_up, rolled, self._read_pos)
        except FaultError:
            raise
        except _POISON as error:
            _log.error(
                "journal %s: %d records are not in the rollups: %s", self.journal, len(to_roll_up), error
            )
            is_rolled = await self._store.roll_up(self.journal, epoch, [], rolled, self._read_pos)
        if is_rolled:
            await self._store.advance_applied(self.journal, epoch, low_water)
        return failed

    def _lose_log_rows(self, failed: Collection[str]) -> None:
        """Keep the records whose log row the store refused where an operator finds them."""
        if failed:
            lost = [record for record in self._unlogged if record.settlement.exchange in failed]
            self.dead_letters.append(lost, f"journal {self.journal}: the store refused request-log rows")

    def _low_water(self) -> int:
        """The position up to which everything is booked or parked."""
        if not self._unbooked:
            return self._read_pos
        return min(records[0].pos for records in self._unbooked.values()) - 1
