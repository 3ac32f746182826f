"""A claim takes what is free, leaves what older claims ask for, and ends when nothing more can come (holes
16, 17, 51).
"""

import pytest

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Account, Claim, LotAmount
from farebox.ledger.claims import Collected, claim_of, collected, first_part_row, part_row
from farebox.ledger.lots import lots_to_renew
from ledger.accounts import LATER_MS, NOW_MS, PAST_MS, SOON_MS, account, lot, part, row


def claim(amount: int, on: str | None = None, since: int = 5, reference: str = "c1") -> Claim:
    return Claim(reference, "credits", on, amount, "refund", "dispute", since)


OLDER = claim(4, since=1, reference="older")
YOUNGER = claim(4, since=9, reference="younger")
FREEZE = Claim("dispute", "credits", "a", 9, since_ms=1)
OLDER_REFUND = Claim("refund", "credits", "a", 4, "refund", since_ms=1)
COLLECTED = {
    "all of it": (account(lot("a", 10)), claim(6), [part("a", 6)], 0, False),
    "what is free, and the rest is worth recalling": (
        account(lot("a", 10, leased=7)),
        claim(6),
        [part("a", 3)],
        3,
        True,
    ),
    "what is free, and nobody has the rest": (account(lot("a", 4)), claim(6), [part("a", 4)], 2, False),
    "earliest expiry first": (
        account(lot("b", 5), lot("a", 5, expires=SOON_MS)),
        claim(6),
        [part("a", 5), part("b", 1)],
        0,
        False,
    ),
    "nothing of expired money": (account(lot("a", 5, expires=PAST_MS)), claim(6), [], 6, False),
    "nothing of another pool": (account(lot("n", 9, leased=4, pool="creditsNew")), claim(6), [], 6, False),
    "what an older claim leaves": (account(lot("a", 10), claims=[OLDER]), claim(9), [part("a", 6)], 3, False),
    "all that a younger claim asks for": (
        account(lot("a", 10), claims=[YOUNGER]),
        claim(9),
        [part("a", 9)],
        0,
        False,
    ),
    "of its lot alone": (
        account(lot("a", 5, leased=2, expires=SOON_MS), lot("b", 9, leased=9)),
        claim(8, "a"),
        [part("a", 3)],
        5,
        True,
    ),
    "of its lot for the last time": (
        account(lot("a", 5), lot("b", 9, leased=9)),
        claim(8, "a"),
        [part("a", 5)],
        0,
        False,
    ),
    "of its lot, frozen or not": (
        account(lot("a", 10, leased=2), claims=[FREEZE]),
        claim(10, "a"),
        [part("a", 8)],
        2,
        True,
    ),
    "of its lot what an older claim on it leaves": (
        account(lot("a", 10), claims=[FREEZE, OLDER_REFUND]),
        claim(10, "a"),
        [part("a", 6)],
        0,
        False,
    ),
    "nothing of another lot that is frozen": (
        account(lot("a", 10), lot("b", 3), claims=[FREEZE]),
        claim(9),
        [part("a", 1), part("b", 3)],
        5,
        False,
    ),
    "nothing of a lot that has gone": (account(lot("b", 9)), claim(8, "a"), [], 0, False),
}


@pytest.mark.parametrize(
    ("case", "asking", "parts", "asked", "is_leased"), COLLECTED.values(), ids=COLLECTED.keys()
)
def test_hole_16_hole_51_what_a_claim_reaches_now_and_asks_for_then(
    case: Account, asking: Claim, parts: list[LotAmount], asked: int, is_leased: bool
) -> None:
    case = account(*case.lots, claims=[*case.claims, asking])
    assert collected(case, asking, NOW_MS) == Collected(tuple(parts), asked, is_leased)


def test_a_debit_claims_what_its_row_says() -> None:
    whole = row("refund", -7)
    assert claim_of(whole, 9) == Claim("r1", "credits", None, 7, "refund", "test", 9)
    of_lot = row("refund", -7, part("a", -7))
    assert claim_of(of_lot, 9).lot == "a"
    for impossible in (
        row("earned_purchase", 7, part("a", 7)),
        row("adjustment", 0),
        row("refund", -7, part("a", -3), part("b", -4)),
    ):
        with pytest.raises(InvariantBrokenError, match=r"alice:.*:r1:credits: a claim is a debit"):
            claim_of(impossible, 9)


TAKEN = Collected((part("a", 3), part("b", 2)), 5, is_leased=True)


def test_M7_the_first_part_has_the_debits_own_id_and_says_what_it_asked_for() -> None:
    first = first_part_row(row("refund", -10), TAKEN)
    assert (first.id, first.amount_pico) == ("alice:refund:r1:credits", -5)
    assert first.lots == (part("a", -3), part("b", -2))
    assert (first.charge, first.cause, first.created_ms) == ({"asked_pico": 10}, "test", NOW_MS)
    nothing = first_part_row(row("refund", -10), Collected((), 10, is_leased=True))
    assert (nothing.id, nothing.amount_pico, nothing.lots) == (first.id, 0, ())


def test_M4_each_later_part_has_an_id_of_its_own() -> None:
    later = part_row("alice", 7, claim(10), TAKEN, LATER_MS)
    assert (later.id, later.amount_pico) == ("alice:refund:c1:7:credits", -5)
    assert later.lots == (part("a", -3), part("b", -2))
    assert (later.charge, later.cause, later.created_ms) == ({"asked_pico": 10}, "dispute", LATER_MS)
    assert part_row("alice", 8, claim(10), TAKEN, LATER_MS).id != later.id


@pytest.mark.parametrize(
    ("until", "renewed"), [(SOON_MS, ()), (LATER_MS, ("soon",)), (None, ("soon", "later"))]
)
def test_hole_17_a_renewed_pool_shortens_nothing_and_revives_nothing(
    until: int | None, renewed: tuple[str, ...]
) -> None:
    case = account(
        lot("gone", 5, expires=PAST_MS),
        lot("soon", 1, expires=SOON_MS),
        lot("later", 5, expires=LATER_MS),
        lot("never", 5),
        lot("empty", 0, expires=SOON_MS),
        lot("n", 5, expires=SOON_MS, pool="creditsNew"),
    )
    assert lots_to_renew(case, "credits", until, NOW_MS) == renewed
