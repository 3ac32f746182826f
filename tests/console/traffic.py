"""A seeded past: exchanges of ours, imported rows of the replaced system, balances; and sums made by hand.

`Fact` is one exchange as plain numbers. `sums` adds facts up in one loop that knows nothing of cells, series
or quarters: the reference that every answer is compared with.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from farebox.base.records import LotAmount, Settlement, Transaction
from farebox.credits.legacy import old_log
from farebox.store.base import Event, EventResult, Store

USD = 10**12
HOUR = 3_600_000
DAY = 24 * HOUR
NOW = int(datetime(2026, 3, 10, 3, 7, 13, 123_000, tzinfo=UTC).timestamp() * 1000)
MIDNIGHT = int(datetime(2026, 3, 9, 17, 0, tzinfo=UTC).timestamp() * 1000)
"""00:00 of today in Asia/Ho_Chi_Minh, by hand."""
HANOI = timezone(timedelta(hours=7))
QUARTER = 900_000
JOURNALS = ("a" * 16, "b" * 16)
USERS = ("alice", "bob", "carol", "<b>dave</b>")
MODELS = ("sonnet", "gpt-5", "<script>alert(1)</script>")
BALANCES = {
    "alice": {"credits": 5 * USD, "refCredits": USD},
    "bob": {"creditsNew": 7 * USD + 1},
    "carol": {"credits_monthly": 3 * USD, "credits_permanent": 2 * USD},
}


@dataclass(frozen=True)
class Fact:
    """One exchange, in plain numbers."""

    at: int
    user: str
    model: str
    wallet: str
    status: int
    input: int
    output: int
    write: int
    read: int
    pico: int
    latency: int
    first_byte: int | None


def begins(period: str) -> int:
    """Where a period begins, by hand."""
    if period == "24h":
        return MIDNIGHT
    if period == "all":
        return 0
    hours = int(period[:-1]) * (24 if period.endswith("d") else 1)
    begin = NOW - hours * HOUR
    return begin - begin % QUARTER if period.endswith("d") else begin


def moments(chance: random.Random) -> list[int]:
    """Both sides of every beginning and of both neighbours' quarters, and many others."""
    edges = [begins(name) for name in ("1h", "2h", "3h", "4h", "8h", "24h", "3d", "7d", "30d")]
    edges += [edge + QUARTER - edge % QUARTER for edge in edges]
    found = [edge + off for edge in edges for off in (-1, 0, 1)]
    for reach in (HOUR, 8 * HOUR, DAY, 3 * DAY, 7 * DAY, 30 * DAY, 120 * DAY):
        found += [NOW - chance.randrange(reach) for _ in range(12)]
    return [*found, NOW]


def past(chance: random.Random) -> tuple[list[Settlement], list[dict[str, object]], list[Fact]]:
    """Settlements of ours, documents of the replaced system, and the facts of both."""
    settled: list[Settlement] = []
    old: list[dict[str, object]] = []
    facts: list[Fact] = []
    for number, at in enumerate(moments(chance)):
        wallet = chance.choice(("ohmygpt", "openhands", "subscription"))
        fact = Fact(
            at=at,
            user=chance.choice(USERS),
            model=chance.choice(MODELS),
            wallet=wallet,
            status=chance.choice((200, 200, 200, 502)),
            input=chance.randrange(3000),
            output=chance.randrange(900),
            write=chance.choice((0, chance.randrange(5000))),
            read=chance.choice((0, chance.randrange(90_000))),
            pico=chance.randrange(USD),
            latency=chance.randrange(60_000),
            first_byte=chance.choice((None, chance.randrange(1, 900))),
        )
        if number % 4 == 0:
            document, fact = old_document(number, fact)
            old.append(document)
        else:
            settled.append(settlement(number, fact))
        facts.append(fact)
    return settled, old, facts


def old_document(number: int, fact: Fact) -> tuple[dict[str, object], Fact]:
    """A row of the replaced system; every second one is older than `creditType`, and then is ohmygpt's."""
    with_type = number % 8 == 0
    wallet = ("openhands" if fact.wallet == "openhands" else "ohmygpt") if with_type else "ohmygpt"
    document: dict[str, object] = {
        "_id": f"old-{number}",
        "userId": fact.user,
        "userKeyId": "sk-old",
        "model": fact.model,
        "inputTokens": fact.input,
        "outputTokens": fact.output,
        "cacheWriteTokens": fact.write,
        "cacheHitTokens": fact.read,
        "tokensUsed": fact.input + fact.output + fact.write + fact.read,
        "creditsCost": fact.pico // 10**6 / 10**6,
        "statusCode": fact.status,
        "latencyMs": fact.latency,
        "createdAt": datetime.fromtimestamp(fact.at // 1000, UTC) + timedelta(milliseconds=fact.at % 1000),
    }
    if with_type:
        document["creditType"] = wallet
    changes = {"wallet": wallet, "pico": fact.pico // 10**6 * 10**6, "first_byte": None}
    return document, Fact(**{**fact.__dict__, **changes})


def settlement(number: int, fact: Fact) -> Settlement:
    """An exchange of ours."""
    counts = {"input": fact.input, "output": fact.output, "cache_read": fact.read}
    started = fact.at - fact.latency
    return Settlement(
        exchange=f"{number:032x}",
        user=fact.user,
        wallet=fact.wallet,
        key="digest",
        model=fact.model,
        wire_format="messages",
        price_version=1,
        multiplier="1",
        evidence="exact",
        flags=(),
        counts={**counts, "cache_write_5m": fact.write // 2, "cache_write_1h": fact.write - fact.write // 2},
        others={},
        input_total=fact.input + fact.read + fact.write,
        variant="",
        amount_pico=fact.pico,
        takes=(),
        quarantine="",
        outcome="ok" if fact.status == 200 else "upstream_error",
        status=fact.status,
        upstream="main",
        upstream_model=fact.model,
        upstream_request="",
        stream=True,
        started_ms=started,
        first_byte_ms=started + fact.first_byte if fact.first_byte else 0,
        ended_ms=fact.at,
    )


async def fill(store: Store, seed: int) -> list[Fact]:
    """Users, balances and the past, in a store; the facts of it."""
    for user in USERS:
        await store.create_user(user, "user", "test", NOW)
    for user, pools in BALANCES.items():
        for pool, amount in pools.items():
            part = LotAmount(f"{user}-{pool}".replace("_", "-"), pool, amount)
            row = Transaction(user, "earned_bonus", f"gift-{pool}", pool, amount, (part,), "test", NOW)
            assert await store.apply_event(Event((row,)), NOW) is EventResult.DONE
    settled, old, facts = past(random.Random(seed))
    rows = [old_log(document)[0] for document in old]
    assert await store.import_logs(rows) == set()
    assert await store.import_logs(rows) == {row.exchange for row in rows}
    for number, journal in enumerate(JOURNALS):
        await store.claim_epoch(journal, 1, "host", NOW)
        own = settled[number::2]
        for position, start in enumerate(range(0, len(own), 25), 1):
            batch = own[start : start + 25]
            for _ in range(2):
                assert (
                    await store.finish(journal, 1, batch, {}, batch, position - 1, position, position) == []
                )
    return facts


def within(facts: Iterable[Fact], begin: int, end: int | None = None) -> list[Fact]:
    """Facts from `begin` to before `end`."""
    return [fact for fact in facts if fact.at >= begin and (end is None or fact.at < end)]


def sums(facts: Iterable[Fact]) -> dict[str, int]:
    """Everything added up."""
    counted = "requests failures input output write read latency first_byte first_bytes"
    total = dict.fromkeys((*counted.split(), "ohmygpt", "openhands", "subscription"), 0)
    for fact in facts:
        total["requests"] += 1
        total["failures"] += fact.status != 200
        total["input"] += fact.input
        total["output"] += fact.output
        total["write"] += fact.write
        total["read"] += fact.read
        total["latency"] += fact.latency
        total["first_byte"] += fact.first_byte or 0
        total["first_bytes"] += fact.first_byte is not None
        total[fact.wallet] += fact.pico
    return total
