"""What a statistic reads on MongoDB does not grow with the number of exchanges, only with its cells;
the search in the request log looks at a bounded number of rows for a page. Counted by the server (`explain`).
"""

import itertools
from typing import Any

import pytest
from pymongo.monitoring import CommandListener, CommandStartedEvent

from console.conftest import LOG_TTL_DAYS
from console.traffic import DAY, HANOI, NOW, fill
from farebox.base import limits
from farebox.console import statistics
from farebox.console.periods import Period, named_period
from farebox.store.mongo import MongoStore
from farebox.store.statistics import LogQuery

MORE = 2000
SEARCHED = 100
PAGE = 10
SPANS: dict[str, tuple[Any, ...]] = {
    "user": ("", "alice"),
    "to_ms": (None, NOW - 4 * DAY),
    "before": (None, (NOW - 5 * DAY, MORE // 2)),
}
WANTED: dict[str, Any] = {"model": "nobody-has-it", "wallet": "ohmygpt", "outcome": "ok", "failed": True}
QUERIES = [
    LogQuery(**dict(zip(SPANS, values, strict=True)), **wanted)
    for values in itertools.product(*SPANS.values())
    for wanted in ({}, WANTED)
]
_READS = ("find", "aggregate")
_SESSION = ("lsid", "$clusterTime", "$db", "readConcern", "$readPreference", "txnNumber", "maxTimeMS")


class Reads(CommandListener):
    """Every read command, as it can be explained."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in _READS:
            self.commands.append({name: part for name, part in event.command.items() if name not in _SESSION})

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


def keys_examined(database: Any, command: dict[str, Any]) -> int:
    explained = database.command("explain", command, verbosity="executionStats")
    plan = explained if "executionStats" in explained else explained["stages"][0]["$cursor"]
    assert "COLLSCAN" not in str(plan), command
    return plan["executionStats"]["totalKeysExamined"]


def index_of(database: Any, command: dict[str, Any]) -> dict[str, int]:
    """The index a search walks in its own order, so that it ends at its limit.

    Not the keys examined: the server of the tests counts every key of the range, whatever the limit.
    """
    plan = database.command("explain", command, verbosity="queryPlanner")["queryPlanner"]["winningPlan"]
    while "keyPattern" not in plan:
        plan = plan["inputStage"]
    return plan["keyPattern"]


async def asked(store: MongoStore, reads: Reads, database: Any, period: Period) -> dict[str, int]:
    """Statistic -> keys examined for it. The balances of all users are one pass over the users, left out."""
    calls = {
        "totals": lambda: statistics.totals(store, period),
        "own totals": lambda: statistics.totals(store, period, "alice"),
        "models": lambda: statistics.model_usage(store, period),
        "active": lambda: statistics.active_users(store, period),
        "spenders": lambda: statistics.spenders(store, period, 10),
        "series": lambda: statistics.time_series(store, period, NOW, HANOI),
        "own series": lambda: statistics.time_series(store, period, NOW, HANOI, "alice"),
    }
    found: dict[str, int] = {}
    for name, call in calls.items():
        reads.commands.clear()
        await call()
        assert 0 < len(reads.commands) <= 6, name
        found[name] = sum(keys_examined(database, command) for command in list(reads.commands))
    return found


@pytest.fixture
def reads() -> Reads:
    return Reads()


async def test_what_is_read_does_not_grow_with_the_exchanges(
    mongodb_url, mongodb_database, reads, monkeypatch
):
    store = MongoStore(mongodb_url, listeners=[reads], log_ttl_days=LOG_TTL_DAYS)
    await store.open()
    facts = await fill(store, 8)
    periods = [named_period(name, NOW, HANOI) for name in ("1h", "24h", "30d", "all")]
    before = {period.name: await asked(store, reads, mongodb_database, period) for period in periods}
    template = mongodb_database.request_logs.find_one({"userId": "alice"})
    away = template["createdAt"].__class__.fromtimestamp((NOW - 5 * DAY) / 1000)
    mongodb_database.request_logs.insert_many(
        [{**template, "_id": f"more-{n}", "createdAt": away, "sequence": n} for n in range(MORE)]
    )
    after = {period.name: await asked(store, reads, mongodb_database, period) for period in periods}
    assert after == before
    assert max(max(found.values()) for found in before.values()) < 10 * len(facts)

    monkeypatch.setattr(limits, "log_rows_searched_max", SEARCHED)
    for query in QUERIES:
        reads.commands.clear()
        await store.search_logs(query, PAGE)
        assert len(reads.commands) == 2
        by = {"userId": 1} if query.user else {}
        for command in list(reads.commands):
            index = index_of(mongodb_database, command)
            assert list(index.items()) == list({**by, **command["sort"]}.items()), query
            assert command["limit"] + command.get("skip", 0) in {SEARCHED, PAGE + 1}
    await store.close()
