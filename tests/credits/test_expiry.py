"""Expiry as data: swept once by any number of sweepers, never a top-up; no hold on what has ended (E3)."""

import asyncio

import pytest

from credits.shop import DAY
from farebox.base.units import pico_from_usd
from farebox.writer.sweep import sweep_expired_lots

pytestmark = pytest.mark.usefixtures("sound")


async def test_E3_many_sweepers_and_a_purchase_at_once_take_what_ended_and_nothing_else(shop):
    await shop.pays(await shop.order("20"))
    order = await shop.order("30")
    shop.now += 7 * DAY
    late = shop.payment(order, at_ms=order.created_ms)
    sweeps = [sweep_expired_lots(shop.store, shop.now) for _ in range(5)]
    told = shop.pays(order, payment=late.payment, at_ms=late.at_ms)
    *swept, outcome = await asyncio.gather(*sweeps, told)
    assert outcome.word == "credited"
    assert sum(swept) <= 1
    rows = await shop.rows()
    assert sorted(rows) == [
        ("earned_purchase", "creditsNew", "20"),
        ("earned_purchase", "creditsNew", "30"),
        ("expired", "creditsNew", "-20"),
    ]
    assert await sweep_expired_lots(shop.store, shop.now) == 0
    assert await shop.balance() == "30"


async def test_E4_each_pool_ends_by_its_own_date_without_any_sweep(shop):
    shop.opens_with(pool="credits")
    await shop.pays(await shop.order("20"))
    shop.now += DAY
    shop.opens_with()
    await shop.pays(await shop.order("30"))
    shop.now += 6 * DAY
    await shop.store.claim_epoch("a" * 16, 1, "host", shop.now)
    fenced = await shop.store.fence("alice", "a" * 16, 1, [], shop.now)
    ended = await shop.store.grant("alice", "ohmygpt", "a" * 16, 1, fenced.op, 1, 1, shop.now)
    assert (ended.reason, ended.remaining_pico) == ("expired", 0)
    lasting = await shop.store.grant("alice", "openhands", "a" * 16, 1, fenced.op, 1, 1, shop.now)
    assert (lasting.reason, lasting.remaining_pico) == ("", pico_from_usd("30"))


async def test_hole_18_what_exchanges_hold_of_an_ended_lot_is_swept_when_it_comes_back(shop):
    await shop.pays(await shop.order("20"))
    await shop.lease("5")
    shop.now += 7 * DAY
    assert await sweep_expired_lots(shop.store, shop.now) == 1
    assert await shop.balance() == "5"
    journal, grant = shop.leased
    await shop.store.give_back("alice", journal, 1, grant.op, [grant.added[0][0]], shop.now)
    assert await sweep_expired_lots(shop.store, shop.now) == 1
    assert [row[2] for row in await shop.rows()] == ["20", "-15", "-5"]
