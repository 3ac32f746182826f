"""Every number of every period equals sums made by hand, on both stores, old rows included; cells
and rows agree whatever a period begins with; and `all` outlives the request log.
"""

from dataclasses import replace
from datetime import timedelta, timezone

from console.traffic import (
    BALANCES,
    DAY,
    HANOI,
    JOURNALS,
    MIDNIGHT,
    NOW,
    USD,
    USERS,
    Fact,
    begins,
    fill,
    settlement,
    sums,
    within,
)
from farebox.base.records import LotAmount, Transaction
from farebox.console.periods import PERIODS, Period, named_period, period_of
from farebox.console.statistics import (
    Burned,
    active_users,
    model_usage,
    overview,
    spenders,
    time_series,
    totals,
)
from farebox.store.base import Event, EventResult
from farebox.store.rollups import Sums, together, usage_of
from farebox.store.sqlite import SQLiteStore

SEED = 6
SPANS = {
    "two days by date": ({"from": "2026-03-07", "to": "2026-03-08"}, MIDNIGHT - 3 * DAY, MIDNIGHT - DAY),
    "from a date on": ({"from": "2026-03-01"}, MIDNIGHT - 9 * DAY, None),
    "until a date": ({"to": "2026-03-08"}, 0, MIDNIGHT - DAY),
    "widened to quarters": (
        {"from": str(MIDNIGHT - DAY + 1), "to": "2026-03-09T00:00:01+07:00"},
        MIDNIGHT - DAY,
        MIDNIGHT - DAY + 900_000,
    ),
}


def plain(burned: Burned, found: Sums) -> dict[str, int]:
    """An answer in the words of the reference."""
    return {
        "requests": found.requests,
        "failures": found.failures,
        "input": found.input_tokens,
        "output": found.output_tokens,
        "write": found.cache_write_tokens,
        "read": found.cache_read_tokens,
        "latency": found.latency_ms,
        "first_byte": found.first_byte_ms,
        "first_bytes": found.first_bytes,
        "ohmygpt": burned.ohmygpt_pico,
        "openhands": burned.openhands_pico,
        "subscription": burned.subscription_pico,
    }


async def check(store, facts, period: Period, begin: int, end: int | None) -> None:
    """Every statistic of one period."""
    there = within(facts, begin, end)
    cards = await overview(store, period)
    assert plain(cards.burned, cards.sums) == sums(there)
    assert cards.burned.total_pico == cards.sums.charge_pico == sum(fact.pico for fact in there)
    assert cards.active_users == len({fact.user for fact in there})
    assert cards.users == len(USERS)
    for pool, amount in cards.pools.items():
        assert amount == sum(pools.get(pool, 0) for pools in BALANCES.values())
    assert plain(*await totals(store, period)) == sums(there)

    models = await model_usage(store, period)
    assert {usage.model for usage in models} == {fact.model for fact in there}
    for usage in models:
        expected = sums(fact for fact in there if fact.model == usage.model)
        assert plain(usage.burned, usage.sums) == expected
        assert usage.total_tokens == sum(expected[kind] for kind in ("input", "output", "write", "read"))
    assert [usage.total_tokens for usage in models] == sorted(
        (usage.total_tokens for usage in models), reverse=True
    )

    listed = await spenders(store, period, 10)
    assert {usage.user for usage in listed} == {fact.user for fact in there}
    assert await active_users(store, period) == {fact.user for fact in there}
    for usage in listed:
        assert plain(usage.burned, usage.sums) == sums(fact for fact in there if fact.user == usage.user)
    for user in USERS:
        own = [fact for fact in there if fact.user == user]
        assert plain(*await totals(store, period, user)) == sums(own)
        assert {usage.model for usage in await model_usage(store, period, user)} == {
            fact.model for fact in own
        }
    for user, mine in (("", there), ("alice", [fact for fact in there if fact.user == "alice"])):
        points = await time_series(store, period, NOW, HANOI, user)
        ends = [*(point.start_ms for point in points[1:]), None]
        assert sum(point.sums.requests for point in points) == len(mine)
        for point, until in zip(points, ends, strict=False):
            first = 0 if point is points[0] else point.start_ms
            assert plain(point.burned, point.sums) == sums(within(mine, first, until))


async def test_every_statistic_of_every_period_equals_sums_by_hand(store):
    facts = await fill(store, SEED)
    for name in PERIODS:
        period = named_period(name, NOW, HANOI)
        assert (period.from_ms, period.to_ms) == (begins(name), None)
        await check(store, facts, period, begins(name), None)
    for query, begin, end in SPANS.values():
        await check(store, facts, period_of(query, NOW, HANOI), begin, end)

    totals_ = await store.series_totals()
    assert len(totals_) == 7
    for by_wallet in totals_.values():
        assert {wallet: pico for wallet, (_, pico) in by_wallet.items()} == {
            wallet: amount for wallet, amount in sums(facts).items() if wallet in by_wallet
        }
        assert sum(requests for requests, _ in by_wallet.values()) == len(facts)

    while await store.expire_logs(NOW - DAY, 100):
        pass
    assert await store.usages(0, NOW - DAY) == []
    for name in ("all", "30d", "24h", "8h"):
        await check(store, facts, named_period(name, NOW, HANOI), begins(name), None)


async def test_odd_rows_where_a_period_begins_are_counted_like_plain_ones(store):
    """Quarantined, with other models' counts, with escapes in a name: the compiled reader leaves these."""
    oddities = ({}, {"quarantine": "no price"}, {"others": {"tool": {"input": 7}}}, {"model": 'a\n"b"'})
    records = [
        replace(settlement(number, Fact(NOW, "alice", "m", "ohmygpt", 200, 1, 2, 0, 3, 5, 7, 1)), **oddity)
        for number, oddity in enumerate(oddities * 80)
    ]
    assert await store.log(records, {}) == []
    expected = together(usage_of(record) for record in records)
    found = await store.usages(NOW, NOW + 1)
    assert {usage._replace(ended_ms=0) for usage in found} == {
        usage._replace(ended_ms=0) for usage in expected
    }


async def test_another_time_zone_begins_its_day_elsewhere(tmp_path):
    store = SQLiteStore(tmp_path / "store.db")
    await store.open()
    facts = await fill(store, SEED)
    for offset in (timedelta(hours=5, minutes=45), timedelta(hours=-3.5), timedelta()):
        shift = int(offset.total_seconds() * 1000)
        midnight = NOW - (NOW + shift) % DAY
        await check(store, facts, named_period("24h", NOW, timezone(offset)), midnight, None)
    await store.close()


async def test_what_all_spent_and_have_may_be_more_than_63_bits_hold(store):
    """9.2 million USD: no user has as much, but all of them may."""
    huge = 9 * 10**6 * USD
    await store.claim_epoch(JOURNALS[0], 1, "host", NOW)
    facts = [Fact(NOW, f"user{n}", "m", "ohmygpt", 200, 1, 1, 0, 0, huge, 1, 1) for n in range(3)]
    records = [settlement(number, fact) for number, fact in enumerate(facts)]
    for number, record in enumerate(records, 1):
        day = replace(record, ended_ms=NOW - number * DAY)
        await store.roll_up(JOURNALS[0], 1, [day], number - 1, number)
        await store.create_user(record.user, "user", "test", NOW)
        part = LotAmount(f"gift{number}", "credits", huge)
        row = Transaction(record.user, "earned_bonus", "gift", "credits", huge, (part,), "test", NOW)
        assert await store.apply_event(Event((row,)), NOW) is EventResult.DONE
    cards = await overview(store, named_period("all", NOW, HANOI))
    assert cards.burned.ohmygpt_pico == cards.sums.charge_pico == cards.pools["credits"] == 3 * huge
    assert (await model_usage(store, named_period("30d", NOW, HANOI)))[0].burned.total_pico == 3 * huge
    assert sum(one.burned.total_pico for one in await spenders(store, named_period("7d", NOW, HANOI), 9)) == (
        3 * huge
    )
    assert {sums[1] for totals_ in (await store.series_totals()).values() for sums in totals_.values()} == {
        3 * huge
    }
