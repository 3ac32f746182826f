"""The promises of docs/MONEY.md, held against a world of the model: after each step and over its history."""

from collections import Counter

from farebox.base.records import Transaction
from farebox.ledger.conservation import differences
from model.model_store import ModelStore
from model.parts import BrokenError, Exchange, Record, Worker


class Checks:
    """What a world must offer to be checked, and the checks."""

    store: ModelStore
    workers: list[Worker]
    exchanges: dict[str, Exchange]
    events: dict[str, tuple[str, tuple[Transaction, ...], int | None]]
    acked: set[str]
    expiries: dict[str, int | None]
    excused: set[tuple[str, str]]

    def check(self) -> None:
        for name, user in self.store.users.items():
            found = differences(self.store.account(name), user.rows.values())
            for lot, box in user.boxes.items():
                if box.expires != self.expiries[lot]:
                    found.append(f"M1 lot {lot}: its expiry has changed")
            if found:
                raise BrokenError("; ".join(found))
        if self.store.ill_granted:
            raise BrokenError(f"M2 {self.store.ill_granted}: granted against claims")
        if self.store.conflicting:
            raise BrokenError(f"M4 {self.store.conflicting}: booked with another content")
        for worker in self.workers:
            self.check_memory(worker)

    def check_memory(self, worker: Worker) -> None:
        """M2: what a worker believes to hold, with its unbooked debits, is in its lease."""
        for name, lease in worker.leases.items():
            entry = self.store.users[name].leases.get(worker.journal.id)
            late = (worker.journal.id, name) in self.store.late
            if worker.dead or name in worker.stale or late or worker.returning or entry is None or entry.dead:
                continue
            believed: Counter[str] = Counter()
            for purse in lease._purses.values():
                for lot in (*purse.lots, *purse.expired):
                    believed[lot.lot] += lot.left_pico
            open_debits = worker.unbooked.get(name, [])
            booked = self.store.booked(name, [one.exchange for one in open_debits])
            for settlement in open_debits:
                if settlement.exchange not in booked and (worker.journal.id, name) not in self.excused:
                    for take in settlement.takes:
                        believed[take.lot] += take.amount_pico
            for lot_id, amount in believed.items():
                if amount > entry.lots[lot_id]:
                    raise BrokenError(f"M2 {worker.journal.id} believes in {amount} of {lot_id} of {name}")

    def check_history(self) -> None:
        for name, user in self.store.users.items():
            rest = {j: +entry.lots for j, entry in user.leases.items() if +entry.lots}
            if rest:
                raise BrokenError(f"{name}: leases left behind: {rest}")
        for reference, (name, rows, _) in self.events.items():
            found = [
                row
                for row in self.store.users[name].rows.values()
                if row.reference.split("-")[0] == reference
            ]
            if reference not in self.acked or len(found) != len(rows):
                raise BrokenError(f"M4 payment {reference}: {len(found)} rows of {len(rows)}")
        for exchange in self.exchanges.values():
            self.check_exchange(exchange)
        for worker in self.workers:
            for record in worker.journal.records:
                self.check_record(record)

    def check_record(self, record: Record) -> None:
        """What a journal says an exchange cost is what was booked."""
        settlement = record.settlement
        if settlement is not None and not settlement.quarantine:
            spent = self.spent_pico(self.exchanges[record.exchange])
            if spent != settlement.amount_pico:
                raise BrokenError(f"M6 {record.exchange}: recorded {settlement.amount_pico}, booked {spent}")

    def spent_pico(self, exchange: Exchange) -> int:
        rows = self.store.users[exchange.user].rows.values()
        return -sum(one.amount_pico for one in rows if one.reference == exchange.id and one.type == "spent")

    def check_exchange(self, exchange: Exchange) -> None:
        rows = [one for one in self.store.users[exchange.user].rows.values() if one.reference == exchange.id]
        spent = self.spent_pico(exchange)
        written_off = sum(one.amount_pico for one in rows if one.type == "written_off")
        if exchange.sent and not rows and not exchange.excused:
            raise BrokenError(f"M5 {exchange.id} reached the upstream and has no settlement")
        if exchange.told_pico is not None and spent != exchange.told_pico:
            raise BrokenError(f"M6 {exchange.id} was settled at {exchange.told_pico} and booked at {spent}")
        if spent > exchange.hold_pico and exchange.told_pico is None and not exchange.excused:
            raise BrokenError(f"M5 {exchange.id} was estimated above its hold")
        if written_off and (exchange.journal, exchange.user) not in self.excused:
            raise BrokenError(f"M2 {exchange.id}: {written_off} written off although its hold was covered")
