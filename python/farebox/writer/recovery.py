"""From a journal left by a dead process to one that may be appended to (MONEY section 8), repeatable at any
point.

Order: the caller holds the lock (1); check the files and cut a torn tail (2); claim the epoch (3); new
segment (4); end what a crash cut off, synced (5); fence each leased user and return what is free (6), unless
the caller fences each lease itself before it uses it. A store that is down stops it after step 2. Killed
anywhere, the next recovery does what is left: an epoch claimed
twice is only a higher one, and an exchange that was ended is not open any more.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import orjson

from farebox._meter import PriceError
from farebox.base import frames, limits
from farebox.base.errors import FaultError, JournalError, StoreRefusedError
from farebox.base.ids import epoch_of
from farebox.base.records import WALLETS, Debit, Fenced, LotAmount, Settlement, Void
from farebox.journal import Durability, Journal, JournalScan
from farebox.journal.frames import Frame
from farebox.meter.price_book import ModelPrice, PriceBook, from_plain
from farebox.store.base import JournalState, WorkerStore
from farebox.writer.unfinished import PriceOf, Unfinished, close_open_exchanges

_log = logging.getLogger(__name__)
_CALLS_AT_ONCE: Final = 32

Schedule = Callable[[Callable[[], None]], object]
"""Run a callback on the loop: `loop.call_soon`, or `loop.call_soon_threadsafe` from other threads."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a worker needs to go on; `last_pos` is the position of the last record.

    `leased`: whose money the journal holds, as of the claim. `unapplied`: what settlements recorded and
    perhaps not booked take, in order.
    """

    epoch: int
    leased: list[str]
    unapplied: list[Debit]
    last_pos: int


async def recover(
    journal: Journal,
    store: WorkerStore,
    *,
    now_ms: int,
    host: str,
    schedule: Schedule,
    wake: Schedule,
    durability: Durability = "process",
    keeps_leases: bool = False,
) -> Recovered:
    """Make a locked journal ready to append.

    With `keeps_leases` step 6 is the caller's: asking the store which of very many settlements it has booked
    would keep a worker from serving. Raises JournalDamagedError and StoreRefusedError (an operator must look;
    the message says how), StoreDownError and StoreUnknownError (try again with the same journal).
    """
    found = await asyncio.to_thread(journal.scan)
    states = {state.journal: state for state in await store.journal_states()}
    state = states.get(journal.id)
    epoch = next_epoch(journal.id, journal.epoch, found, state)
    applied = 0 if state is None else state.applied
    price_of = await _prices(found, store)
    journal.intend_epoch(epoch)
    await store.claim_epoch(journal.id, epoch, host, now_ms)
    leased = await store.leases_of(journal.id)
    journal.begin_epoch(epoch, schedule, wake, durability)
    unapplied = debits_after(found.finished, applied)
    unapplied += await _end_open_exchanges(journal, found, now_ms, price_of)
    if not keeps_leases:
        await _return_free_money(journal.id, epoch, store, leased, unapplied, now_ms)
    return Recovered(epoch, leased, unapplied, journal.last_pos if found.opens else found.last_pos)


# -- step 3: the epoch ---------------------------------------------------------------------------------------


def next_epoch(journal: str, intended: int, found: JournalScan, state: JournalState | None) -> int:
    """The epoch to claim: one above the store's.

    `intended` is the highest epoch this directory ever meant to claim; the store may be one behind it (the
    claim did not land). Anything else is a copy, a clone or a restored store: raises StoreRefusedError (hole
    2, S17).
    """
    stored, applied = (0, 0) if state is None else (state.epoch, state.applied)
    if stored > intended or applied > found.last_pos:
        raise StoreRefusedError(
            f"journal {journal}: the store knows more of it (epoch {stored}, position {applied}) than its "
            f"directory (epoch {intended}, position {found.last_pos}): this is an old copy or a clone; "
            "remove the directory, or put the newer one back"
        )
    if applied < found.first_pos:
        raise StoreRefusedError(
            f"journal {journal}: the store has applied only up to position {applied}, the journal's oldest "
            f"record stands behind {found.first_pos}: the store was restored from a backup; connect the "
            f"newer one, or end the journal with `farebox lease release --lost {journal}`"
        )
    if stored < max(intended - 1, epoch_of(found.last_pos)):
        raise StoreRefusedError(
            f"journal {journal}: its directory has reached epoch {intended}, the store knows {stored}: the "
            "store was restored from a backup or is another one; connect the store that belongs to this "
            f"journal, or end the journal with `farebox lease release --lost {journal}`"
        )
    return stored + 1


# -- step 5: exchanges without an end ------------------------------------------------------------------------


async def _prices(found: JournalScan, store: WorkerStore) -> PriceOf:
    """Prices of the open exchanges: from the journal's own frames (hole 31), else from the store.

    The store has every version; the journal loses those whose segment has gone.
    """
    versions = {one.opened.price_version for one in found.opens.values() if one.sent}
    books: dict[int, PriceBook] = {}
    for version in versions:
        written = found.prices.get(version)
        document = orjson.loads(written) if written is not None else await store.price_book(version)
        try:
            books[version] = from_plain(document or {})
        except (PriceError, ValueError) as error:
            _log.error("prices of version %d cannot be used: %s", version, error)

    def price_of(version: int, model: str) -> ModelPrice | None:
        book = books.get(version)
        return None if book is None else book.models.get(model)

    return price_of


async def _end_open_exchanges(
    journal: Journal, found: JournalScan, now_ms: int, price_of: PriceOf
) -> list[Debit]:
    """Append an end for each open exchange and wait until all are on disk; what the settlements among them
    take.
    """
    if not found.opens:
        return []
    unfinished = [Unfinished(one.opened, one.sent, one.progress) for one in found.opens.values()]
    ends = close_open_exchanges(unfinished, now_ms, price_of)
    positions = await asyncio.gather(*[_appended(journal, end) for end in ends])
    while journal.synced_pos < max(positions):
        if journal.broken is not None:
            raise JournalError(f"journal {journal.id} cannot be synced: {journal.broken}")
        await asyncio.sleep(limits.sync_interval_s)
    both = zip(positions, ends, strict=True)
    settled = [Debit.of(pos, end) for pos, end in both if isinstance(end, Settlement)]
    _log.warning(
        "journal %s: %d exchanges had no end: %d settled at an estimate, %d had not left",
        journal.id,
        len(ends),
        len(settled),
        len(ends) - len(settled),
    )
    return settled


def _appended(journal: Journal, end: Settlement | Void) -> asyncio.Future[int]:
    """A position at or behind the end's own, once it is written."""
    written: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def then(error: Exception | None) -> None:
        if error is None:
            written.set_result(journal.last_pos)
        else:
            written.set_exception(error)

    journal.append(frames.SETTLE if isinstance(end, Settlement) else frames.VOID, end.encode(), then)
    return written


def debits_after(finished: Iterable[Debit | Frame], applied: int) -> list[Debit]:
    """What recorded settlements take that may not be booked. One that cannot be read is the writer's to
    park.
    """
    found: list[Debit] = []
    for end in finished:
        if isinstance(end, Debit):
            if end.pos > applied:
                found.append(end)
        elif end.kind == frames.SETTLE and end.pos > applied:
            with contextlib.suppress(ValueError, TypeError):
                found.append(Debit.of(end.pos, Settlement.decode(end.payload)))
    return found


# -- step 6: money nobody needs ------------------------------------------------------------------------------


async def _return_free_money(
    journal: str,
    epoch: int,
    store: WorkerStore,
    leased: Iterable[str],
    unapplied: Iterable[Debit],
    now_ms: int,
) -> None:
    """Fence each leased user and give back what no recorded debit needs.

    What fails here is only money that stays leased a little longer: the worker fences before it uses any.
    """
    owing: dict[str, list[Debit]] = {}
    for debit in unapplied:
        owing.setdefault(debit.user, []).append(debit)
    turn = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def give_back(user: str) -> None:
        debits = owing.get(user, [])
        async with turn:
            fenced = await store.fence(user, journal, epoch, [debit.exchange for debit in debits], now_ms)
            free = () if fenced is None else free_parts(fenced, debits)
            if fenced is not None and free:
                await store.give_back(user, journal, epoch, fenced.op, free, now_ms)

    try:
        async with asyncio.TaskGroup() as tasks:
            for user in leased:
                tasks.create_task(give_back(user))
    except* FaultError as errors:
        _log.warning("journal %s: not all leases could be returned: %s", journal, errors.exceptions[0])


def free_parts(fenced: Fenced, debits: Iterable[Debit]) -> tuple[LotAmount, ...]:
    """What of a lease no recorded and unbooked debit needs; what a debit has no lot for is kept in wallet
    order.
    """
    if fenced.dead:
        return ()
    left = {part.lot: part for part, _ in fenced.lots}
    taken_pico: dict[str, int] = {}
    uncovered_pico: dict[str, int] = {}
    for debit in debits:
        if debit.exchange not in fenced.booked:
            covered_pico = 0
            for lot, _, amount_pico in debit.takes:
                taken_pico[lot] = taken_pico.get(lot, 0) + amount_pico
                covered_pico += amount_pico
            rest_pico = max(0, debit.amount_pico - covered_pico)
            uncovered_pico[debit.wallet] = uncovered_pico.get(debit.wallet, 0) + rest_pico
    for lot, amount_pico in taken_pico.items():
        _keep(left, [lot], amount_pico)
    for wallet, amount_pico in uncovered_pico.items():
        in_order = [lot for pool in WALLETS[wallet] for lot, part in left.items() if part.pool == pool]
        _keep(left, in_order, amount_pico)
    return tuple(part for part in left.values() if part.amount_pico)


def _keep(left: dict[str, LotAmount], lots: Iterable[str], amount_pico: int) -> None:
    """Take an amount out of what may be returned, from the lots in order as far as they go."""
    for lot in lots:
        part = left.get(lot)
        if part is not None and amount_pico > 0:
            kept = min(part.amount_pico, amount_pico)
            left[lot] = part._replace(amount_pico=part.amount_pico - kept)
            amount_pico -= kept
