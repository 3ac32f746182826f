"""Money events in MongoDB: top-ups, transfers, adjustments, refunds, expiry, adoption (MONEY section 5).

Promises: all rows of an event, all its effects and its records are one transaction; a redelivery changes
nothing; the same ids with other content are an alarm, never taken for success (hole 9); expired money is
taken out first, so that nothing revives it (hole 17).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from farebox.base.errors import InvariantBrokenError, StoreUnknownError
from farebox.base.records import Account, Transaction
from farebox.ledger.claims import ASKED, claim_of, collected, first_part_row
from farebox.ledger.lots import lots_to_renew
from farebox.ledger.settlement import plan_event
from farebox.store import event_rules
from farebox.store.base import Event, EventResult, RecordChange
from farebox.store.event_rules import ShortError, StoredRow, adopted_rows
from farebox.store.mongo import accounts, claims, faults, feed, moves, records, rows
from farebox.store.mongo.connection import Connection, Place
from farebox.store.mongo.document import UNREADABLE_PICO, UserDocument
from farebox.store.mongo.openings import open_balances
from farebox.store.mongo.schema import ROWS
from farebox.store.record_rules import audit_entry, event_name, with_balances


async def apply_event(connection: Connection, event: Event, now_ms: int) -> EventResult:
    """Apply one event as a whole, or not at all; see `Store.apply_event`.

    After an unknown outcome it is asked once more: an event that is there then is this one, done.
    """
    event_rules.check_shape(event)
    try:
        return await connection.transact(lambda place: apply_in(place, event, now_ms))
    except StoreUnknownError:
        again = await connection.transact(lambda place: apply_in(place, event, now_ms))
        return EventResult.DONE if again is EventResult.DUPLICATE else again


async def apply_in(place: Place, event: Event, now_ms: int) -> EventResult:
    """Apply an event within a transaction that may do more."""
    if event.rows and event_rules.is_booked(event.rows, await _stored(place, event.rows)):
        return EventResult.DUPLICATE
    state = await records.obstacle(place, event.records)
    if state is not None:
        return EventResult.STALE if event.rows else state
    names = list(dict.fromkeys(row.user for row in event.rows))
    users = await accounts.find_many(place, names)
    if len(users) != len(names):
        return EventResult.UNKNOWN_USER
    opened, blocked = await _look_at(place, list(users.values()), now_ms)
    if blocked:
        return EventResult.PARKED
    try:
        applied = [_apply_to(users[name], event, now_ms) for name in names]
        booked = [row for rows_, _ in applied for row in rows_]
        documents = [rows.encode(row) for row in (*opened, *booked)]
        writes = records.writes(_record_changes(users, event))
        for user in users.values():
            user.update()
    except ShortError:
        return EventResult.SHORT
    except faults.ROW_ERRORS as error:
        raise InvariantBrokenError(f"event {event_name(event)}: cannot be stored: {error}") from error
    await rows.insert(place, documents)
    await accounts.save_many(place, list(users.values()))
    await records.write(place, writes)
    await feed.append(place, *(change for _, changes in applied for change in changes))
    if event.actor:
        await feed.audit(place, event.actor, *audit_entry(event), now_ms)
    return EventResult.DONE


async def adopt_balances(place: Place, user_name: str, actor: str, now_ms: int) -> EventResult:
    """Book what someone outside wrote to a user's balances as adjustments; see `Store.adopt_balances`."""
    user = await accounts.find(place, user_name)
    if user is None:
        return EventResult.UNKNOWN_USER
    if user.parked is None and not user.is_damaged():
        return EventResult.DUPLICATE
    if user.damage is not None or UNREADABLE_PICO in user.balances.values():
        return EventResult.PARKED
    event = Event(adopted_rows(user.account(), now_ms), source="adopted")
    for pool in user.opened():
        user.restore_shadow(pool)
    user.park(None)
    booked = open_balances(user, now_ms)
    if user.parked is not None:
        return EventResult.PARKED
    try:
        applied, changes = _apply_to(user, event, now_ms)
    except ShortError:
        return EventResult.SHORT
    await rows.insert(place, [rows.encode(row) for row in (*booked, *applied)])
    await accounts.save(place, user)
    await feed.append(place, *changes)
    details = {"rows": [row.id for row in event.rows]}
    await feed.audit(place, actor, "wallet.adopt", user_name, details, now_ms)
    return EventResult.DONE


def _record_changes(users: Mapping[str, UserDocument], event: Event) -> tuple[RecordChange, ...]:
    """The event's record changes, with the balances it says to keep."""
    if not event.balance_of:
        return event.records
    return with_balances(event, users[event.rows[0].user].balances.get(event.balance_of, 0))


async def open_account(place: Place, user_name: str, now_ms: int) -> Account | None:
    """A user whose balances of the replaced system are opened now, where they were not (MONEY section 5)."""
    user = await accounts.find(place, user_name)
    if user is None:
        return None
    await _look_at(place, [user], now_ms, write_openings=True)
    user = await accounts.find(place, user_name)
    return None if user is None else user.account()


async def _look_at(
    place: Place, users: Sequence[UserDocument], now_ms: int, *, write_openings: bool = False
) -> tuple[list[Transaction], bool]:
    """Open what the replaced system left and park whom someone outside wrote to; (rows to insert, is one
    parked). Who is parked is written at once, because the event then does nothing else.
    """
    opened: list[Transaction] = []
    for user in users:
        if user.parked is None and user.is_damaged():
            user.park(user.why_damaged())
        elif user.parked is None and user.unopened():
            opened += open_balances(user, now_ms)
    parked = [user for user in users if user.parked is not None]
    if parked or write_openings:
        written = [user for user in (users if write_openings else parked) if user.is_changed]
        await rows.insert(place, [rows.encode(row) for row in opened if write_openings])
        await accounts.save_many(place, written)
        await feed.append(place, *(feed.change("user", user.name) for user in written))
    return opened, bool(parked)


async def _stored(place: Place, wanted: Sequence[Transaction]) -> dict[str, StoredRow]:
    cursor = place[ROWS].find({"_id": {"$in": [row.id for row in wanted]}}, session=place.session)
    found = [rows.decode(document) async for document in cursor]
    return {row.id: StoredRow(row.amount_pico, row.lots, _asked_pico(row)) for row in found}


def _asked_pico(row: Transaction) -> int | None:
    """What a debit that claims asked for, which its row says."""
    asked = row.charge.get(ASKED)
    return int(asked) if isinstance(asked, int) else None


def _apply_to(
    user: UserDocument, event: Event, now_ms: int
) -> tuple[list[Transaction], list[dict[str, object]]]:
    """Expire what is due for one user, then apply his rows in order: rows to store, changes to tell."""
    booked = moves.expire_due(user, now_ms)
    changes: list[dict[str, object]] = []
    done = {row.id for row in booked}
    for row in event.rows:
        if row.user != user.name or row.id in done:
            continue
        if event.claims and row.amount_pico < 0:
            booked.append(_take_or_claim(user, row, now_ms, changes))
        else:
            booked.append(_apply_row(user, row, event, now_ms, changes))
    credited = {row.pool for row in event.rows if row.user == user.name and row.amount_pico > 0}
    for pool in credited.intersection(event.renews):
        expires_ms = event.expiry_ms(pool)
        for lot in lots_to_renew(user.account(), pool, expires_ms, now_ms):
            user.renew(lot, expires_ms)
    return booked, [*changes, feed.change("user", user.name)]


def _apply_row(
    user: UserDocument, row: Transaction, event: Event, now_ms: int, changes: list[dict[str, object]]
) -> Transaction:
    parts = plan_event(user.account(), row, now_ms)
    if parts is None:
        raise ShortError
    booked = moves.apply_row(user, row, parts, event.expiry_ms(row.pool), event.source)
    if row.amount_pico < 0 and user.drop_claim(row.reference):
        changes.append(feed.change("user", user.name))
    return booked


def _take_or_claim(
    user: UserDocument, row: Transaction, now_ms: int, changes: list[dict[str, object]]
) -> Transaction:
    """Book what a debit can take now; the rest becomes its claim."""
    claim = claim_of(row, now_ms)
    taken = collected(user.account(), claim, now_ms)
    booked = first_part_row(row, taken)
    if taken.asked_pico:
        claims.keep(user, replace(claim, amount_pico=taken.asked_pico))
        changes.append(claims.recall(user.name))
    return moves.apply_row(user, booked, booked.lots)
