"""Debits that meet leased money, in a world of the model: refunds, disputes and users' own transfers.

Refunds and disputes claim what they cannot take at once and are collected by anybody; a transfer waits for
its money under a claim, gives up in time, and leaves the claim behind when its process dies.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from farebox.base.records import Claim, LotAmount, Transaction
from model.model_store import ModelStore
from model.parts import BrokenError, UnknownError, row_of

PATIENCE = 6


@dataclass
class Transfer:
    """A user's own move of credit; `until` is when he gives up, 0 before he has waited."""

    giver: str
    out: Transaction
    into: Transaction
    until: int = 0


class Debits:
    """What a world must offer, and what its customers do with their money."""

    rng: random.Random
    holes: frozenset[int]
    now: int
    calm: bool
    store: ModelStore
    events: dict[str, tuple[str, tuple[Transaction, ...], int | None]]
    expiries: dict[str, int | None]
    call: Callable[[Callable[[], Any]], Any]
    new_id: Callable[[str], str]

    def __init__(self) -> None:
        self.refunds: dict[str, tuple[str, Transaction]] = {}
        self.transfers: list[Transfer] = []
        self.moved: dict[str, Transfer] = {}

    # -- refunds and disputes --------------------------------------------------------------------------------
    def refund(self) -> None:
        """Of a purchase's lot, or of a whole pool; delivered until somebody acknowledges."""
        name, rows, _ = self.events[self.rng.choice(list(self.events))]
        lot = rows[0].lots[0] if self.rng.random() < 0.6 else None
        amount = lot.amount_pico if lot is not None else self.rng.randint(1, 30)
        row = row_of(name, "refund", self.new_id("rf"), -amount, lot, self.now)
        self.refunds[row.reference] = (name, row)
        self.deliver_refund(row.reference)

    def deliver_refund(self, reference: str) -> None:
        name, row = self.refunds[reference]
        try:
            self.call(lambda: self.store.refund(name, row, self.now))
        except UnknownError:
            return

    def deliver_any_refund(self) -> None:
        if self.refunds:
            self.deliver_refund(self.rng.choice(list(self.refunds)))

    def collect(self) -> None:
        """Whoever comes by collects for a claim."""
        name = self.rng.choice(list(self.store.users))
        claims = self.store.users[name].claims
        if claims:
            reference = self.rng.choice(list(claims))
            try:
                self.call(lambda: self.store.collect(name, reference, self.now))
            except UnknownError:
                return

    # -- transfers -------------------------------------------------------------------------------------------
    def transfer(self) -> None:
        giver, receiver = self.rng.sample(list(self.store.users), 2)
        amount, reference = self.rng.randint(1, 15), self.new_id("t")
        lot = LotAmount(f"{reference}l", "credits", amount)
        self.expiries[lot.lot] = None
        out = row_of(giver, "transfer_out", reference, -amount, None, self.now)
        into = row_of(receiver, "transfer_in", reference, amount, lot, self.now)
        self.moved[reference] = made = Transfer(giver, out, into)
        self.transfers.append(made)
        self.try_transfer(made)

    def try_any_transfer(self) -> None:
        if self.transfers:
            self.try_transfer(self.rng.choice(self.transfers))

    def try_transfer(self, one: Transfer) -> None:
        """Try, claim, try again, give up; or die in between."""
        if not self.calm and self.rng.random() < 0.1:
            self.transfers.remove(one)
            return
        reference = one.out.reference
        try:
            crashes = 15 in self.holes and not self.calm and self.rng.random() < 0.3
            result = self.call(lambda: self.store.transfer(one.out, one.into, self.now, crashes=crashes))
            if result != "short":
                self.transfers.remove(one)
            elif not one.until:
                one.until = self.now + PATIENCE
                ends, pool = one.until + PATIENCE, one.out.pool
                claim = Claim(reference, pool, None, -one.out.amount_pico, "", "", self.now, ends)
                self.call(lambda: self.store.set_claim(one.giver, claim))
            elif self.now > one.until:
                self.transfers.remove(one)
                self.call(lambda: self.store.drop_claim(one.giver, reference))
        except UnknownError:
            return

    # -- the end ---------------------------------------------------------------------------------------------
    def settle_debits(self) -> None:
        """Every debit comes to its end; what stays is what nobody has money for."""
        self.transfers.clear()
        for reference in self.refunds:
            for _ in range(2):
                self.deliver_refund(reference)
        self.now += 3 * PATIENCE
        for _ in range(2):
            for name, user in self.store.users.items():
                for reference in list(user.claims):
                    self.store.collect(name, reference, self.now)

    def check_debits(self) -> None:
        for reference, (name, row) in self.refunds.items():
            found = [
                one
                for one in self.store.users[name].rows.values()
                if one.reference.partition(":")[0] == reference and one.type == "refund"
            ]
            if not found or -sum(one.amount_pico for one in found) > -row.amount_pico:
                raise BrokenError(f"M4 refund {reference}: {len(found)} rows, more than was asked or none")
        for name, user in self.store.users.items():
            for claim in user.claims.values():
                left = self.store.unexpired(name, claim.pool, self.now)
                if claim.lot is not None or not claim.type or left:
                    raise BrokenError(f"{name}: the claim {claim} stands although {left} is there")
        for reference, one in self.moved.items():
            out = one.out.id in self.store.users[one.giver].rows
            into = one.into.id in self.store.users[one.into.user].rows
            if out != into:
                raise BrokenError(f"M1 transfer {reference}: debited {out}, credited {into}")
