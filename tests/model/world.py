"""Random histories of the money protocol: workers, journals, a writer, a store, and everything that goes
wrong.

Time is a counter, messages may be lost, doubled or late, processes are killed, machines lose power. The
worker's memory is the real `UserLease`, the store's decisions are the real functions of the ledger. `check`
holds M1 and M2 after every step, `finish` lets everything come to rest and holds M3 to M6. A broken promise
raises `Broken`.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from farebox.base.records import LotAmount, Settlement, Transaction
from farebox.ledger.lots import available_pico
from farebox.ledger.user_lease import UserLease
from model.checks import Checks
from model.debits import Debits
from model.model_store import ModelStore
from model.parts import (
    WALLET,
    BrokenError,
    Exchange,
    Journal,
    UnknownError,
    Worker,
    row_of,
    settlement_of,
    uncovered_pico,
)


class World(Checks, Debits):
    def __init__(self, seed: int, holes: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.holes = holes
        self.now = 1
        self.count = 0
        self.store = ModelStore(["ann", "bob", "cid"][: self.rng.choice([2, 2, 3])], holes)
        self.workers: list[Worker] = []
        self.exchanges: dict[str, Exchange] = {}
        self.delayed: list[Callable[[], object]] = []
        self.events: dict[str, tuple[str, tuple[Transaction, ...], int | None]] = {}
        self.acked: set[str] = set()
        self.expiries: dict[str, int | None] = {}
        self.excused: set[tuple[str, str]] = set()
        self.charges_above_hold = self.rng.random() < 0.4
        self.trouble = self.rng.choice(["", "power", "directory", "messages"])
        self.scarce = self.rng.choice([1, 1, 0.1])
        self.claiming = self.rng.random() < 0.4
        self.calm = False
        self.lost: set[str] = set()
        self.stale_read: tuple[str, str, Counter[str]] | None = None
        self.done: set[str] = set()
        for host in (0, 0, 1):
            self.start(Journal(self.new_id("j"), host))
        for name in self.store.users:
            self.top_up(name)

    def new_id(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # -- messages --------------------------------------------------------------------------------------------
    def call(self, operation: Callable[[], Any], fate: str = "") -> Any:
        """A message to the store: as a rule answered; else lost, answered in vain, late, or doubled."""
        late = 8 if self.trouble == "messages" else 2
        fates = ["ok", "lost", "unheard", "late", "twice"]
        fate = "ok" if self.calm else fate or self.rng.choices(fates, [12, 1, 1, late, 1])[0]
        if fate in {"ok", "twice"}:
            if fate == "twice":
                self.delayed.append(operation)
            return operation()
        if fate == "late":
            self.delayed.append(operation)
        if fate == "unheard":
            operation()
        raise UnknownError

    def deliver(self) -> None:
        if self.delayed:
            self.delayed.pop(self.rng.randrange(len(self.delayed)))()

    # -- a worker's life -------------------------------------------------------------------------------------
    def start(self, journal: Journal) -> None:
        """Take a journal: claim the next epoch, end what a crash cut off, fence, serve (MONEY section 8)."""
        journal.epoch += 1
        journal.number = 0
        self.store.claim_epoch(journal.id, journal.epoch)
        worker = Worker(journal, journal.epoch)
        opens: dict[str, bool] = {}
        for record in journal.records:
            if record.kind == "open":
                opens[record.exchange] = False
            elif record.kind == "sent" and record.exchange in opens:
                opens[record.exchange] = True
            elif record.kind in {"settle", "void"}:
                opens.pop(record.exchange, None)
        for exchange, sent in opens.items():
            if sent:
                estimate = self.rng.randint(0, self.exchanges[exchange].hold_pico)
                self.record_settle(worker, exchange, estimate, (), "")
            else:
                journal.append("void", exchange)
        self.sync(journal)
        for record in journal.records:
            if record.settlement is not None:
                worker.unbooked.setdefault(record.settlement.user, []).append(record.settlement)
        for name, user in self.store.users.items():
            if journal.id in user.leases:
                worker.stale.add(name)
        self.workers.append(worker)

    def record_settle(
        self, worker: Worker, exchange: str, charge: int, takes: tuple[LotAmount, ...], quarantine: str
    ) -> Settlement:
        user = self.exchanges[exchange].user
        settlement = settlement_of(exchange, user, charge, takes, quarantine, self.now)
        worker.journal.append("settle", exchange, settlement)
        return settlement

    def sync(self, journal: Journal) -> None:
        journal.synced = len(journal.records)

    def serve(self, worker: Worker) -> None:
        """A request: hold, journal, send."""
        name = self.rng.choice(list(self.store.users))
        if worker.dead or name in worker.stale:
            return
        lease = worker.leases.setdefault(name, UserLease())
        amount = self.rng.randint(1, 8)
        hold = lease.hold(WALLET, amount, 0 if 18 in self.holes else self.now)
        if hold is None:
            self.grow(worker, name, amount)
            hold = lease.hold(WALLET, amount, self.now) if name not in worker.stale else None
        if hold is None:
            return
        exchange = Exchange(self.new_id("e"), name, amount, worker.journal.id, hold, self.now)
        self.exchanges[exchange.id] = worker.open[exchange.id] = exchange
        if 20 in self.holes:
            exchange.sent = True
            return
        worker.journal.append("open", exchange.id)
        if self.rng.random() < 0.7:
            self.send(worker)

    def grow(self, worker: Worker, name: str, amount: int) -> None:
        lease = worker.leases[name]
        need = amount - lease.free_pico(WALLET, self.now)
        op = lease.op
        try:
            reason, op, added = self.call(
                lambda: self.store.grant(name, WALLET, worker.journal.id, worker.epoch, op, need, self.now)
            )
        except UnknownError:
            worker.stale.add(name)
            return
        if reason == "stale":
            worker.stale.add(name)
        elif reason == "":
            lease.op = op
            lease.add(added)

    def send(self, worker: Worker) -> None:
        waiting = [one for one in worker.open.values() if not self.in_journal(worker, one, "sent")]
        if waiting:
            exchange = self.rng.choice(waiting)
            if 20 in self.holes and not self.in_journal(worker, exchange, "open"):
                worker.journal.append("open", exchange.id)
            worker.journal.append("sent", exchange.id)
            exchange.sent = True

    def in_journal(self, worker: Worker, exchange: Exchange, kind: str) -> bool:
        return any(one.kind == kind and one.exchange == exchange.id for one in worker.journal.records)

    def end(self, worker: Worker, chosen: str = "") -> None:
        """An answer is complete: settle, then the client sees the end. Or nothing was sent: void."""
        if not worker.open:
            return
        sent = [one.id for one in worker.open.values() if one.sent]
        exchange = worker.open.pop(chosen or self.rng.choice(sent or list(worker.open)))
        lease = worker.leases[exchange.user]
        assert exchange.hold is not None
        if not self.in_journal(worker, exchange, "sent"):
            lease.void(exchange.hold)
            if self.in_journal(worker, exchange, "open"):
                worker.journal.append("void", exchange.id)
            exchange.excused = exchange.excused or 20 not in self.holes
            return
        if self.rng.random() < 0.1:
            takes, _ = lease.reserve(exchange.hold, self.now)
            settlement = self.record_settle(worker, exchange.id, 0, takes, "unpriced")
        else:
            most = exchange.hold_pico * 2 if self.charges_above_hold else exchange.hold_pico
            charge = self.rng.randint(0, most)
            takes, uncovered = lease.settle(exchange.hold, charge, self.now)
            if uncovered:
                self.excused.add((worker.journal.id, exchange.user))
            settlement = self.record_settle(worker, exchange.id, charge, takes, "")
            exchange.told_pico = charge
        for take in takes:
            expiry = self.expiries[take.lot]
            if expiry is not None and exchange.started >= expiry:
                raise BrokenError(f"{exchange.id} spends {take.lot} past its expiry")
        worker.unbooked.setdefault(exchange.user, []).append(settlement)
        worker.freed[exchange.user] = len(worker.journal.records)

    def give_back(self, worker: Worker, chosen: str = "", fate: str = "") -> None:
        """Return free money that is certain; subtracted before the call leaves."""
        name = chosen or self.rng.choice(list(self.store.users))
        lease = worker.leases.get(name)
        if lease is None or name in worker.stale or worker.returning is not None:
            return
        if 24 not in self.holes and worker.freed.get(name, 0) > worker.journal.synced:
            return
        parts = lease.returnable({}, self.now)
        if not parts:
            return
        if 11 in self.holes:
            worker.returning = (name, parts)
            self.store.give_back(name, worker.journal.id, worker.epoch, lease.op, parts)
            lease.op += 1
            return
        lease.subtract(parts)
        op = lease.op
        try:
            answer = self.call(
                lambda: self.store.give_back(name, worker.journal.id, worker.epoch, op, parts), fate
            )
        except UnknownError:
            answer = None
        if answer is None:
            worker.stale.add(name)
        else:
            lease.op = answer

    def return_meets_late_path(self, worker: Worker) -> None:
        """Hole 48: a worker has leased all that a user has and gives it back; before the return arrives, an
        exchange above its hold is booked, for which nothing is left but this lease.
        """
        self.serve(worker)
        self.send(worker)
        sent = [one for one in worker.open.values() if one.sent and one.user not in worker.stale]
        if not sent:
            return
        exchange = self.rng.choice(sent)
        name, lease = exchange.user, worker.leases[exchange.user]
        available = available_pico(self.store.account(name), WALLET, self.now)
        if available > 0:
            self.grow(worker, name, lease.free_pico(WALLET, self.now) + available)
        before = len(self.delayed)
        self.give_back(worker, name, "late")
        self.end(worker, exchange.id)
        self.write(worker.journal)
        if len(self.delayed) > before:
            self.delayed.pop(before)()

    def give_back_answer(self, worker: Worker) -> None:
        if worker.returning is not None:
            name, parts = worker.returning
            worker.leases[name].subtract(parts)
            worker.returning = None

    def fence(self, worker: Worker) -> None:
        if not worker.stale:
            return
        name = self.rng.choice(sorted(worker.stale))
        unbooked = worker.unbooked.get(name, [])
        asked = [settlement.exchange for settlement in unbooked]
        if 13 in self.holes and not self.calm and worker.half_fence is None:
            worker.half_fence = (name, self.store.fence(name, worker.journal.id, worker.epoch, asked))
            return
        try:
            fenced = self.call(lambda: self.store.fence(name, worker.journal.id, worker.epoch, asked))
        except UnknownError:
            return
        booked = fenced.booked if fenced is not None else frozenset()
        if worker.half_fence is not None:
            name, older = worker.half_fence
            worker.half_fence = None
            unbooked = worker.unbooked.get(name, [])
            booked = self.store.booked(name, [settlement.exchange for settlement in unbooked])
            fenced = replace(older, op=self.store.users[name].leases[worker.journal.id].op)
        if fenced is None:
            return
        if fenced.dead:
            worker.dead = True
            return
        worker.unbooked[name] = [one for one in unbooked if one.exchange not in booked]
        lease = worker.leases.setdefault(name, UserLease())
        lease.replace(
            fenced.lots,
            fenced.op,
            [(WALLET, one.takes, uncovered_pico(one)) for one in worker.unbooked[name]],
        )
        worker.stale.discard(name)
        self.store.late.discard((worker.journal.id, name))
        key = (worker.journal.id, name)
        if key not in self.excused and lease.free_pico(WALLET, 0) < 0:
            raise BrokenError(f"M2 {key}: the lease does not cover what was held and recorded")

    # -- the writer ------------------------------------------------------------------------------------------
    def write(self, journal: Journal) -> None:
        """Book finished records after `applied`; conflicts skip a user for now, unknown outcomes are tried
        again.
        """
        if 4 not in self.holes:
            self.sync(journal)
        applied = self.store.applied.get(journal.id, 0)
        finished = [one for one in journal.records if one.pos > applied and one.kind in {"settle", "void"}]
        skipped = {name for name in self.store.users if not self.calm and self.rng.random() < 0.2}
        low_water = None
        for record in finished[: 99 if self.calm else self.rng.randint(1, 4)]:
            settlement = record.settlement
            if settlement is not None and settlement.user in skipped:
                low_water = record.pos - 1 if low_water is None else low_water
                continue
            if settlement is not None:
                self.store.book(journal.id, settlement, self.now)
                if not self.calm and self.rng.random() < 0.1:
                    low_water = record.pos - 1 if low_water is None else low_water
                    continue
            last = record.pos
            self.store.applied[journal.id] = max(
                applied, last if low_water is None or 3 in self.holes else low_water
            )

    def hear_of_late_bookings(self, worker: Worker) -> None:
        worker.stale |= {name for journal, name in self.store.late if journal == worker.journal.id}

    def resolve(self) -> None:
        """An operator settles a quarantined exchange at no more than its hold."""
        if self.store.quarantine:
            exchange = self.rng.choice(sorted(self.store.quarantine))
            old = self.store.quarantine[exchange]
            reserved = sum(take.amount_pico for take in old.takes)
            self.store.resolve(
                exchange, replace(old, quarantine="", takes=(), amount_pico=reserved), self.now
            )

    # -- events ----------------------------------------------------------------------------------------------
    def top_up(self, name: str) -> None:
        """A purchase with a bonus into the same pool, delivered until somebody acknowledges."""
        reference = self.new_id("pay")
        expires = self.rng.choice([None, self.now + self.rng.randint(5, 60)])
        kinds = ("earned_purchase", "earned_purchase" if 7 in self.holes else "earned_bonus")
        rows = tuple(
            row_of(name, kind, reference, amount, LotAmount(f"{reference}{index}", pool, amount), self.now)
            for index, (kind, pool, amount) in enumerate(
                zip(
                    kinds,
                    ("credits", "credits"),
                    (self.rng.randint(5, 30), self.rng.randint(1, 9)),
                    strict=True,
                )
            )
        )
        for row in rows:
            self.expiries[row.lots[0].lot] = expires
        self.events[reference] = (name, rows, expires)
        self.deliver_event(reference)

    def deliver_event(self, reference: str) -> None:
        name, rows, expires = self.events[reference]
        user = self.store.users[name]
        if 49 in self.holes:
            rows = tuple(replace(row, reference=f"{reference}-{self.rng.randint(0, 1)}") for row in rows)
        if 5 in self.holes or 50 in self.holes:
            self.deliver_in_parts(reference, rows, expires)
            return
        try:
            answer = self.call(lambda: self.store.event(name, rows, expires, self.now))
        except UnknownError:
            return
        if answer in {"done", "duplicate"}:
            self.acked.add(reference)
        elif answer == "inactive" and self.calm:
            raise BrokenError(f"a disabled user {user.name} cannot be credited")

    def deliver_in_parts(self, reference: str, rows: tuple[Transaction, ...], expires: int | None) -> None:
        """Rows one by one (hole 50), or the row first and the money after (hole 5), with a crash between."""
        user = self.store.users[self.events[reference][0]]
        crash = not self.calm and self.rng.random() < 0.3
        for index, row in enumerate(rows):
            if row.id in user.rows:
                self.acked.add(reference)
                return
            if crash and index == 1:
                return
            if crash and 5 in self.holes:
                user.rows[row.id] = row
                return
            self.store.post(user, row, row.lots, expires)
        self.acked.add(reference)

    def debit(self) -> None:
        name = self.rng.choice(list(self.store.users))
        row = row_of(name, "refund", self.new_id("r"), -self.rng.randint(1, 20), None, self.now)
        self.store.event(name, (row,), None, self.now)

    # -- what goes wrong -------------------------------------------------------------------------------------
    def kill(self, worker: Worker) -> None:
        """Kill -9 and a new process on the same journal; with hole 12 the writer ends its exchanges, too."""
        self.workers.remove(worker)
        if 12 in self.holes:
            for exchange in [one for one in worker.open.values() if self.in_journal(worker, one, "sent")]:
                estimate = settlement_of(exchange.id, exchange.user, exchange.hold_pico, (), "", self.now)
                self.store.book(worker.journal.id, estimate, self.now)
        if 2 in self.holes and self.rng.random() < 0.5:
            twin = Journal(worker.journal.id, worker.journal.host, list(worker.journal.records))
            twin.epoch = worker.journal.epoch
            self.start(twin)
            worker.journal.epoch += 1
        self.start(worker.journal)

    def lose_power(self, host: int) -> None:
        """Unsynced records vanish; what was settled in them is excused, what was sent before is not."""
        for worker in [one for one in self.workers if one.journal.host == host]:
            journal = worker.journal
            keep = self.rng.randint(min(journal.synced, len(journal.records)), len(journal.records))
            for record in journal.records[keep:]:
                exchange = self.exchanges[record.exchange]
                exchange.told_pico = None
                exchange.excused = exchange.excused or record.kind in {"open", "sent"}
            del journal.records[keep:]
            self.workers.remove(worker)
            self.start(journal)

    def lose_directory(self, worker: Worker) -> None:
        """The journal is gone for good: its leases are abandoned, a new id begins."""
        self.workers.remove(worker)
        for exchange in self.exchanges.values():
            if exchange.journal == worker.journal.id:
                exchange.told_pico, exchange.excused = None, True
        same = 1 in self.holes
        self.lost.add(worker.journal.id)
        if not same:
            for name in self.store.users:
                self.store.abandon(name, worker.journal.id)
        else:
            self.excused |= {(worker.journal.id, name) for name in self.store.users}
        self.start(Journal(worker.journal.id if same else self.new_id("j"), worker.journal.host))

    def abandon(self, worker: Worker) -> None:
        """The lease of a worker that shows no life is taken away; the worker may come back."""
        name = self.rng.choice(list(self.store.users))
        entry = self.store.users[name].leases.get(worker.journal.id)
        if 56 in self.holes and self.stale_read is None and entry is not None:
            self.stale_read = (name, worker.journal.id, Counter(entry.lots))
            return
        self.excused |= {(worker.journal.id, name)}
        if self.stale_read is not None:
            self.store.abandon(*self.stale_read)
            self.stale_read = None
        else:
            self.store.abandon(name, worker.journal.id)
        worker.dead = True

    # -- running ---------------------------------------------------------------------------------------------
    def step(self) -> None:
        self.now += 1
        worker = self.rng.choice(self.workers)
        action = self.rng.choices(
            [
                lambda: self.serve(worker),
                lambda: self.send(worker),
                lambda: self.end(worker),
                lambda: self.give_back(worker),
                lambda: self.give_back_answer(worker),
                lambda: self.fence(worker),
                lambda: self.hear_of_late_bookings(worker),
                lambda: self.write(worker.journal),
                lambda: self.sync(worker.journal),
                self.deliver,
                lambda: self.top_up(self.rng.choice(list(self.store.users))),
                lambda: self.deliver_event(self.rng.choice(list(self.events))),
                self.debit,
                lambda: self.store.sweep(self.rng.choice(list(self.store.users)), self.now),
                self.resolve,
                lambda: self.kill(worker),
                lambda: self.lose_power(worker.journal.host),
                lambda: self.lose_directory(worker),
                lambda: self.abandon(worker),
                self.toggle,
                self.refund,
                self.deliver_any_refund,
                self.collect,
                self.transfer,
                self.try_any_transfer,
                lambda: self.return_meets_late_path(worker),
            ],
            self.weights(),
        )[0]
        action()

    def weights(self) -> list[float]:
        """How often each action of `step` happens; histories differ in what goes wrong, and in money."""
        power = 8 if self.trouble == "power" else 1
        directory = 5 if self.trouble == "directory" else 0.3
        messages = 4 if self.trouble == "messages" else 1
        claiming = 1 if self.claiming else 0
        synced = 0.3 if self.trouble == "power" else 1
        return [
            *(
                30,
                20,
                20,
                10 * messages * (3 if power > 1 else 1),
                10,
                15,
                5,
                15 * synced * messages,
                6 * synced,
                6 * messages,
            ),
            *(2 * self.scarce, 3, 2, 2, 1, 2, power, directory, 0.5, 0.5),
            *(claiming, claiming, 3 * claiming, claiming, 3 * claiming),
            8 if self.trouble == "messages" and self.charges_above_hold else 0,
        ]

    def toggle(self) -> None:
        user = self.rng.choice(list(self.store.users.values()))
        user.active = not user.active

    # -- coming to rest --------------------------------------------------------------------------------------
    def finish(self) -> None:
        """Everything ends, is delivered and booked; then every promise about the whole history must hold."""
        self.calm = True
        while self.delayed:
            self.deliver()
            self.check()
        for journal in self.lost:
            for name in self.store.users:
                self.store.abandon(name, journal)
        for worker in list(self.workers):
            self.kill(worker)
        for reference in self.events:
            for _ in range(2):
                self.deliver_event(reference)
        for worker in self.workers:
            self.write(worker.journal)
            self.write(worker.journal)
        while self.store.quarantine:
            self.resolve()
        for worker in self.workers:
            self.return_all(worker)
        self.settle_debits()
        self.check()
        self.check_history()
        self.check_debits()

    def return_all(self, worker: Worker) -> None:
        """An idle worker gives back everything."""
        worker.stale |= set(self.store.users)
        for _ in self.store.users:
            self.fence(worker)
        for name in self.store.users:
            lease = worker.leases.get(name)
            if lease is not None:
                parts = lease.returnable({}, self.now)
                lease.subtract(parts)
                self.store.give_back(name, worker.journal.id, worker.epoch, lease.op, parts)


def run(seed: int, steps: int, holes: frozenset[int] = frozenset()) -> None:
    """One history. Raises BrokenError when a promise does not hold."""
    world = World(seed, holes)
    for _ in range(steps):
        world.step()
        world.check()
    world.finish()
