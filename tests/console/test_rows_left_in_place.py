"""Rows of the replaced system in this very database: counted once, and their keys never shown."""

from datetime import UTC, datetime

from bson import ObjectId

from console.conftest import LOG_TTL_DAYS
from console.traffic import DAY, HANOI, NOW, fill, sums
from farebox.console.periods import named_period
from farebox.console.statistics import totals
from farebox.store.mongo import MongoStore
from farebox.store.statistics import LogQuery
from farebox.writer.sweep import adopt_request_logs

LEFT = 7


async def test_rows_the_replaced_system_left_are_counted_once(mongodb_url, mongodb_database, monkeypatch):
    store = MongoStore(mongodb_url, log_ttl_days=LOG_TTL_DAYS)
    await store.open()
    facts = await fill(store, 5)
    moment = datetime.fromtimestamp((NOW - 2 * DAY) // 1000, UTC)
    mongodb_database.request_logs.insert_many(
        [
            {
                "_id": ObjectId(),
                "userId": "alice",
                "userKeyId": "sk-trollllm-in-clear-text",
                "model": "sonnet",
                "inputTokens": 10,
                "outputTokens": 1,
                "creditsCost": 0.1 if number else float("nan"),
                "tokensUsed": 11,
                "statusCode": 200,
                "latencyMs": float("inf") if number else "slow",
                "isSuccess": True,
                "createdAt": moment,
                **({"creditType": "openhands"} if number == 1 else {}),
            }
            for number in range(LEFT)
        ]
    )
    monkeypatch.setattr("farebox.base.limits.import_logs_per_transaction_max", 3)
    for _ in range(2):
        await adopt_request_logs(store)
    by_hand = sums(facts)
    burned, found = await totals(store, named_period("all", NOW, HANOI))
    assert found.requests == len(facts) + LEFT
    assert burned.openhands_pico == by_hand["openhands"] + 10**11
    assert burned.ohmygpt_pico == by_hand["ohmygpt"] + (LEFT - 2) * 10**11
    assert found.input_tokens == by_hand["input"] + 10 * LEFT
    rows = (await store.search_logs(LogQuery(user="alice", model="sonnet", from_ms=NOW - 3 * DAY), 100)).rows
    left = [row for row in rows if row["outcome" if "outcome" in row else "_id"] == row["_id"]]
    assert len(left) == LEFT
    assert {row["creditType"] for row in left} == {"ohmygpt", "openhands"}
    assert "sk-" not in str(rows)
    await store.close()
