"""Request logs and rollups: one row per exchange in the replaced system's words, and never in the way of
money.
"""

from datetime import UTC, datetime

NOW_DATE = datetime.fromtimestamp(1_760_000_000, UTC)


async def test_a_row_has_the_replaced_systems_names_and_ours(scene):
    record = scene.settlement(
        "alice", 27_405_000_000, flags=("cut",), variant="batch", others={"haiku": {"output": 1}}
    )
    assert await scene.store.log([record], {}) == []
    row = await scene.store.request_log(record.exchange)
    assert row == {
        "_id": record.exchange,
        "userId": "alice",
        "userKeyId": "digest",
        "model": "sonnet",
        "upstream": "main",
        "inputTokens": 1200,
        "outputTokens": 801,
        "cacheWriteTokens": 2000,
        "cacheHitTokens": 10000,
        "tokensUsed": 14001,
        "creditsCost": "0.027405",
        "creditType": "ohmygpt",
        "statusCode": 200,
        "latencyMs": 1500,
        "isSuccess": True,
        "createdAt": NOW_DATE,
        "upstreamModel": "sonnet-4",
        "upstreamRequestId": "req_1",
        "wireFormat": "messages",
        "charge": "0.027405",
        "ttftMs": 300,
        "outcome": "ok",
        "stream": True,
        "evidence": "exact",
        "priceVersion": 1,
        "multiplier": "1.05",
        "counts": record.counts,
        "flags": ["cut"],
        "others": {"haiku": {"output": 1}},
        "variant": "batch",
        "quarantine": "",
        "free": False,
        "rawUsage": record.raw_usage,
    }
    assert await scene.store.request_log("unknown") is None


async def test_failures_and_refusals_are_logged_too(scene):
    record = scene.settlement(
        "alice", 0, evidence="none", outcome="refused", status=402, counts={}, input_total=0, first_byte_ms=0
    )
    await scene.store.log([record], {})
    row = await scene.store.request_log(record.exchange)
    assert (row["statusCode"], row["isSuccess"], row["creditsCost"], row["ttftMs"]) == (402, False, "0", None)


async def test_M4_a_row_is_written_once(scene):
    record = scene.settlement("alice", 5)
    await scene.store.log([record], {})
    assert await scene.store.log([scene.settlement("alice", 9, exchange=record.exchange), record], {}) == []
    assert (await scene.store.request_log(record.exchange))["charge"] == "0.000000000005"


async def test_what_was_taken_stands_beside_the_charge(scene):
    record = scene.settlement("alice", 5 * scene.USD)
    await scene.store.log([record], {record.exchange: 2 * scene.USD})
    row = await scene.store.request_log(record.exchange)
    assert (row["charge"], row["creditsCost"]) == ("5", "2")


async def test_S10_a_row_that_cannot_be_stored_is_named_and_delays_no_other(scene):
    good, bad, also_good = scene.settlement("a", 1), scene.settlement("b", 2**63), scene.settlement("c", 3)
    assert await scene.store.log([good, bad, also_good], {}) == [bad.exchange]
    assert await scene.store.request_log(good.exchange)
    assert await scene.store.request_log(also_good.exchange)
    assert await scene.store.request_log(bad.exchange) is None


async def test_S10_rows_none_of_which_can_be_stored_are_named(scene):
    rows = [scene.settlement("alice", 2**63), scene.settlement("alice", 2**63)]
    assert sorted(await scene.store.log(rows, {})) == sorted(row.exchange for row in rows)
    assert await scene.store.request_logs("alice", 9) == []


async def test_M11_no_row_holds_a_key(scene):
    record = scene.settlement("alice", 1)
    await scene.store.log([record], {})
    assert "sk-" not in str(await scene.store.request_log(record.exchange))


async def test_a_users_rows_come_newest_first(scene):
    records = [scene.settlement("alice", 1, ended_ms=scene.NOW + number) for number in range(4)]
    await scene.store.log([*records, scene.settlement("bob", 1)], {})
    newest = await scene.store.request_logs("alice", 2)
    assert [row["_id"] for row in newest] == [records[3].exchange, records[2].exchange]
    older = await scene.store.request_logs("alice", 9, scene.NOW + 2)
    assert [row["_id"] for row in older] == [records[1].exchange, records[0].exchange]


async def test_old_rows_expire_oldest_first(scene):
    records = [scene.settlement("alice", 1, ended_ms=scene.NOW + number) for number in range(5)]
    await scene.store.log(records, {})
    assert await scene.store.expire_logs(scene.NOW + 3, 2) == 2
    assert await scene.store.expire_logs(scene.NOW + 3, 10) == 1
    assert await scene.store.expire_logs(scene.NOW + 3, 10) == 0
    assert [row["_id"] for row in await scene.store.request_logs("alice", 9)] == [
        records[4].exchange,
        records[3].exchange,
    ]


async def test_hole_27_rollups_are_added_once_per_position(scene, outside):
    await scene.journal()
    records = [
        scene.settlement("alice", 10),
        scene.settlement("alice", 20, status=502),
        scene.settlement("alice", 40, ended_ms=scene.NOW + 3_600_000),
        scene.settlement("alice", 99, quarantine="unpriced"),
    ]
    assert await scene.store.roll_up(scene.J, 1, records[:2], 0, 5)
    assert await scene.store.roll_up(scene.J, 1, records[:2], 0, 5)  # an answer that was lost
    assert not await scene.store.roll_up(scene.J, 1, records, 0, 7)  # and one that came late
    assert not await scene.store.roll_up(scene.J, 2, records[:2], 5, 9)
    assert await scene.store.roll_up(scene.J, 1, records[2:], 5, 7)
    assert await scene.store.roll_up(scene.J, 1, [], 7, 7)
    assert outside.rollups() == [(3, 1, 3 * 1200, 2400, 30), (1, 0, 1200, 800, 40)]
    assert (await scene.store.journal_states())[0].rolled == 7


async def test_what_follows_a_booking_is_the_same_in_one_call_as_in_three(scene, outside):
    await scene.journal()
    records = [scene.settlement("alice", 10), scene.settlement("alice", 20, status=502)]
    assert await scene.store.finish(scene.J, 1, records, {records[1].exchange: 5}, records, 0, 9, 7) == []
    assert await scene.store.finish(scene.J, 1, records, {}, records, 0, 9, 7) == []
    state = (await scene.store.journal_states())[0]
    assert (state.rolled, state.applied) == (9, 7)
    logged = [await scene.store.request_log(record.exchange) for record in records]
    assert [row["creditsCost"] for row in logged] == ["0.00000000001", "0.000000000005"]
    assert [(row[0], row[1], row[4]) for row in outside.rollups()] == [(2, 1, 30)]


async def test_hole_27_nothing_is_applied_that_is_not_rolled_up(scene, outside):
    await scene.journal()
    records = [scene.settlement("alice", 10), scene.settlement("alice", 20)]
    assert await scene.store.finish(scene.J, 1, records[:1], {}, records[:1], 0, 5, 5) == []
    assert await scene.store.finish(scene.J, 1, records, {}, records, 0, 9, 9) == []
    state = (await scene.store.journal_states())[0]
    assert (state.rolled, state.applied) == (5, 5)
    assert await scene.store.finish(scene.J, 1, records, {}, records[1:], 5, 9, 9) == []
    state = (await scene.store.journal_states())[0]
    assert (state.rolled, state.applied) == (9, 9)
    assert [(row[0], row[4]) for row in outside.rollups()] == [(2, 30)]


async def test_S10_a_log_row_that_cannot_be_stored_holds_up_no_mark(scene):
    await scene.journal()
    good, bad = scene.settlement("alice", 1), scene.settlement("bob", 2**63)
    assert await scene.store.finish(scene.J, 1, [good, bad], {}, [good], 0, 9, 9) == [bad.exchange]
    assert (await scene.store.journal_states())[0].applied == 9
    assert await scene.store.request_log(good.exchange)
