"""Money that providers really charged comes out exactly, from each row's own counts and prices.

The rule, read off the rows: `recomputed_usd` is the exact sum of count x price plus server tool calls at
their published fee, and `reported_usd` is that sum rounded half to even to the decimals the provider reports
(xAI 10, OpenRouter up to 19). The charge is the same sum rounded half to even to the pico. A price marked
"(1h)" is the one-hour write price.
"""

import json
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any

import pytest

import needs
from farebox.meter import Price

EXACT = Context(prec=80)
XAI_TOOL_CALL_USD = "0.005"


def rows() -> list[dict[str, Any]]:
    path: Path = needs.shared_directory() / "corpus" / "cost_vectors.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def price_lines(row: dict[str, Any]) -> dict[str, str]:
    read_usd, write_usd = row["prices_per_mtok"][1:3]
    write_kind = "cache_write_1h" if write_usd.endswith("(1h)") else "cache_write_5m"
    return {
        "input": row["prices_per_mtok"][0],
        "cache_read": read_usd,
        write_kind: write_usd.removesuffix(" (1h)"),
        "output": row["prices_per_mtok"][3],
        "web_search": XAI_TOOL_CALL_USD,
    }


def counts(row: dict[str, Any]) -> dict[str, int]:
    write_kind = "cache_write_1h" if row.get("cache_write_1h") else "cache_write_5m"
    return {
        "input": row["uncached_input"],
        "cache_read": row["cache_read"] or 0,
        write_kind: row["cache_write"] or 0,
        "output": row["output"],
        "web_search": row.get("server_tool_calls") or 0,
    }


def exact_usd(lines: list[tuple[str, int, str, str]]) -> Decimal:
    total = Decimal(0)
    for line in lines:
        total = EXACT.add(total, Decimal(line[3]))
    return total


def rounded(value: Decimal, like: str) -> Decimal:
    quantum = Decimal((0, (1,), Decimal(like).as_tuple().exponent))  # type: ignore[arg-type]
    return value.quantize(quantum, rounding=ROUND_HALF_EVEN, context=EXACT)


def test_every_matching_row_reproduces_exactly() -> None:
    checked = 0
    for row in rows():
        if not row.get("match"):
            continue
        charge = Price(price_lines(row)).charge(counts(row), 0)
        exact = exact_usd(charge.lines)
        assert charge.missing == []
        assert exact == Decimal(row["recomputed_usd"]), row
        assert rounded(exact, row["reported_usd"]) == Decimal(row["reported_usd"]), row
        assert charge.amount_pico == int(rounded(exact, "0.000000000001").scaleb(12, context=EXACT)), row
        checked += 1
    assert checked >= 90


def test_a_row_that_cannot_match_does_not() -> None:
    mismatches = [row for row in rows() if row.get("match") is False]
    assert mismatches
    for row in mismatches:
        charge = Price(price_lines(row)).charge(counts(row), 0)
        assert exact_usd(charge.lines) != Decimal(row["reported_usd"])


@pytest.mark.parametrize(
    ("lines", "multiplier", "used", "amount_pico"),
    [
        (
            {"input": "3", "output": "15", "cache_write_5m": "3.75", "cache_read": "0.3"},
            "1.05",
            {"input": 1200, "output": 800, "cache_write_5m": 2000, "cache_read": 10_000},
            27_405_000_000,
        ),
        ({"input": "5", "output": "25"}, "1.15", {"input": 1000, "output": 500}, 20_125_000_000),
        ({"input": "1", "output": "5"}, "1.1", {"input": 10**6, "output": 10**6}, 6_600_000_000_000),
        (
            {"input": "3.30", "output": "16.50", "cache_write_5m": "4.13", "cache_read": "0.33"},
            "1.05",
            {"input": 0, "output": 1048, "cache_write_5m": 1558, "cache_read": 62_745},
            46_654_009_500,
        ),
    ],
)
def test_golden_charges(
    lines: dict[str, str], multiplier: str, used: dict[str, int], amount_pico: int
) -> None:
    assert Price(lines, multiplier).charge(used, sum(used.values())).amount_pico == amount_pico
