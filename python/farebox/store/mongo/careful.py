"""Booking with a look first: what is there already, late, quarantined, poisoned, or of a parked account.

Everything is read once for the whole batch, decided record by record in memory, and written once. Promises: a
record always ends in a result; what cannot be booked is parked for an operator with the reason, in the same
transaction, and blocks nobody (MONEY section 4, step 3; fault rows S09, S10).
"""

from collections.abc import Mapping, Sequence

from bson.raw_bson import RawBSONDocument

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import LotAmount, Settlement
from farebox.ledger.settlement import late_split, rows_of
from farebox.store.base import Booked
from farebox.store.booking_rules import (
    ACCOUNT,
    CONFLICT,
    POISON,
    QUARANTINE,
    Counters,
    is_refusal,
    pays_as_recorded,
)
from farebox.store.mongo import accounts, faults, feed, parking, rows
from farebox.store.mongo.connection import Place
from farebox.store.mongo.document import UserDocument
from farebox.store.mongo.openings import open_balances
from farebox.store.mongo.values import key


async def book(
    place: Place, journal: str, epoch: int, records: Sequence[Settlement], now_ms: int
) -> list[Booked]:
    """Book records of one journal in order, inside one transaction."""
    mine = [record for record in records if not is_refusal(record)]
    batch = _Batch(
        journal,
        epoch,
        now_ms,
        await accounts.find_many(place, sorted({record.user for record in mine})),
        await rows.charges(place, mine),
        await parking.payloads(place, [record.exchange for record in mine]),
    )
    results = [Booked.BOOKED if is_refusal(record) else batch.book(record) for record in records]
    await batch.write(place)
    return results


class _Batch:
    """What one transaction reads, decides and writes."""

    def __init__(
        self,
        journal: str,
        epoch: int,
        now_ms: int,
        users: dict[str, UserDocument],
        charges: dict[str, Mapping[str, object]],
        payloads: dict[str, bytes],
    ) -> None:
        self._journal = journal
        self._epoch = epoch
        self._now_ms = now_ms
        self._users = users
        self._charges = charges
        self._payloads = payloads
        self._rows: list[RawBSONDocument] = []
        self._parked: list[dict[str, object]] = []
        self._changes: list[dict[str, object]] = []

    def book(self, record: Settlement) -> Booked:
        """Decide on one record."""
        try:
            result, kind, reason = self._book(record)
        except (InvariantBrokenError, *faults.ROW_ERRORS) as error:
            result, kind, reason = Booked.PARKED, POISON, f"cannot be stored: {error}"
        if result is Booked.PARKED:
            self._park(record, kind, reason)
        if result in {Booked.LATE, Booked.PARKED}:
            self._changes.append(feed.change("fence", record.user, self._journal))
        return result

    def _book(self, record: Settlement) -> tuple[Booked, str, str]:
        """(result, kind and reason of parking)."""
        same = self._is_same(record)
        if same is not None:
            if same:
                return Booked.DUPLICATE, "", ""
            return Booked.PARKED, CONFLICT, "this exchange is booked or parked already with other content"
        user = self._users.get(record.user)
        if user is None:
            return Booked.PARKED, ACCOUNT, "no such user"
        obstacle = self._obstacle(user)
        if obstacle is not None:
            return Booked.PARKED, ACCOUNT, obstacle
        if record.quarantine:
            self._reserve(user, record)
            return Booked.PARKED, QUARANTINE, record.quarantine
        return self._charge(user, record), "", ""

    def _is_same(self, record: Settlement) -> bool | None:
        payload = self._payloads.get(record.exchange)
        if payload is not None:
            return payload == record.encode()
        charge = self._charges.get(record.exchange)
        return None if charge is None else rows.is_same_charge(charge, record)

    def _obstacle(self, user: UserDocument) -> str | None:
        """Why nothing can be booked of the user: he is parked, or has to be now."""
        if user.parked is None:
            self._look_at(user)
        return user.parked

    def _look_at(self, user: UserDocument) -> None:
        """Open what the replaced system left, park whom someone outside wrote to."""
        if not user.is_changed and user.is_damaged():
            user.park(user.why_damaged())
            self._changes.append(feed.change("user", user.name))
        elif user.unopened():
            self._rows += [rows.encode(row) for row in open_balances(user, self._now_ms)]

    def _charge(self, user: UserDocument, record: Settlement) -> Booked:
        account = user.account()
        if pays_as_recorded(account, self._journal, record):
            self._pay(user, record, record.takes, record.takes, 0)
            return Booked.BOOKED
        late = late_split(account, self._journal, record, self._now_ms)
        self._pay(user, record, late.split, late.from_lease, late.written_off_pico)
        if self._journal in user.leases:
            user.lease(self._journal, 0).op += 1
        return Booked.LATE

    def _pay(
        self,
        user: UserDocument,
        record: Settlement,
        split: Sequence[LotAmount],
        from_lease: Sequence[LotAmount],
        written_off_pico: int,
    ) -> None:
        """Everything that can fail comes first, so that a record is booked as a whole or not at all."""
        made = rows_of(record, split, written_off_pico, self._now_ms)
        documents = [rows.encode(row) for row in made]
        counters = Counters()
        counters.take(split, written_off_pico)
        counters.count_tokens((record,))
        user.count(counters)
        for part in split:
            user.move(part._replace(amount_pico=-part.amount_pico))
        user.take_lease(self._journal, from_lease)
        for part in from_lease:
            user.add_leased(part.lot, -part.amount_pico)
        self._rows += documents
        self._charges[record.exchange] = rows.stored_charge(record)

    def _reserve(self, user: UserDocument, record: Settlement) -> None:
        """Set the hold aside: out of the lease, or of free money where the lease is short."""
        hold = late_split(user.account(), self._journal, record, self._now_ms)
        user.reserve(key(record.exchange), hold.split)
        user.take_lease(self._journal, hold.from_lease)
        for part in hold.from_available:
            user.add_leased(part.lot, part.amount_pico)

    def _park(self, record: Settlement, kind: str, reason: str) -> None:
        document = parking.parked(record, kind, reason, self._journal, self._epoch, self._now_ms)
        if kind != CONFLICT:
            self._payloads[record.exchange] = record.encode()
        self._parked.append(document)
        user = self._users.get(record.user)
        if kind == ACCOUNT and user is not None:
            user.set_unresolved(user.unresolved + 1)

    async def write(self, place: Place) -> None:
        """Write everything decided."""
        await rows.insert(place, self._rows)
        await accounts.save_many(place, [user for user in self._users.values() if user.is_changed])
        await parking.insert(place, self._parked)
        await feed.append(place, *self._changes)
