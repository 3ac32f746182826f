"""Each way in which a user's money may not add up is found and named (M1, M2, M4)."""

from dataclasses import replace

import pytest

from farebox.base.records import Account, Transaction
from farebox.ledger.conservation import differences, findings
from ledger.accounts import account, lease, lot, part, row

GOOD = account(
    lot("a", 10, leased=6),
    lot("n", 4, leased=1, pool="creditsNew"),
    leases={**lease("j", a=3, emptied=0), **lease("k", a=1, n=1)},
    reserved={"e9": {"a": 2}},
)
ROWS = [
    row("earned_purchase", 15, part("a", 15)),
    row("spent", -5, part("a", -5), reference="e1"),
    row("earned_purchase", 4, part("n", 4), pool="creditsNew"),
]


def test_M1_M2_nothing_to_say_when_all_adds_up() -> None:
    assert differences(GOOD, ROWS) == []
    assert differences(GOOD, iter(ROWS)) == []


def _with_lot(index: int, **changes: object) -> Account:
    lots = list(GOOD.lots)
    lots[index] = replace(lots[index], **changes)  # type: ignore[arg-type]
    return replace(GOOD, lots=tuple(lots))


BAD = {
    "a row is missing": (GOOD, ROWS[:1], ["sum of rows 15", "sum of rows 0"]),
    "a row is there twice": (GOOD, [*ROWS, ROWS[1]], ["M4 row alice:spent:e1:credits", "sum of rows 5"]),
    "a row of another user": (GOOD, [*ROWS, replace(row("adjustment", 0), user="bob")], ["another user"]),
    "a row of a pool without balance": (
        GOOD,
        [*ROWS, row("adjustment", 3, pool="refCredits")],
        ["sum of rows 3"],
    ),
    "the balance was changed": (
        replace(GOOD, balances={"credits": 11, "creditsNew": 4}),
        ROWS,
        ["sum of rows", "sum of lots", "shadow"],
    ),
    "a lot has other money": (_with_lot(0, left_pico=9), ROWS, ["sum of lots 9"]),
    "written from outside": (replace(GOOD, seen={"credits": 9, "creditsNew": 4}), ROWS, ["shadow 9"]),
    "leased does not match": (_with_lot(0, leased_pico=5), ROWS, ["leased 5, in leases and reserved 6"]),
    "hole 54: reserved money handed out again": (
        replace(GOOD, reserved={}),
        ROWS,
        ["in leases and reserved 4"],
    ),
    "a lease of a lot that is not there": (
        replace(GOOD, leases={**GOOD.leases, **lease("l", x=1)}),
        ROWS,
        ["lot x: 1 leased of a lot that does not exist"],
    ),
    "a negative lease": (
        replace(GOOD, leases={**lease("j", a=5), **lease("k", a=-1, n=1)}),
        ROWS,
        ["lease of k: lot a -1"],
    ),
    "a negative reservation": (
        replace(GOOD, leases={**lease("j", a=8), **lease("k", n=1)}, reserved={"e9": {"a": -2}}),
        ROWS,
        ["reserved by e9: lot a -2"],
    ),
    "leased above left": (
        replace(_with_lot(0, leased_pico=11), leases={**lease("j", a=8), **lease("k", a=1, n=1)}),
        ROWS,
        ["left 10, leased 11"],
    ),
    "leased below nothing": (
        replace(_with_lot(0, leased_pico=-1), leases={**lease("k", a=-3, n=1)}),
        ROWS,
        ["left 10, leased -1", "lot a -3"],
    ),
    "a balance below zero": (
        account(lot("a", -1)),
        [row("adjustment", -1)],
        ["credits: balance -1", "left -1"],
    ),
}


@pytest.mark.parametrize(("case", "rows", "expected"), BAD.values(), ids=BAD.keys())
def test_M1_M2_M4_differences_are_named(case: Account, rows: list[Transaction], expected: list[str]) -> None:
    found = differences(case, rows)
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert words in line


ALICE = {"user": "alice"}
OFF = {**ALICE, "pool": "credits", "balance": 11, "other": 10}
FINDINGS = {
    "all is well": (GOOD, []),
    "nothing leased": (account(lot("a", 10), lot("n", 4, pool="creditsNew")), []),
    "all leased": (
        account(lot("a", 10, leased=10), lot("n", 4, pool="creditsNew"), leases=lease("j", a=10)),
        [],
    ),
    "the balance was changed": (
        replace(GOOD, balances={"credits": 11, "creditsNew": 4}),
        [("rows", 1, OFF), ("lots", 1, OFF), ("shadow", 1, OFF)],
    ),
    "leased does not match": (
        _with_lot(0, leased_pico=5),
        [("leased", 1, {**ALICE, "lot": "a", "leased": 5, "held": 6})],
    ),
    "a lease of a lot that is not there": (
        replace(GOOD, leases={**GOOD.leases, **lease("l", x=-3)}),
        [("no lot", 3, {**ALICE, "lot": "x"}), ("below zero", 3, ALICE)],
    ),
    "leased above left": (
        replace(_with_lot(0, leased_pico=12), leases={**lease("j", a=9), **lease("k", a=1, n=1)}),
        [("below zero", 2, ALICE)],
    ),
    "leased below nothing": (
        replace(_with_lot(0, leased_pico=-1), leases={**lease("k", a=-3, n=1)}),
        [("below zero", 1, ALICE), ("below zero", 3, ALICE)],
    ),
    "a negative reservation": (
        replace(GOOD, leases={**lease("j", a=8), **lease("k", n=1)}, reserved={"e9": {"a": -2}}),
        [("below zero", 2, ALICE)],
    ),
}


@pytest.mark.parametrize(("case", "expected"), FINDINGS.values(), ids=FINDINGS.keys())
def test_M1_M2_a_finding_names_its_kind_the_money_in_question_and_where(
    case: Account, expected: list[tuple[str, int, dict[str, object]]]
) -> None:
    found = list(findings(case, {"credits": 10, "creditsNew": 4}))
    assert [(one.kind, one.delta_pico, one.values) for one in found] == expected
    assert all(one.text.endswith(": written from outside") == (one.kind == "shadow") for one in found)


def test_M2_a_balance_below_zero_is_in_question_as_far_as_it_is_below() -> None:
    found = list(findings(account(lot("a", -4)), {"credits": -4}))
    assert [(one.kind, one.delta_pico, one.values) for one in found] == [("below zero", 4, ALICE)] * 2
