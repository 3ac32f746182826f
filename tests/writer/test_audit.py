"""Every charge recomputes from its own row, to the pico; what does not is named (M7)."""

import sqlite3
from collections.abc import Mapping
from typing import Any

import pytest

from farebox.base import limits
from farebox.meter import plain_models
from farebox.meter.price_book import new_price_book
from farebox.writer.audit import audit, recomputed_pico

USD = 10**12
SONNET = {"input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75"}
BOOK = new_price_book(
    {
        "model-1": {"lines": SONNET, "multiplier": "1.05", "variants": {"batch": {"input": "1.5"}}},
        "helper": {"lines": {"input": "1", "output": "5"}, "multiplier": "1.1"},
    },
    1,
    0,
)
GOLDEN = {"input": 1200, "output": 800, "cache_write_5m": 2000, "cache_read": 10_000}
GOLDEN_PICO = 27_405_000_000


async def put(world: Any, amount_pico: int, counts: Mapping[str, int], **changes: Any) -> Any:
    """One booked charge of alice."""
    if not world.lots:
        await world.user("alice", 10)
        await world.lease("alice", 9)
        document = {"models": plain_models(BOOK.models)}
        assert await world.store.put_price_book(document, BOOK.content_hash, world.NOW) == 1
    one = world.settlement("alice", amount_pico, counts=counts, **changes)
    await world.store.book(world.J, 1, [one], world.NOW)
    return one


async def test_M7_golden_charges_recompute(world: Any) -> None:
    await put(world, GOLDEN_PICO, GOLDEN)
    await put(world, GOLDEN_PICO + 6_600_000, GOLDEN, others={"helper": {"input": 1, "output": 1}})
    await put(world, 1_575_000_000, {"input": 1000}, variant="batch")
    await put(world, 0, {}, evidence="none", status=502)
    await put(world, 0, GOLDEN, free=True)
    heard: list[Any] = []
    report = await audit(world.store, lambda user, count: heard.append((user, count)))
    assert report.mismatches == []
    assert (report.users, report.charges, report.resolved, report.capped) == (1, 5, 0, 0)
    assert report.charged_pico == 2 * GOLDEN_PICO + 6_600_000 + 1_575_000_000
    assert report.lines()[-1] == "every charge is explained"
    assert report.to_plain()["clean"] is True
    assert heard == [("alice", 5)]


@pytest.mark.parametrize(
    ("amount_pico", "changes", "words"),
    [
        (GOLDEN_PICO + 1, {}, f"recomputed {GOLDEN_PICO} pico"),
        (GOLDEN_PICO, {"multiplier": "1.06"}, "multiplier 1.06"),
        (GOLDEN_PICO, {"price_version": 9}, "price book 9 is not in the store"),
        (GOLDEN_PICO, {"model": "unheard-of"}, "cannot be recomputed"),
        (GOLDEN_PICO, {"counts": {"image": 1}}, "no price for image"),
        (GOLDEN_PICO + 1, {"flags": ("capped_at_hold",)}, f"recomputed {GOLDEN_PICO} pico"),
    ],
)
async def test_M7_a_charge_that_does_not_come_out_is_named(
    world: Any, amount_pico: int, changes: Any, words: str
) -> None:
    await put(world, amount_pico, **{"counts": GOLDEN, **changes})
    report = await audit(world.store)
    assert len(report.mismatches) == 1
    assert words in report.mismatches[0]
    assert report.lines()[-1] == "MISMATCHES: 1"
    assert report.to_plain()["clean"] is False


async def test_estimates_cut_at_their_hold_and_amounts_of_an_operator_are_counted_apart(world: Any) -> None:
    await put(world, GOLDEN_PICO - 1, GOLDEN, flags=("capped_at_hold",), evidence="estimated")
    unsure = await put(world, 0, {"image": 1}, takes=(), quarantine="no price line for image")
    await world.store.resolve_parked(unsure.exchange, USD, "operator", world.NOW)
    report = await audit(world.store)
    assert report.mismatches == []
    assert (report.charges, report.resolved, report.capped) == (2, 1, 1)


async def test_a_price_book_that_was_changed_is_named(world: Any) -> None:
    await put(world, GOLDEN_PICO, GOLDEN)
    with sqlite3.connect(world.path) as connection:
        connection.execute("""UPDATE price_books SET book = replace(book, '"15"', '"16"')""")
    connection.close()
    assert "hash differs" in (await audit(world.store)).mismatches[0]


async def test_M10_mismatches_are_bounded_and_all_pages_are_read(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "findings_max", 2)
    monkeypatch.setattr(limits, "audit_page_rows", 2)
    for _ in range(5):
        await put(world, 7, GOLDEN)
    report = await audit(world.store)
    assert (report.charges, report.mismatches_total, len(report.mismatches)) == (5, 5, 2)


def test_models_that_served_a_part_are_priced_by_their_own_lines() -> None:
    charge = {
        "model": "model-1",
        "counts": {},
        "others": {"helper": {"input": 1_000_000, "output": 1_000_000}},
        "input_total": 0,
        "variant": "",
        "price_version": 1,
        "multiplier": "1.05",
        "free": False,
    }
    assert recomputed_pico(charge, BOOK) == 6_600_000_000_000


async def test_hole_26_a_charge_is_explained_after_its_request_log_has_gone(world: Any) -> None:
    one = await put(world, GOLDEN_PICO, GOLDEN)
    assert await world.store.log([one], {}) == []
    assert await world.store.expire_logs(world.NOW + 10**10, 9) == 1
    assert await world.store.request_log(one.exchange) is None
    report = await audit(world.store, lambda *_: None)
    assert (report.mismatches, report.charges) == ([], 1)
