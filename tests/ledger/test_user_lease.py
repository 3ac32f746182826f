"""Holds never exceed the lease, each ends once, and every hold that fits is paid (M2, M3)."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import LotAmount
from farebox.ledger.user_lease import Hold, UserLease, _LotLeft
from ledger.accounts import part

WALLET = "ohmygpt"


def leased(*lots: tuple[LotAmount, int | None]) -> UserLease:
    lease = UserLease()
    lease.add(lots)
    return lease


def opened(lease: UserLease, amount: int, now: int = 0) -> Hold:
    hold = lease.hold(WALLET, amount, now)
    assert hold is not None
    return hold


def test_M2_a_hold_that_does_not_fit_is_refused() -> None:
    lease = leased((part("a", 10), None))
    opened(lease, 6)
    assert lease.hold(WALLET, 5, 0) is None
    assert (lease.free_pico(WALLET, 0), lease.held_pico(WALLET)) == (4, 6)
    assert lease.hold("openhands", 1, 0) is None


ENDS = (
    lambda lease, hold: lease.settle(hold, 1, 0),
    lambda lease, hold: lease.reserve(hold, 0),
    lambda lease, hold: lease.void(hold),
)


@pytest.mark.parametrize("end", ENDS, ids=["settle", "reserve", "void"])
def test_M3_a_hold_ends_once(end: Callable[[UserLease, Hold], object]) -> None:
    lease = leased((part("a", 10), None))
    hold = opened(lease, 2)
    end(lease, hold)
    free = lease.free_pico(WALLET, 0)
    for again in (*ENDS, lambda lease, hold: lease.extend(hold, 1, 0)):
        with pytest.raises(InvariantBrokenError, match="M3"):
            again(lease, hold)
    assert lease.free_pico(WALLET, 0) == free


def test_M3_a_hold_belongs_to_its_lease() -> None:
    hold = opened(leased((part("a", 10), None)), 2)
    with pytest.raises(InvariantBrokenError, match="M3"):
        leased((part("a", 10), None)).void(hold)


SETTLE = {
    "within one lot": ([("a", 10, None)], 5, 3, [("a", 3)], 0, 7),
    "nothing charged": ([("a", 10, None)], 5, 0, [], 0, 10),
    "a lot is emptied": ([("a", 5, None)], 5, 5, [("a", 5)], 0, 0),
    "earliest expiry first": ([("never", 4, None), ("soon", 4, 50)], 8, 6, [("soon", 4), ("never", 2)], 0, 2),
    "above the hold, free money pays": ([("a", 10, None)], 5, 9, [("a", 9)], 0, 1),
    "above the lease": ([("a", 10, None)], 5, 12, [("a", 10)], 2, -2),
}


@pytest.mark.parametrize(
    ("lots", "hold", "charge", "takes", "uncovered", "free"), SETTLE.values(), ids=SETTLE
)
def test_M2_settle(
    lots: list[tuple[str, int, int | None]],
    hold: int,
    charge: int,
    takes: list[tuple[str, int]],
    uncovered: int,
    free: int,
) -> None:
    lease = leased(*((part(name, amount), expires) for name, amount, expires in lots))
    settled = lease.settle(opened(lease, hold), charge, 1)
    assert settled == (tuple(part(*take) for take in takes), uncovered)
    assert lease.free_pico(WALLET, 1) == free


def test_hole_42_wallet_order_permanent_before_monthly() -> None:
    lease = leased((part("m", 5, "credits_monthly"), 10), (part("p", 5, "credits_permanent"), None))
    hold = lease.hold("subscription", 8, 0)
    assert hold is not None
    takes = lease.settle(hold, 7, 0).takes
    assert takes == (part("p", 5, "credits_permanent"), part("m", 2, "credits_monthly"))


def test_a_charge_above_its_hold_spares_the_holds_of_others() -> None:
    lease = leased((part("a", 10), None))
    other = opened(lease, 6)
    assert lease.settle(opened(lease, 3), 9, 0) == ((part("a", 4),), 5)
    assert lease.free_pico(WALLET, 0) == -5
    assert lease.settle(other, 6, 0) == ((part("a", 6),), 0)


def test_a_grant_first_covers_what_is_owed() -> None:
    lease = leased((part("a", 1), None))
    lease.settle(opened(lease, 1), 4, 0)
    lease.add([(part("b", 5), None)])
    assert lease.free_pico(WALLET, 0) == 2
    assert lease.free_pico(WALLET, 0) >= 0


def test_hole_18_no_new_hold_on_an_expired_lot_but_old_ones_keep_it() -> None:
    lease = leased((part("old", 10), 100), (part("new", 5), None))
    before = opened(lease, 6, now=99)
    assert lease.free_pico(WALLET, 100) == 5
    young = opened(lease, 5, now=100)
    assert lease.hold(WALLET, 1, 100) is None
    assert lease.returnable({}, 100) == [part("old", 4)]
    assert lease.settle(young, 5, 101) == ((part("new", 5),), 0)
    assert lease.settle(before, 6, 101) == ((part("old", 6),), 0)


def test_hole_18_expired_money_goes_first_so_that_younger_holds_are_paid() -> None:
    lease = leased((part("a", 5), None), (part("r", 5, "refCredits"), 100))
    before = opened(lease, 5, now=99)
    young = opened(lease, 5, now=100)
    assert lease.settle(before, 5, 101).takes == (part("r", 5, "refCredits"),)
    assert lease.settle(young, 5, 101) == ((part("a", 5),), 0)


def test_a_void_past_expiry_leaves_the_expired_money_to_be_returned() -> None:
    lease = leased((part("old", 10), 100))
    hold = opened(lease, 6, now=99)
    assert lease.free_pico(WALLET, 100) == 0
    lease.void(hold)
    assert lease.free_pico(WALLET, 100) == 0
    assert lease.returnable({}, 100) == [part("old", 10)]


def test_expired_money_that_is_owed_is_not_returned() -> None:
    lease = UserLease()
    lease.replace([(part("old", 11), 100)], 2, [(WALLET, (), 4), (WALLET, (), 3)])
    assert lease.returnable({}, 100) == [part("old", 4)]
    assert lease.free_pico(WALLET, 100) >= 0


def test_an_extension_past_expiry_needs_unexpired_money() -> None:
    lease = leased((part("old", 10), 100), (part("new", 3), None))
    hold = opened(lease, 4, now=99)
    assert lease.extend(hold, 3, 50)
    assert not lease.extend(hold, 4, 100)
    assert lease.extend(hold, 3, 100)
    assert lease.hold(WALLET, 1, 100) is None
    assert lease.settle(hold, 10, 101) == ((part("old", 7), part("new", 3)), 0)


def test_an_extension_takes_all_that_is_free_and_no_more() -> None:
    lease = leased((part("a", 10), None))
    hold = opened(lease, 4)
    assert lease.extend(hold, 2, 0)
    assert lease.free_pico(WALLET, 0) == 4
    assert not lease.extend(hold, 5, 0)
    assert lease.extend(hold, 4, 0)
    assert lease.free_pico(WALLET, 0) == 0


def test_a_grant_of_a_lot_that_is_leased_adds_to_it() -> None:
    lease = leased((part("a", 5), None))
    lease.add([(part("a", 3), None)])
    assert lease.returnable({}, 0) == [part("a", 8)]


def test_what_is_owed_adds_up_and_no_other_hold_pays_for_it() -> None:
    lease = leased((part("a", 2), None))
    first, second = opened(lease, 1), opened(lease, 1)
    assert lease.settle(first, 4, 0) == ((part("a", 1),), 3)
    assert lease.settle(second, 5, 0) == ((part("a", 1),), 4)
    assert lease.free_pico(WALLET, 0) == -7


def test_hole_18_a_lot_is_good_strictly_before_its_expiry() -> None:
    assert leased((part("a", 5), 100)).hold(WALLET, 1, 99) is not None
    assert leased((part("a", 5), 100)).hold(WALLET, 1, 100) is None


def test_expired_money_beyond_what_a_hold_may_use_goes_back() -> None:
    lease = leased((part("a", 5), 100), (part("b", 5), 200))
    hold = opened(lease, 6, now=0)
    assert lease.returnable({}, 300) == [part("b", 4)]
    assert lease.settle(hold, 6, 300) == ((part("a", 5), part("b", 1)), 0)


def test_a_charge_below_an_extended_hold_takes_no_more_than_itself() -> None:
    lease = leased((part("a", 5), 100), (part("b", 5), 200), (part("c", 3), 300))
    hold = opened(lease, 10, now=0)
    assert lease.extend(hold, 3, 150)
    assert lease.settle(hold, 4, 400) == ((part("a", 4),), 0)


def test_the_last_pico_can_be_returned() -> None:
    lease = leased((part("a", 5), None))
    opened(lease, 4)
    assert lease.returnable({}, 0) == [part("a", 1)]
    assert (lease.op, UserLease(3).op) == (0, 3)


def test_an_extension_past_expiry_is_paid_by_what_the_hold_before_it_leaves() -> None:
    lease = leased((part("a", 5), 100), (part("b", 5), 200), (part("c", 3), 300))
    hold = opened(lease, 10, now=0)
    assert lease.extend(hold, 3, 150)
    assert lease.settle(hold, 13, 400) == ((part("a", 5), part("b", 5), part("c", 3)), 0)
    assert lease.is_empty()


def test_an_extension_is_refused_when_short() -> None:
    lease = leased((part("a", 5), 100))
    hold = opened(lease, 4)
    assert not lease.extend(hold, 2, 1)
    assert hold.amount_pico == 4
    assert not lease.extend(hold, 1, 100)


def test_reserve_takes_the_whole_hold() -> None:
    lease = leased((part("a", 5), None))
    assert lease.reserve(opened(lease, 4), 0) == ((part("a", 4),), 0)
    assert lease.free_pico(WALLET, 0) == 1


def test_hole_11_what_is_subtracted_for_a_return_cannot_be_held() -> None:
    lease = leased((part("a", 5), 90), (part("b", 5), None))
    opened(lease, 3)
    assert lease.returnable({WALLET: 4}, 0) == [part("b", 3)]
    parts = lease.returnable({}, 0)
    assert parts == [part("b", 5), part("a", 2)]
    lease.subtract(parts)
    assert lease.hold(WALLET, 1, 0) is None
    for impossible in (part("a", 4), part("x", 1)):
        with pytest.raises(InvariantBrokenError, match="M2"):
            lease.subtract([impossible])


def test_hole_13_a_fence_counts_unbooked_debits_and_open_holds() -> None:
    lease = leased((part("a", 100), None))
    lease.op = 3
    hold = opened(lease, 4)
    lease.replace(
        [(part("a", 10), None)], 8, [(WALLET, (part("a", 3),), 0), (WALLET, (part("a", 5), part("x", 2)), 1)]
    )
    assert lease.op == 8
    assert lease.free_pico(WALLET, 0) == 10 - 8 - 2 - 1 - 4
    assert lease.settle(hold, 4, 0) == ((part("a", 2),), 2)
    assert lease.free_pico(WALLET, 0) == -5
    lease.replace([(part("a", 1), None)], 9, [(WALLET, (part("a", 4),), 0)])
    assert lease.free_pico(WALLET, 0) == -3
    lease.replace([(part("a", 1), None)], 10, [(WALLET, (part("x", 3), part("y", 4)), 0)])
    assert lease.free_pico(WALLET, 0) == -6


def test_is_empty_only_without_money_holds_and_debts() -> None:
    assert UserLease().is_empty()
    lease = leased((part("a", 2), None))
    assert not lease.is_empty()
    hold = opened(lease, 2)
    lease.settle(hold, 2, 0)
    assert lease.is_empty()
    zero = opened(lease, 0)
    assert not lease.is_empty()
    lease.settle(zero, 1, 0)
    assert not lease.is_empty()
    lease.replace([], 1, [])
    assert lease.is_empty()


def copy_of(lease: UserLease, holds: list[Hold]) -> tuple[UserLease, list[Hold]]:
    """A lease in the same state, with its open holds."""
    twin = UserLease(lease.op)
    twins: dict[Hold, Hold] = {}
    for hold in holds:
        twins[hold] = copied = Hold(hold.wallet, hold.amount_pico, hold.opened_ms)
        copied.later_ms, copied.later_pico = hold.later_ms, hold.later_pico
    for wallet, purse in lease._purses.items():
        other = twin._purses[wallet]
        other.lots = [_LotLeft(lot.lot, lot.pool, lot.left_pico, lot.expires_ms) for lot in purse.lots]
        other.expired = [_LotLeft(lot.lot, lot.pool, lot.left_pico, lot.expires_ms) for lot in purse.expired]
        other.open = {twins[hold] for hold in purse.open}
        other.owed_pico, other.free_pico = purse.owed_pico, purse.free_pico
        other.next_expiry_ms = purse.next_expiry_ms
    return twin, [twins[hold] for hold in holds]


class AnyUse(RuleBasedStateMachine):
    """Any order of calls: money is conserved, and if nothing is owed every open hold can be paid in full."""

    @initialize()
    def begin(self) -> None:
        self.lease = UserLease()
        self.now = 0
        self.holds: list[Hold] = []
        self.inside = 0
        self.owed = 0

    @rule(
        name=st.sampled_from("abcd"),
        pool=st.sampled_from(["credits", "refCredits"]),
        amount=st.integers(1, 20),
        lasts=st.sampled_from([None, 1, 3, 6]),
    )
    def grant(self, name: str, pool: str, amount: int, lasts: int | None) -> None:
        lot_name = f"{name}{pool}{lasts}{self.now}"
        self.lease.add([(part(lot_name, amount, pool), None if lasts is None else self.now + lasts)])
        self.inside += amount

    @rule(amount=st.integers(0, 15))
    def hold(self, amount: int) -> None:
        free = self.lease.free_pico(WALLET, self.now)
        hold = self.lease.hold(WALLET, amount, self.now)
        assert (hold is not None) == (amount <= free)
        if hold is not None:
            self.holds.append(hold)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), more=st.integers(0, 10))
    def extend(self, data: st.DataObject, more: int) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        before = hold.amount_pico
        extended = self.lease.extend(hold, more, self.now)
        assert hold.amount_pico == (before + more if extended else before)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), charge=st.integers(0, 25))
    def settle(self, data: st.DataObject, charge: int) -> None:
        hold = self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))
        free = self.lease.free_pico(WALLET, self.now)
        takes, uncovered = self.lease.settle(hold, charge, self.now)
        taken = sum(take.amount_pico for take in takes)
        assert taken + uncovered == charge
        assert all(take.amount_pico > 0 for take in takes)
        self.inside -= taken
        self.owed += uncovered
        if free >= 0 and charge <= hold.amount_pico:
            assert uncovered == 0

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        self.lease.void(self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1))))

    @rule(keep=st.integers(0, 10))
    def give_back(self, keep: int) -> None:
        parts = self.lease.returnable({WALLET: keep}, self.now)
        free = self.lease.free_pico(WALLET, self.now)
        self.lease.subtract(parts)
        self.inside -= sum(one.amount_pico for one in parts)
        assert self.lease.free_pico(WALLET, self.now) == (min(free, keep) if free > 0 else free)

    @rule(step=st.integers(1, 3))
    def wait(self, step: int) -> None:
        self.now += step

    @invariant()
    def free_is_the_formula_while_nothing_has_expired(self) -> None:
        held = sum(hold.amount_pico for hold in self.holds)
        assert self.lease.held_pico(WALLET) == held
        if all(
            lot.expires_ms > self.now
            for purse in self.lease._purses.values()
            for lot in purse.lots + purse.expired
        ):
            assert self.lease.free_pico(WALLET, self.now) == self.inside - held - self.owed

    @invariant()
    def every_hold_can_be_paid(self) -> None:
        if self.lease.free_pico(WALLET, self.now) >= 0 and not self.owed:
            lease, holds = copy_of(self.lease, self.holds)
            for hold in holds[::2] + holds[1::2]:
                assert lease.settle(hold, hold.amount_pico, self.now).uncovered_pico == 0


TestM2M3AnyUse = AnyUse.TestCase


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_M2_order_of_settlement_does_not_matter(amounts: list[int], random: object) -> None:
    lease = leased((part("a", sum(amounts) // 2), 5), (part("b", sum(amounts) - sum(amounts) // 2), None))
    holds = [opened(lease, amount, now=index) for index, amount in enumerate(amounts) if index < 5]
    random.shuffle(holds)  # type: ignore[attr-defined]
    assert all(lease.settle(hold, hold.amount_pico, 10).uncovered_pico == 0 for hold in holds)
