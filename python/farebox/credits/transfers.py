"""Moves of credit by an operator or by its owner: transfers, allocations, grants, corrections; and undoing
them.

A move is a record of the store under its key: what it is to do is fixed by the first call, a repeat changes
nothing, another move under the same key is refused. Promises: its paired transactions add up to zero, a rate
other than 1 leaves the difference as a row of its own; it never lengthens the life of credit; it can be
undone once, by counter-transactions, as far as its money is still there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from farebox.base import limits
from farebox.base.errors import InvariantBrokenError, StoreConflictError, UsageError
from farebox.base.records import POOLS, Account, Claim, LotAmount, Transaction
from farebox.base.units import usd_from_pico
from farebox.config.plans import Allocation
from farebox.credits.accounts import unknown_user
from farebox.credits.debits import debit
from farebox.credits.moves import Move, counter_rows, move_rows
from farebox.store.base import Event, EventResult, Record, RecordChange, Store

KINDS: Final = ("transfer", "allocation", "grant", "correction")
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a move: its rows (booked, or to be booked in a dry run) and its record."""

    result: EventResult
    rows: tuple[Transaction, ...]
    record: Record | None


def check(move: Move) -> None:
    """Raise UsageError on a move that can never be made."""
    if move.kind not in KINDS:
        raise UsageError(f"{move.kind!r} is no kind of move")
    if not _KEY.fullmatch(move.key):
        raise UsageError(f"{move.key!r} is no key: letters, digits, dot, hyphen and underscore, at most 80")
    if not move.reason.strip() or len(move.reason) > limits.reason_chars_max:
        raise UsageError(f"say why, in at most {limits.reason_chars_max} characters")
    paired = move.kind in {"transfer", "allocation"}
    for pool in (move.pool, move.to_pool) if paired else (move.pool,):
        if pool not in POOLS:
            raise UsageError(f"{pool!r} is no pool; choose one of {', '.join(POOLS)}")
    if move.amount_pico == 0 or (move.amount_pico < 0 and move.kind != "correction"):
        raise UsageError("the amount must not be zero or negative")
    if paired and (move.user, move.pool) == (move.to_user, move.to_pool):
        raise UsageError("a transfer needs another user or another pool to go to")
    if paired and move.received_pico <= 0:
        raise UsageError("at this rate nothing would arrive")


def allowed(move: Move, ways: tuple[Allocation, ...], moved_today_pico: int) -> Move:
    """A user's own allocation within the operator's rules, at their rate. Raises UsageError."""
    way = next((way for way in ways if (way.from_pool, way.to_pool) == (move.pool, move.to_pool)), None)
    if way is None or move.user != move.to_user:
        raise UsageError(f"moving credit from {move.pool} to {move.to_pool} is not offered here")
    if not way.min_pico <= move.amount_pico <= way.max_pico:
        least, most = usd_from_pico(way.min_pico), usd_from_pico(way.max_pico)
        raise UsageError(f"between {least} and {most} USD can be moved at a time")
    if moved_today_pico + move.amount_pico > way.max_per_day_pico:
        left = usd_from_pico(max(0, way.max_per_day_pico - moved_today_pico))
        raise UsageError(f"{left} USD can still be moved this way within 24 hours")
    return replace(move, kind="allocation", rate=way.rate)


async def allocate(
    store: Store, move: Move, ways: tuple[Allocation, ...], now_ms: int, *, dry_run: bool = False
) -> Outcome:
    """A user's own move between his pools, within the operator's rules. Raises UsageError.

    What he moved within a day is counted at a revision of his allowance that the move itself raises, so that
    of two at once one is counted again.
    """
    for _ in range(limits.stale_retries_max):
        known = await store.record("transfer", move.key)
        if known is not None:
            return _repeated(known, replace(move, kind="allocation"), same_rate=False)
        allowance = await store.record("allowance", move.user)
        moved_pico = await _moved_since(store, move, now_ms - _DAY_MS)
        counted = (
            RecordChange.update(allowance)
            if allowance is not None
            else RecordChange.insert(Record("allowance", move.user, 1, {}, user=move.user, created_ms=now_ms))
        )
        within = allowed(move, ways, moved_pico)
        outcome = await perform(store, within, now_ms, dry_run=dry_run, beside=(counted,))
        if outcome.result is not EventResult.STALE:
            return outcome
    raise StoreConflictError("moves of this user's credit cross each other; try again")


async def perform(
    store: Store,
    move: Move,
    now_ms: int,
    *,
    dry_run: bool = False,
    wait_s: float = limits.lease_wait_s,
    beside: tuple[RecordChange, ...] = (),
) -> Outcome:
    """Make a move, waiting for leased money for at most `wait_s`. Raises UsageError.

    `beside`: changes of other records in its transaction; STALE where one of them has changed since.
    """
    check(move)
    known = await store.record("transfer", move.key)
    if known is not None:
        return _repeated(known, move)
    outcome = Outcome(EventResult.SHORT, (), None)

    async def attempt() -> EventResult:
        nonlocal outcome
        outcome = await _try(store, move, now_ms, dry_run, beside)
        return outcome.result

    if dry_run or not move.is_debit:
        await attempt()
    else:
        claim = Claim(move.key, move.pool, None, abs(move.amount_pico))
        await debit(store, move.user, claim, attempt, wait_s)
    if outcome.result in {EventResult.DUPLICATE, EventResult.STALE}:
        made = await store.record("transfer", move.key)
        if made is not None:
            return _repeated(made, move)
    return outcome


async def _try(
    store: Store, move: Move, now_ms: int, dry_run: bool, beside: tuple[RecordChange, ...]
) -> Outcome:
    account = await store.account(move.user)
    if account is None or (move.to_user and await store.account(move.to_user) is None):
        missing = move.user if account is None else move.to_user
        raise UsageError(unknown_user(missing))
    event = move_event(account, move, now_ms)
    if event is None:
        return Outcome(EventResult.SHORT, (), None)
    record = event.records[0].record
    if dry_run:
        return Outcome(EventResult.DONE, event.rows, record)
    try:
        result = await store.apply_event(replace(event, records=(*event.records, *beside)), now_ms)
    except InvariantBrokenError as error:
        if await store.record("transfer", move.key) is None:
            raise UsageError(f"not booked: {error}; use another key for another move") from None
        result = EventResult.DUPLICATE  # somebody made this move meanwhile, out of other lots
    return Outcome(result, event.rows, record)


def move_event(account: Account, move: Move, now_ms: int) -> Event | None:
    """Rows, record and life of a move; None where the giver has too little unleased money."""
    made = move_rows(account, move, now_ms)
    if made is None:
        return None
    rows, ends_ms = made
    record = Record(
        kind="transfer",
        id=move.key,
        revision=1,
        document={
            **_content(move),
            "rate": str(move.rate),
            "reason": move.reason,
            "actor": move.actor,
            "rows": [_row_document(row) for row in rows],
        },
        user=move.user,
        status="done",
        created_ms=now_ms,
    )
    change = RecordChange.insert(record)
    return Event(rows, expires_at_ms=ends_ms, source=move.kind, actor=move.actor, records=(change,))


async def undo(
    store: Store, key: str, reason: str, actor: str, now_ms: int, *, dry_run: bool = False
) -> Outcome:
    """Take a move back by counter-transactions. Raises UsageError where its money is gone, or never came."""
    made = await store.record("transfer", key)
    if made is None or made.document["kind"] == "undo":
        raise UsageError(f"there is no move {key!r} that can be undone")
    if not reason.strip() or len(reason) > limits.reason_chars_max:
        raise UsageError(f"say why, in at most {limits.reason_chars_max} characters")
    undone = await store.record("transfer", f"{key}.undo")
    if undone is not None:
        return Outcome(EventResult.DUPLICATE, (), undone)
    original = [_row_of(row) for row in _list(made.document["rows"])]
    accounts = {name: await store.account(name) for name in {row.user for row in original}}
    rows = counter_rows(original, {n: a for n, a in accounts.items() if a}, f"{key}.undo", reason, now_ms)
    if rows is None:
        raise UsageError(f"{key}: what was moved is spent, expired or in use; correct what is left")
    record = Record(
        kind="transfer",
        id=f"{key}.undo",
        revision=1,
        document={
            "kind": "undo",
            "undoes": key,
            "reason": reason,
            "actor": actor,
            "rows": [_row_document(row) for row in rows],
        },
        user=made.user,
        status="done",
        reference=key,
        created_ms=now_ms,
    )
    changes = (RecordChange.insert(record), RecordChange.update(replace(made, status="undone")))
    if dry_run:
        return Outcome(EventResult.DONE, rows, record)
    event = Event(rows, source="undo", actor=actor, records=changes)
    return Outcome(await store.apply_event(event, now_ms), rows, record)


async def _moved_since(store: Store, move: Move, since_ms: int) -> int:
    """What the user has allocated on this way since then, undone moves left out."""
    total_pico = 0
    before = None
    while page := await store.records(
        "transfer", user=move.user, status="done", before=before, limit=limits.records_page_max
    ):
        for record in page:
            if record.created_ms < since_ms:
                return total_pico
            document = record.document
            if (document["kind"], document.get("pool"), document.get("to_pool")) == (
                "allocation",
                move.pool,
                move.to_pool,
            ):
                total_pico += int(str(document["amount_pico"]))
        before = page[-1].created_ms, page[-1].id
    return total_pico


def _repeated(known: Record, move: Move, *, same_rate: bool = True) -> Outcome:
    """A key that was used: for the same move it is done already."""
    same = all(known.document.get(name) == value for name, value in _content(move).items())
    if not same or (same_rate and known.document.get("rate") != str(move.rate)):
        amount = usd_from_pico(int(str(known.document.get("amount_pico", 0))))
        raise UsageError(f"the reference {move.key!r} was used for {amount} USD before; choose another")
    rows = tuple(_row_of(row) for row in _list(known.document["rows"]))
    return Outcome(EventResult.DUPLICATE, rows, known)


def _content(move: Move) -> dict[str, object]:
    """What makes two moves the same one."""
    return {
        "kind": move.kind,
        "user": move.user,
        "pool": move.pool,
        "to_user": move.to_user,
        "to_pool": move.to_pool,
        "amount_pico": move.amount_pico,
    }


def _row_document(row: Transaction) -> dict[str, object]:
    return {
        "user": row.user,
        "type": row.type,
        "reference": row.reference,
        "pool": row.pool,
        "amount_pico": row.amount_pico,
        "lots": [[part.lot, part.amount_pico] for part in row.lots],
        "cause": row.cause,
        "created_ms": row.created_ms,
    }


def _row_of(document: Mapping[str, Any]) -> Transaction:
    lots = tuple(LotAmount(lot, document["pool"], amount) for lot, amount in document["lots"])
    return Transaction(**{**document, "lots": lots})


def _list(value: object) -> list[Mapping[str, Any]]:
    return value if isinstance(value, list) else []
