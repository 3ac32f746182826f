"""Charge rows show the full charge and explain it (M1, M7); the late path and events take only what is
there (M2).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.base.errors import InvariantBrokenError
from farebox.base.records import Account, Claim, LotAmount, Transaction
from farebox.ledger.settlement import expired_parts, expiry_rows, late_split, merged, plan_event, rows_of
from ledger.accounts import LATER_MS, NOW_MS, PAST_MS, SOON_MS, account, lease, lot, part, row, settlement

REF = "refCredits"

ROWS = {
    "one lot": (9, [part("a", 9)], 0, [("spent", "credits", -9, [part("a", -9)])]),
    "two lots of a pool": (
        9,
        [part("a", 4), part("b", 5)],
        0,
        [("spent", "credits", -9, [part("a", -4), part("b", -5)])],
    ),
    "two pools, wallet order": (
        9,
        [part("r", 5, REF), part("a", 4)],
        0,
        [("spent", "credits", -4, [part("a", -4)]), ("spent", REF, -5, [part("r", -5, REF)])],
    ),
    "written off beside the last touched pool": (
        12,
        [part("a", 4), part("r", 5, REF)],
        3,
        [
            ("spent", "credits", -4, [part("a", -4)]),
            ("spent", REF, -8, [part("r", -5, REF)]),
            ("written_off", REF, 3, []),
        ],
    ),
    "all written off": (7, [], 7, [("spent", "credits", -7, []), ("written_off", "credits", 7, [])]),
    "no pool touched": (0, [], 0, [("spent", "credits", 0, [])]),
    "a lot of which nothing is taken": (0, [part("a", 0)], 0, [("spent", "credits", 0, [])]),
    "one lot, rest written off": (
        9,
        [part("a", 4)],
        5,
        [("spent", "credits", -9, [part("a", -4)]), ("written_off", "credits", 5, [])],
    ),
}


@pytest.mark.parametrize(("charge", "split", "written_off", "expected"), ROWS.values(), ids=ROWS.keys())
def test_M1_M7_rows_of_a_charge(
    charge: int,
    split: list[LotAmount],
    written_off: int,
    expected: list[tuple[str, str, int, list[LotAmount]]],
) -> None:
    rows = rows_of(settlement(charge), split, written_off, NOW_MS)
    assert [(one.type, one.pool, one.amount_pico, list(one.lots)) for one in rows] == expected
    assert sum(one.amount_pico for one in rows if one.type == "spent") == -charge
    assert len({one.id for one in rows}) == len(rows)
    assert all(one.user == "alice" and one.reference == "e1" for one in rows)
    assert all(one.cause == "exchange" and one.created_ms == NOW_MS for one in rows)
    assert all(not one.charge for one in rows[1:])


def test_M7_the_first_row_recomputes_the_charge() -> None:
    charged = settlement(9)
    for split in ([part("a", 9)], [part("a", 4), part("b", 5)]):
        block = rows_of(charged, split, 0, NOW_MS)[0].charge
        assert block == {
            "amount_pico": 9,
            "counts": {"input": 1200, "output": 800},
            "others": {"small": {"input": 2}},
            "input_total": 1200,
            "wire_format": "chat",
            "model": "m",
            "variant": "",
            "price_version": 3,
            "multiplier": "1.05",
            "evidence": "exact",
            "flags": ["unsure"],
            "free": False,
        }


def test_M1_parts_must_add_up() -> None:
    for split, written_off in (([part("a", 8)], 0), ([part("a", 9)], 1), ([part("a", 10)], -1), ([], 0)):
        with pytest.raises(InvariantBrokenError, match="M1"):
            rows_of(settlement(9), split, written_off, NOW_MS)
    for split in ([part("n", 9, "creditsNew")], [part("n", 4, "creditsNew"), part("a", 5)]):
        with pytest.raises(InvariantBrokenError, match="M1"):
            rows_of(settlement(9), split, 0, NOW_MS)


def test_a_quarantined_settlement_has_no_rows_yet() -> None:
    assert rows_of(settlement(0, part("a", 4), quarantine="unpriced"), [part("a", 4)], 0, NOW_MS) == ()


LATE = {
    "the lease still holds the takes": (
        account(lot("a", 10, leased=10), leases=lease("j", a=10)),
        settlement(4, part("a", 4)),
        [part("a", 4)],
        [],
        0,
    ),
    "hole 06: the lease is dead, free money pays": (
        account(lot("a", 10, leased=0), leases=lease("j", dead=True, a=0)),
        settlement(4, part("a", 4)),
        [],
        [part("a", 4)],
        0,
    ),
    "no entry at all": (account(lot("a", 3)), settlement(4, part("a", 4)), [], [part("a", 3)], 1),
    "the lease of others is safe": (
        account(lot("a", 10, leased=10), leases=lease("other", a=10)),
        settlement(4, part("a", 4)),
        [],
        [],
        4,
    ),
    "hole 48: available before the rest of the own lease": (
        account(lot("a", 10, leased=6), leases=lease("j", a=6)),
        settlement(9, part("a", 2)),
        [part("a", 5)],
        [part("a", 4)],
        0,
    ),
    "short: everything, the rest written off": (
        account(lot("a", 5, leased=3), lot("r", 2, pool=REF), leases=lease("j", a=3)),
        settlement(12, part("a", 9)),
        [part("a", 3)],
        [part("a", 2), part("r", 2, REF)],
        5,
    ),
    "expired lots of the lease pay what was held before, free expired ones do not": (
        account(lot("a", 5, leased=3, expires=PAST_MS), leases=lease("j", a=3)),
        settlement(9, part("a", 3)),
        [part("a", 3)],
        [],
        6,
    ),
    "claims are not taken": (
        account(lot("a", 9), claims=[Claim("c", "credits", None, 5)]),
        settlement(9),
        [],
        [part("a", 4)],
        5,
    ),
    "negative available is no money and no debt": (
        account(lot("a", 3, leased=3), leases=lease("j", a=3), claims=[Claim("c", "credits", None, 5)]),
        settlement(4),
        [part("a", 3)],
        [],
        1,
    ),
    "another wallet's lease is not touched": (
        account(lot("n", 9, leased=9, pool="creditsNew"), leases=lease("j", n=9)),
        settlement(4),
        [],
        [],
        4,
    ),
    "a take the lease never had": (
        account(lot("a", 9, leased=2), lot("b", 9, leased=1), leases=lease("j", a=2, b=1)),
        settlement(3, part("x", 3)),
        [],
        [part("a", 3)],
        0,
    ),
    "quarantine asks for its hold and writes nothing off": (
        account(lot("a", 5, leased=3), leases=lease("j", a=3)),
        settlement(0, part("a", 9), quarantine="unpriced"),
        [part("a", 3)],
        [part("a", 2)],
        0,
    ),
}


@pytest.mark.parametrize(
    ("case", "charged", "own", "available", "written_off"), LATE.values(), ids=LATE.keys()
)
def test_M2_late_split(
    case: Account, charged: object, own: list[LotAmount], available: list[LotAmount], written_off: int
) -> None:
    split = late_split(case, "j", charged, NOW_MS)  # type: ignore[arg-type]
    assert list(split.from_lease) == own
    assert list(split.from_available) == available
    assert split.written_off_pico == written_off
    assert split.split == merged((*own, *available))


@given(st.integers(0, 30), st.integers(0, 20), st.integers(0, 20), st.integers(0, 30), st.integers(0, 20))
def test_M2_late_split_takes_k_and_no_more(charge: int, own: int, free: int, take: int, claim: int) -> None:
    case = account(
        lot("a", own + free, leased=own),
        leases=lease("j", a=own),
        claims=[Claim("c", "credits", None, claim)],
    )
    split = late_split(case, "j", settlement(charge, part("a", take)), NOW_MS)
    taken = sum(one.amount_pico for one in split.split)
    assert taken == min(charge, own + max(0, free - claim))
    assert taken + split.written_off_pico == charge
    assert sum(one.amount_pico for one in split.from_lease) <= own
    assert rows_of(settlement(charge), split.split, split.written_off_pico, NOW_MS)


def test_M2_the_late_path_takes_nothing_where_claims_exceed_what_is_there() -> None:
    case = account(
        lot("a", 2), lot("r", 10, pool=REF), claims=[Claim("debt", "credits", None, 20)]
    )  # 8 are missing to the claim, though the other pool has money
    split = late_split(case, "j", settlement(5), NOW_MS)
    assert (split.split, split.written_off_pico) == ((), 5)


def test_M2_the_late_path_takes_the_last_pico_of_its_own_lease() -> None:
    case = account(lot("a", 1, leased=1), leases=lease("j", a=1))
    split = late_split(case, "j", settlement(5), NOW_MS)
    assert (split.from_lease, split.from_available, split.written_off_pico) == ((part("a", 1),), (), 4)


MIXED = account(
    lot("gone", 5, expires=PAST_MS),
    lot("soon", 5, leased=2, expires=SOON_MS),
    lot("later", 5, expires=LATER_MS),
    lot("n", 5, pool="creditsNew"),
    claims=[Claim("mine", "credits", None, 1), Claim("other", "credits", "later", 2)],
)
EVENTS = {
    "credit": (row("earned_purchase", 9, part("x", 9)), (part("x", 9),)),
    "zero": (row("adjustment", 0), ()),
    "debit, earliest first, claims spared": (row("transfer_out", -4), (part("soon", 3), part("later", 1))),
    "debit of everything free": (row("transfer_out", -5), (part("soon", 3), part("later", 2))),
    "SHORT by another's claim": (row("transfer_out", -6), None),
    "hole 51: its own claim does not block the collector": (
        row("transfer_out", -6, reference="mine"),
        (part("soon", 3), part("later", 3)),
    ),
    "named lot": (row("refund", -3, part("soon", -3)), (part("soon", 3),)),
    "hole 51: nor does a younger one on a lot": (
        row("transfer_out", -8, reference="mine"),
        (part("soon", 3), part("later", 5)),
    ),
    "hole 51: named lots, its own claim and younger ones do not block the collector": (
        row("refund", -6, part("soon", -3), part("later", -3), reference="mine"),
        (part("soon", 3), part("later", 3)),
    ),
    "named lot, positive spelling": (row("refund", -3, part("soon", 3)), (part("soon", 3),)),
    "hole 16: leased money is not refunded": (row("refund", -4, part("soon", -4)), None),
    "named expired lot": (row("expired", -5, part("gone", -5)), (part("gone", 5),)),
    "unknown lot": (row("refund", -1, part("x", -1)), None),
}


@pytest.mark.parametrize(("event", "plan"), EVENTS.values(), ids=EVENTS.keys())
def test_M2_plan_event(event: Transaction, plan: tuple[LotAmount, ...] | None) -> None:
    assert plan_event(MIXED, event, NOW_MS) == plan


@pytest.mark.parametrize(
    "bad",
    [
        row("earned_purchase", 9),
        row("earned_purchase", 1),
        row("earned_purchase", 9, part("x", 8)),
        row("refund", -9, part("x", -8)),
        row("earned_purchase", 9, part("x", 9, "creditsNew")),
    ],
)
def test_M1_an_event_of_impossible_shape_is_an_error(bad: Transaction) -> None:
    with pytest.raises(InvariantBrokenError, match="M1"):
        plan_event(MIXED, bad, NOW_MS)


def test_hole_18_a_sweep_takes_what_is_not_leased_of_expired_lots() -> None:
    case = account(
        lot("a", 5, leased=2, expires=PAST_MS),
        lot("b", 5, leased=5, expires=PAST_MS),
        lot("c", 5, expires=SOON_MS),
        lot("d", 5),
    )
    assert expired_parts(case, NOW_MS) == (part("a", 3),)
    assert [(one.id, one.amount_pico, one.lots) for one in expiry_rows(case, NOW_MS)] == [
        ("alice:expired:a:7:credits", -3, (part("a", -3),))
    ]
    assert [(one.cause, one.created_ms) for one in expiry_rows(case, NOW_MS)] == [("expiry", NOW_MS)]


def test_merged_adds_up_and_drops_zeros() -> None:
    assert merged([part("a", 1), part("b", 0), part("a", 2)]) == (part("a", 3),)
