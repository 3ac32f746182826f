"""Promise M5, M7, M8: every way an answer can end has one rule for what is owed, and no unknown is silently
zero.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from farebox.meter import model_price
from farebox.proxy.admission import Ask
from farebox.proxy.verdict import Ending, Verdict, unjudged, verdict_of

PRICE = model_price({"lines": {"input": "1", "output": "2", "cache_read": "0.5"}, "multiplier": "1"})
PER_CALL = model_price({"lines": {"input": "1", "output": "2", "call": "0.001"}, "multiplier": "1"})
IN, OUT = 10**6, 2 * 10**6
"""Pico-USD a token."""
ASK = Ask(100, 50, 50, 10**9, 30, "", False, 1, {})
OK = Ending(200, cut_by_us=False, cut_by_upstream=False)
UPSTREAM_CUT = Ending(200, cut_by_us=False, cut_by_upstream=True)
WE_CUT = Ending(200, cut_by_us=True, cut_by_upstream=False)


@dataclass
class Model:
    id: str = "m"
    priced_fields: dict[str, dict[str, str]] = field(default_factory=dict)
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    assumed_output_tokens: int = 100
    input_bytes_per_token: int = 1


@dataclass
class Read:
    """A reading; the compiled one cannot be made by hand."""

    usage: dict[str, object] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    input_total: int = 0
    other_models: dict[str, dict[str, int]] = field(default_factory=dict)
    complete: bool = True
    final: bool = True
    failed: bool = False
    flags: list[str] = field(default_factory=list)
    model: str | None = "m"
    response_id: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    raw: bytes = b"{}"
    output_bytes: int = 0


def used(**counts: int) -> Read:
    return Read(usage={}, counts=counts, input_total=counts.get("input", 0), output_bytes=40)


def judge(
    read: Read, ending: Ending = OK, price: Any = PRICE, others: Any = None, hold_pico: int = 10**9
) -> Verdict:
    known = others or {}
    return verdict_of(read, ending, ASK, Model(), price, known.get, hold_pico)  # type: ignore[arg-type]


def test_exact_usage_is_charged_as_reported_whatever_the_end() -> None:
    for ending in (OK, UPSTREAM_CUT, WE_CUT):
        verdict = judge(used(input=10, output=5), ending)
        assert (verdict.amount_pico, verdict.evidence) == (10 * IN + 5 * OUT, "exact")
    assert judge(used(input=10, output=5), hold_pico=1).amount_pico == 10 * IN + 5 * OUT


def test_a_fee_for_the_call_is_added_once() -> None:
    assert judge(used(input=10, output=5), price=PER_CALL).amount_pico == 10 * IN + 5 * OUT + 10**9


def test_U05_preliminary_usage_counts_at_least_what_was_delivered() -> None:
    read = used(input=10, output=1)
    read.final = False
    verdict = judge(read, UPSTREAM_CUT)
    assert (verdict.amount_pico, verdict.evidence) == (10 * IN + 10 * OUT, "partial")


def test_U30_final_usage_that_denies_delivered_text_is_not_believed() -> None:
    verdict = judge(used(input=10))
    assert (verdict.amount_pico, verdict.evidence, verdict.flags) == (
        10 * IN + 10 * OUT, "partial", ("output_missing",),
    )  # fmt: skip
    verdict = judge(used())
    assert (verdict.amount_pico, verdict.evidence, verdict.flags) == (
        30 * IN + 10 * OUT, "estimated", ("zero_usage",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("read", "ending", "owes"),
    [
        (Read(), Ending(500, cut_by_us=False, cut_by_upstream=False), False),
        (Read(output_bytes=9), Ending(302, cut_by_us=False, cut_by_upstream=False), False),
        (Read(failed=True), OK, False),
        (Read(), UPSTREAM_CUT, False),
        (Read(), WE_CUT, True),
        (Read(), OK, True),
        (Read(output_bytes=9, failed=True), OK, True),
        (Read(output_bytes=9), UPSTREAM_CUT, True),
    ],
)
def test_M5_only_an_upstream_that_failed_before_it_delivered_is_owed_nothing(
    read: Read, ending: Ending, owes: bool
) -> None:
    verdict = judge(read, ending)
    assert (verdict.amount_pico > 0) is owes
    assert verdict.evidence == ("estimated" if owes else "none")


def test_an_estimate_never_exceeds_its_hold() -> None:
    verdict = judge(Read(output_bytes=4000), hold_pico=77)
    assert (verdict.amount_pico, verdict.flags) == (77, ("capped_at_hold",))


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (used(input=2 * 10**9, output=1), "implausible count of input"),
        (used(input=1, output=1, web_search=1), "no price for web_search"),
    ],
)
def test_MONEY_9_what_cannot_be_priced_waits_for_an_operator(read: Read, why: str) -> None:
    verdict = judge(read)
    assert (verdict.amount_pico, verdict.quarantine) == (0, why)


def test_MONEY_9_an_estimate_without_a_price_waits_too() -> None:
    verdict = judge(Read(output_bytes=8), price=model_price({"lines": {"input": "1"}, "multiplier": "1"}))
    assert (verdict.amount_pico, verdict.quarantine) == (0, "no price for output")


def test_other_models_are_priced_by_their_own_rows_or_not_at_all() -> None:
    dear = model_price({"lines": {"input": "100", "output": "200"}, "multiplier": "1"})
    read = used(input=10, output=5)
    read.other_models = {"dear": {"input": 1, "output": 1}}
    assert judge(read, others={"dear": ("dear", dear)}).amount_pico == 10 * IN + 5 * OUT + 300 * 10**6
    assert judge(read).quarantine == "no price for tokens of model dear"
    read.other_models = {"dear": {"cache_read": 1}}
    assert judge(read, others={"dear": ("dear", dear)}).quarantine == "no price for cache_read of model dear"


def test_M5_without_any_verdict_an_operator_decides() -> None:
    verdict = unjudged(used(input=1))  # type: ignore[arg-type]
    assert verdict.quarantine
    assert verdict.amount_pico == 0
