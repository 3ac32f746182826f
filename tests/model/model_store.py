"""The store of the model: user documents and rows that change in transactions only, as MONEY sections 2 to 6
say.

Every method is one transaction. `holes` are numbers of the catalogue of broken designs; each names the place
where the protocol's rule is left out, so that the checks can show that they notice.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from farebox.base.records import (
    WALLETS,
    Account,
    Claim,
    Fenced,
    LeaseEntry,
    Lot,
    LotAmount,
    Settlement,
    Transaction,
)
from farebox.ledger.claims import claim_of, collected, first_part_row, part_row
from farebox.ledger.lots import choose_slices
from farebox.ledger.settlement import expiry_rows, late_split, plan_event, rows_of


@dataclass
class Box:
    """A lot as it changes."""

    pool: str
    left: int
    leased: int
    expires: int | None


@dataclass
class Entry:
    owner: int
    op: int
    dead: bool = False
    lots: Counter[str] = field(default_factory=Counter)


@dataclass
class User:
    name: str
    active: bool = True
    rev: int = 0
    balances: Counter[str] = field(default_factory=Counter)
    boxes: dict[str, Box] = field(default_factory=dict)
    leases: dict[str, Entry] = field(default_factory=dict)
    reserved: dict[str, Counter[str]] = field(default_factory=dict)
    rows: dict[str, Transaction] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)


class ModelStore:
    def __init__(self, users: list[str], holes: frozenset[int]) -> None:
        self.users = {name: User(name) for name in users}
        self.holes = holes
        self.epochs: dict[str, int] = {}
        self.applied: dict[str, int] = {}
        self.quarantine: dict[str, Settlement] = {}
        self.late: set[tuple[str, str]] = set()
        self.conflicting: list[str] = []
        self.ill_granted: list[str] = []

    def account(self, name: str) -> Account:
        user = self.users[name]
        return Account(
            user=name,
            rev=user.rev,
            is_active=user.active,
            parked=None,
            balances=dict(user.balances),
            seen=dict(user.balances),
            lots=tuple(Lot(k, b.pool, b.left, b.leased, b.expires, "") for k, b in user.boxes.items()),
            leases={j: LeaseEntry(j, e.owner, e.op, e.dead, dict(e.lots)) for j, e in user.leases.items()},
            reserved={exchange: dict(lots) for exchange, lots in user.reserved.items()},
            claims=tuple(user.claims.values()),
            wants=frozenset(),
            written_off_pico=0,
        )

    # -- leases ----------------------------------------------------------------------------------------------
    def claim_epoch(self, journal: str, epoch: int) -> None:
        if 1 not in self.holes and 2 not in self.holes and self.epochs.get(journal, 0) != epoch - 1:
            raise AssertionError("a stale or cloned journal")
        self.epochs[journal] = epoch
        for user in self.users.values():
            entry = user.leases.get(journal)
            if entry is not None and entry.dead:
                entry.dead, entry.owner = False, epoch
                entry.op += 1

    def grant(
        self, name: str, wallet: str, journal: str, epoch: int, op: int, need: int, now: int
    ) -> tuple[str, int, tuple[tuple[LotAmount, int | None], ...]]:
        user = self.users[name]
        entry = user.leases.get(journal) or Entry(epoch, 0)
        if entry.dead or entry.owner != epoch or entry.op != op:
            return "stale", op, ()
        if not user.active:
            return "inactive", op, ()
        seen = self._as_granted(self.account(name))
        slices = choose_slices(seen, wallet, need, need + 10, -1 if 18 in self.holes else now)
        self._judge_grant(name, wallet, need, sum(part.amount_pico for part in slices), now)
        if not slices:
            return "short", op, ()
        user.leases[journal] = entry
        for part in slices:
            entry.lots[part.lot] += part.amount_pico
            user.boxes[part.lot].leased += part.amount_pico
        entry.op += 1
        user.rev += 1
        return "", entry.op, tuple((part, user.boxes[part.lot].expires) for part in slices)

    def _as_granted(self, account: Account) -> Account:
        """The account as a grant sees it: hole 160 sees no claims, 151 takes a lot's claim for its pool's."""
        if 160 in self.holes:
            return replace(account, claims=())
        if 151 in self.holes:
            return replace(account, claims=tuple(replace(claim, lot=None) for claim in account.claims))
        return account

    def _judge_grant(self, name: str, wallet: str, need: int, granted: int, now: int) -> None:
        """Nothing that is claimed is granted, and nobody is refused for another lot's claim."""
        unclaimed = 0
        for pool in WALLETS[wallet]:
            free = {
                lot: box.left - box.leased
                for lot, box in self.users[name].boxes.items()
                if box.pool == pool and (box.expires is None or box.expires > now)
            }
            for claim in self.users[name].claims.values():
                if claim.pool == pool and claim.lot is not None and claim.lot in free:
                    free[claim.lot] = max(0, free[claim.lot] - claim.amount_pico)
                elif claim.pool == pool and claim.lot is None:
                    unclaimed -= claim.amount_pico
            unclaimed += sum(free.values())
        is_wrong = granted > max(0, unclaimed) or (not granted and 0 < need <= unclaimed)
        if is_wrong and 18 not in self.holes:
            self.ill_granted.append(f"{granted} of {name} for {need}, unclaimed {unclaimed}")

    def give_back(self, name: str, journal: str, epoch: int, op: int, parts: list[LotAmount]) -> int | None:
        user = self.users[name]
        entry = user.leases.get(journal)
        if entry is None or entry.dead or entry.owner != epoch or entry.op != op:
            return None
        if 48 not in self.holes and any(entry.lots[part.lot] < part.amount_pico for part in parts):
            return None
        for part in parts:
            entry.lots[part.lot] -= part.amount_pico
            user.boxes[part.lot].leased -= part.amount_pico
        entry.op += 1
        user.rev += 1
        return entry.op

    def fence(self, name: str, journal: str, epoch: int, exchanges: list[str]) -> Fenced | None:
        user = self.users[name]
        entry = user.leases.setdefault(journal, Entry(epoch, 0))
        if 52 in self.holes and entry.owner != epoch:
            return None
        entry.owner = epoch
        if 10 not in self.holes:
            entry.op += 1
        user.rev += 1
        return Fenced(entry.op, entry.dead, self.lots_of(name, journal), self.booked(name, exchanges))

    def lots_of(self, name: str, journal: str) -> tuple[tuple[LotAmount, int | None], ...]:
        user = self.users[name]
        entry = user.leases[journal]
        return tuple(
            (LotAmount(lot, user.boxes[lot].pool, amount), user.boxes[lot].expires)
            for lot, amount in entry.lots.items()
            if amount
        )

    def booked(self, name: str, exchanges: list[str]) -> frozenset[str]:
        done = {row.reference for row in self.users[name].rows.values()} | set(self.quarantine)
        return frozenset(exchange for exchange in exchanges if exchange in done)

    def abandon(self, name: str, journal: str, stale: Counter[str] | None = None) -> None:
        """Dead, amounts 0, leased down by what was read; `stale` is an older read (hole 56)."""
        user = self.users[name]
        entry = user.leases.get(journal)
        if entry is None:
            return
        read = stale if stale is not None else entry.lots
        for lot, amount in read.items():
            user.boxes[lot].leased -= amount
        entry.lots, entry.dead = Counter(), True
        entry.op += 1
        user.rev += 1

    # -- booking ---------------------------------------------------------------------------------------------
    def book(self, journal: str, settlement: Settlement, now: int) -> str:
        """One exchange in one transaction: booked, late or duplicate."""
        user = self.users[settlement.user]
        old = [row for row in user.rows.values() if row.reference == settlement.exchange]
        if (old or settlement.exchange in self.quarantine) and 58 not in self.holes:
            differs = old and old[0].charge["amount_pico"] != settlement.amount_pico
            if differs and not settlement.quarantine and 9 not in self.holes:
                self.conflicting.append(settlement.exchange)
            return "duplicate"
        entry = user.leases.get(journal)
        takes, written_off = list(settlement.takes), 0
        paid = sum(take.amount_pico for take in takes)
        live = entry is not None and not entry.dead
        covered = live and all(entry.lots[t.lot] >= t.amount_pico for t in takes)  # type: ignore[union-attr]
        exact = bool(settlement.quarantine) or paid == settlement.amount_pico
        own, split, state = takes, tuple(takes), "booked"
        if 6 in self.holes and exact:
            entry = user.leases.setdefault(journal, Entry(0, 0))
        elif not (covered and exact):
            late = late_split(self.account(user.name), journal, settlement, now)
            own, split, written_off, state = list(late.from_lease), late.split, late.written_off_pico, "late"
            self.late.add((journal, user.name))
            if entry is not None and 48 not in self.holes:
                entry.op += 1
        self._take(user, entry, own, split, settlement)
        for row in rows_of(settlement, split, written_off, now):
            user.rows[row.id] = row
        user.rev += 1
        return state

    def _take(
        self,
        user: User,
        entry: Entry | None,
        own: list[LotAmount],
        split: tuple[LotAmount, ...],
        settlement: Settlement,
    ) -> None:
        for part in own:
            if entry is not None:
                entry.lots[part.lot] -= part.amount_pico
                user.boxes[part.lot].leased -= part.amount_pico
        if settlement.quarantine:
            self.quarantine[settlement.exchange] = settlement
            if 54 not in self.holes:
                user.reserved[settlement.exchange] = Counter({p.lot: p.amount_pico for p in split})
                for part in split:
                    user.boxes[part.lot].leased += part.amount_pico
            return
        for part in split:
            user.boxes[part.lot].left -= part.amount_pico
            user.balances[part.pool] -= part.amount_pico

    def resolve(self, exchange: str, settled: Settlement, now: int) -> None:
        """An operator settles a quarantined exchange: reserved money first, expired or not, then what is
        free.
        """
        user = self.users[settled.user]
        reserved = user.reserved.pop(exchange, Counter())
        del self.quarantine[exchange]
        parts = [LotAmount(lot, user.boxes[lot].pool, amount) for lot, amount in reserved.items()]
        user.leases["operator"] = Entry(0, 0, lots=reserved)
        self.book("operator", replace(settled, takes=tuple(parts)), now)
        self.abandon(user.name, "operator")

    # -- events ----------------------------------------------------------------------------------------------
    def event(self, name: str, rows: tuple[Transaction, ...], expires: int | None, now: int) -> str:
        """All rows of an event, once. What is due to expire goes first."""
        user = self.users[name]
        if 53 in self.holes and not user.active:
            return "inactive"
        if any(row.id in user.rows for row in rows):
            return "duplicate"
        self.sweep(name, now)
        plans = []
        for row in rows:
            seen = self.account(name)
            if 16 in self.holes:
                seen = Account(
                    **{f: getattr(seen, f) for f in seen.__dataclass_fields__ if f != "lots"},
                    lots=tuple(
                        Lot(one.lot, one.pool, one.left_pico, 0, one.expires_at_ms, "") for one in seen.lots
                    ),
                )
            plan = plan_event(seen, row, now)
            if plan is None:
                return "short"
            plans.append(plan)
        for row, plan in zip(rows, plans, strict=True):
            self.post(user, row, plan, expires)
        return "done"

    def post(self, user: User, row: Transaction, plan: tuple[LotAmount, ...], expires: int | None) -> None:
        sign = 1 if row.amount_pico >= 0 else -1
        user.rows[row.id] = row
        user.rev += 1
        for part in plan:
            box = user.boxes.setdefault(part.lot, Box(part.pool, 0, 0, expires))
            box.left += sign * part.amount_pico
            user.balances[part.pool] += sign * part.amount_pico

    def sweep(self, name: str, now: int) -> None:
        if 17 in self.holes:
            for box in self.users[name].boxes.values():
                box.expires = None if box.expires is None else box.expires + 1
            return
        for row in expiry_rows(self.account(name), now):
            parts = tuple(part._replace(amount_pico=-part.amount_pico) for part in row.lots)
            self.post(self.users[name], row, parts, None)

    # -- debits ----------------------------------------------------------------------------------------------
    def refund(self, name: str, row: Transaction, now: int) -> str:
        """A debit that claims: its row takes what is there, the rest is asked for."""
        user = self.users[name]
        if row.id in user.rows:
            return "duplicate"
        self.sweep(name, now)
        claim = claim_of(row, now)
        taken = collected(self.account(name), claim, now)
        self.post(user, first_part_row(row, taken), taken.parts, None)
        if taken.asked_pico:
            user.claims[row.reference] = replace(claim, amount_pico=taken.asked_pico)
        return "done"

    def collect(self, name: str, reference: str, now: int) -> None:
        """One transaction towards a claim's end; hole 51 lets the claim bind its own collector, hole 251
        never ends what a dead collector left.
        """
        user = self.users[name]
        claim = user.claims.get(reference)
        if claim is None:
            return
        if claim.ends_ms is not None and claim.ends_ms <= now and 251 not in self.holes:
            del user.claims[reference]
            return
        if not claim.type:
            return
        self.sweep(name, now)
        as_asked = replace(claim, reference="somebody") if 51 in self.holes else claim
        taken = collected(self.account(name), as_asked, now)
        if taken.parts:
            self.post(user, part_row(name, user.rev, claim, taken, now), taken.parts, None)
        if taken.asked_pico:
            user.claims[reference] = replace(claim, amount_pico=taken.asked_pico)
        else:
            del user.claims[reference]

    def set_claim(self, name: str, claim: Claim) -> None:
        if not any(row.reference == claim.reference for row in self.users[name].rows.values()):
            self.users[name].claims.setdefault(claim.reference, claim)

    def drop_claim(self, name: str, reference: str) -> None:
        self.users[name].claims.pop(reference, None)

    def transfer(self, out: Transaction, into: Transaction, now: int, *, crashes: bool) -> str:
        """Both rows in one transaction; hole 15 may crash between them."""
        giver, receiver = self.users[out.user], self.users[into.user]
        if out.id in giver.rows:
            return "duplicate"
        self.sweep(out.user, now)
        plan = plan_event(self.account(out.user), out, now)
        if plan is None:
            return "short"
        self.post(giver, out, plan, None)
        giver.claims.pop(out.reference, None)
        if not crashes:
            self.post(receiver, into, into.lots, None)
        return "done"

    def unexpired(self, name: str, pool: str, now: int) -> int:
        """What is left of a pool."""
        return sum(
            box.left
            for box in self.users[name].boxes.values()
            if box.pool == pool and (box.expires is None or box.expires > now)
        )
