"""Leases are cut from money that is there: unexpired, unleased, unclaimed, in spending order (M2, MONEY
section 2).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.base.records import Account, Claim, LotAmount
from farebox.ledger.lots import available_pico, choose_slices, covers, remaining_pico, spend_order
from ledger.accounts import LATER_MS, NOW_MS, PAST_MS, SOON_MS, account, lot, part


def pool_claim(amount: int, pool: str = "credits") -> Claim:
    return Claim("c", pool, None, amount)


def lot_claim(name: str, amount: int) -> Claim:
    return Claim(f"c-{name}", "credits", name, amount)


AVAILABLE = {
    "nothing": (account(), 0, 0),
    "unleased": (account(lot("a", 10, leased=4)), 10, 6),
    "two pools of the wallet": (account(lot("a", 10), lot("b", 5, pool="refCredits")), 15, 15),
    "another wallet's pool": (account(lot("a", 10, pool="creditsNew")), 0, 0),
    "expired at this moment": (account(lot("a", 10, expires=PAST_MS)), 0, 0),
    "expires later": (account(lot("a", 10, expires=SOON_MS)), 10, 10),
    "claim on the pool": (account(lot("a", 10), claims=[pool_claim(4)]), 10, 6),
    "claim above the pool": (account(lot("a", 10), claims=[pool_claim(14)]), 10, -4),
    "claim on another wallet's pool": (account(lot("a", 10), claims=[pool_claim(14, "creditsNew")]), 10, 10),
    "hole 51: a claim on a leased lot binds that lot only": (
        account(lot("a", 10, leased=10), lot("b", 7), claims=[lot_claim("a", 10)]),
        17,
        7,
    ),
    "two claims on one lot": (
        account(lot("a", 10), claims=[lot_claim("a", 2), Claim("d", "credits", "a", 3)]),
        10,
        5,
    ),
    "claim on an expired lot": (
        account(lot("a", 10, expires=PAST_MS), lot("b", 7), claims=[lot_claim("a", 10)]),
        7,
        7,
    ),
}


@pytest.mark.parametrize(("case", "remaining", "available"), AVAILABLE.values(), ids=AVAILABLE.keys())
def test_M2_available_and_remaining(case: Account, remaining: int, available: int) -> None:
    assert remaining_pico(case, "ohmygpt", NOW_MS) == remaining
    assert available_pico(case, "ohmygpt", NOW_MS) == available


THREE = (
    lot("never", 10),
    lot("later", 10, expires=LATER_MS),
    lot("soon", 10, expires=SOON_MS),
    lot("gone", 10, expires=PAST_MS),
    lot("ref", 10, pool="refCredits", expires=SOON_MS),
)
SLICES = {
    "exactly the need": (account(*THREE), 5, 5, (part("soon", 5),)),
    "earliest expiry first, never last, then the next pool": (
        account(*THREE),
        1,
        99,
        (part("soon", 10), part("later", 10), part("never", 10), part("ref", 10, "refCredits")),
    ),
    "up to the want": (account(*THREE), 1, 15, (part("soon", 10), part("later", 5))),
    "nothing below the need": (account(*THREE), 41, 99, ()),
    "a claim on the pool spares the earliest expiry": (
        account(*THREE[:3], claims=[pool_claim(12)]),
        1,
        99,
        (part("soon", 10), part("later", 8)),
    ),
    "a claim on a lot": (
        account(*THREE[:3], claims=[lot_claim("soon", 9)]),
        1,
        4,
        (part("soon", 1), part("later", 3)),
    ),
    "a debt of one pool lowers the whole wallet": (
        account(lot("a", 2), lot("ref", 10, pool="refCredits"), claims=[pool_claim(5)]),
        1,
        99,
        (part("ref", 7, "refCredits"),),
    ),
    "negative available grants nothing, not even nothing": (account(claims=[pool_claim(5)]), 0, 9, ()),
    "nothing wanted": (account(*THREE), 0, 0, ()),
}


@pytest.mark.parametrize(("case", "need", "want", "slices"), SLICES.values(), ids=SLICES.keys())
def test_M2_slices(case: Account, need: int, want: int, slices: tuple[object, ...]) -> None:
    assert choose_slices(case, "ohmygpt", need, want, NOW_MS) == slices


CLAIMED = account(lot("a", 10), claims=[pool_claim(4)])
ON_A_LOT = account(lot("a", 10), lot("b", 5), claims=[lot_claim("a", 4)])
EXPIRED = account(lot("a", 3), lot("gone", 10, leased=3, expires=PAST_MS), claims=[pool_claim(9)])
COVERS = {
    "all unleased money": (
        account(lot("a", 10, leased=4), lot("b", 5)),
        [part("a", 6), part("b", 5)],
        "",
        True,
    ),
    "one more than is unleased": (account(lot("a", 10, leased=4)), [part("a", 7)], "", False),
    "nothing named": (CLAIMED, [], "", True),
    "a lot that is not there": (account(lot("a", 10)), [part("x", 1)], "", False),
    "a lot of another pool": (account(lot("n", 10, pool="creditsNew")), [part("n", 1)], "", False),
    "all that a claim on the pool leaves": (CLAIMED, [part("a", 6)], "", True),
    "some of what a claim on the pool asks for": (CLAIMED, [part("a", 7)], "", False),
    "for the claim itself": (CLAIMED, [part("a", 10)], "c", True),
    "all that a claim on the lot leaves": (ON_A_LOT, [part("a", 6), part("b", 5)], "", True),
    "some of what a claim on the lot asks for": (ON_A_LOT, [part("a", 7)], "", False),
    "for the claim on the lot itself": (ON_A_LOT, [part("a", 10)], "c-a", True),
    "hole 17: expired money is claimed by nobody": (EXPIRED, [part("gone", 7)], "", True),
    "expired money that is leased": (EXPIRED, [part("gone", 8)], "", False),
    "the least of what is claimed altogether": (EXPIRED, [part("a", 1)], "", False),
    "a claim on another pool": (
        account(lot("a", 10), claims=[pool_claim(14, "creditsNew")]),
        [part("a", 10)],
        "",
        True,
    ),
}


@pytest.mark.parametrize(("case", "named", "own_claim", "covered"), COVERS.values(), ids=COVERS)
def test_M2_named_lots_are_covered_by_what_nobody_else_has(
    case: Account, named: list[LotAmount], own_claim: str, covered: bool
) -> None:
    assert covers(case, "credits", named, NOW_MS, own_claim) is covered


def test_spend_order_is_the_same_on_every_host() -> None:
    lots = [
        lot("b", 1, expires=SOON_MS),
        lot("z", 1),
        lot("a", 1, expires=SOON_MS),
        lot("c", 1, expires=NOW_MS),
    ]
    assert [one.lot for one in spend_order(lots)] == ["c", "a", "b", "z"]
    assert spend_order(reversed(lots)) == spend_order(lots)


@st.composite
def any_account(draw: st.DrawFn) -> Account:
    lots = []
    for index in range(draw(st.integers(0, 5))):
        left = draw(st.integers(0, 20))
        lots.append(
            lot(
                f"l{index}",
                left,
                leased=draw(st.integers(0, left)),
                expires=draw(st.sampled_from([None, PAST_MS, SOON_MS, LATER_MS])),
                pool=draw(st.sampled_from(["credits", "refCredits", "creditsNew"])),
            )
        )
    claims = [
        Claim(f"c{index}", pool, name, amount)
        for index, (pool, name, amount) in enumerate(
            draw(
                st.lists(
                    st.tuples(
                        st.sampled_from(["credits", "refCredits"]),
                        st.sampled_from([None, "l0", "l1"]),
                        st.integers(0, 25),
                    ),
                    max_size=2,
                )
            )
        )
    ]
    return account(*lots, claims=claims)


@given(any_account(), st.integers(0, 40), st.integers(0, 40))
def test_M2_slices_fit_what_is_there(case: Account, need: int, more: int) -> None:
    slices = choose_slices(case, "ohmygpt", need, need + more, NOW_MS)
    total = sum(one.amount_pico for one in slices)
    available = available_pico(case, "ohmygpt", NOW_MS)
    assert total == (min(need + more, available) if available >= need else 0) or available < 0
    assert len({one.lot for one in slices}) == len(slices)
    by_name = {one.lot: one for one in case.lots}
    for one in slices:
        source = by_name[one.lot]
        assert 0 < one.amount_pico <= source.left_pico - source.leased_pico
        assert source.expires_at_ms is None or source.expires_at_ms > NOW_MS
        assert source.pool == one.pool != "creditsNew"
