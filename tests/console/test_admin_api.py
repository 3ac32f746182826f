"""The administration's and the users' API: its numbers equal sums by hand, in the replaced system's words;
every list has pages; a write is done once; and the OpenAPI document says what is there.
"""

import dataclasses
import json
import socket
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from aiohttp import ClientSession

from console.traffic import BALANCES, DAY, HANOI, MIDNIGHT, NOW, USERS, begins, sums, within
from console.traffic import fill as fill_past
from credits.desk import Desk, console_of, start_console
from farebox.base.errors import StoreDownError
from farebox.base.units import usd_from_pico
from farebox.console import server
from farebox.console.periods import PERIODS
from farebox.console.server import ROUTES
from farebox.credits.accounts import create_key
from farebox.credits.admins import create_admin

SEED = 7


@pytest.fixture
async def desk(store, tmp_path, monkeypatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(server, "wall_ms", lambda: NOW)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    console = dataclasses.replace(console_of(store, tmp_path), zone=HANOI)
    close = await start_console(console, "127.0.0.1", port)
    async with ClientSession() as client:
        desk = Desk(store, f"http://127.0.0.1:{port}", client)
        for role in ("admin", "read-only"):
            desk.tokens[role] = (await create_admin(store, f"eve-{role}", role, None, "test", NOW)).token
        yield desk
    await close()


async def exact(desk: Desk, path: str, role: str = "read-only"):
    """An answer with its numbers as they are written."""
    headers = {"Authorization": f"Bearer {desk.tokens[role]}"}
    async with desk.client.get(desk.url + path, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return json.loads(await answer.text(), parse_float=Decimal)


def money(amount_pico: int) -> tuple[Decimal, str]:
    return Decimal(amount_pico) / 10**12, usd_from_pico(amount_pico)


def amount(document, name: str):
    return document[name], document[f"{name}_usd"]


def total(pool: str) -> int:
    return sum(pools.get(pool, 0) for pools in BALANCES.values())


async def test_every_card_and_endpoint_equals_sums_by_hand(desk):
    facts = await fill_past(desk.store, SEED)
    desk.tokens["user"] = (await create_key(desk.store, "alice", "k", "test", NOW)).key
    span = "from=2026-03-07&to=2026-03-08"
    asked = {f"period={name}": (begins(name), None) for name in PERIODS}
    asked[span] = (MIDNIGHT - 3 * DAY, MIDNIGHT - DAY)
    for query, (begin, end) in asked.items():
        there = within(facts, begin, end)
        by_hand = sums(there)
        cards = await exact(desk, f"/admin/user-stats?{query}")
        assert amount(cards, "total_credits") == money(total("credits"))
        assert amount(cards, "total_ref_credits") == money(total("refCredits"))
        assert amount(cards, "total_creditsNew") == money(total("creditsNew"))
        assert amount(cards, "total_credits_used") == money(by_hand["ohmygpt"])
        assert amount(cards, "total_creditsNewUsed") == money(by_hand["openhands"])
        assert cards["total_subscription_usd"] == "5"
        assert cards["total_subscription_used_usd"] == usd_from_pico(by_hand["subscription"])
        assert cards["total_used_usd"] == usd_from_pico(sum(fact.pico for fact in there))
        assert cards["total_input_tokens"] == by_hand["input"]
        assert cards["total_output_tokens"] == by_hand["output"]
        assert (cards["total_users"], cards["active_users"]) == (
            len(USERS),
            len({fact.user for fact in there}),
        )
        assert (cards["from_ms"], cards["to_ms"]) == (begin, end)

        models = (await exact(desk, f"/admin/model-stats?{query}"))["models"]
        assert {one["model"] for one in models} == {fact.model for fact in there}
        for one in models:
            check_used(one, [fact for fact in there if fact.model == one["model"]])
        ranks = [one["totalTokens"] for one in models]
        assert ranks == sorted(ranks, reverse=True)

        numbers = await exact(desk, f"/admin/metrics?{query}")
        assert numbers["total_requests"] == by_hand["requests"]
        assert numbers["tokens_used"] == sum(by_hand[kind] for kind in ("input", "output", "write", "read"))
        assert abs(numbers["avg_latency_ms"] * len(there) - by_hand["latency"]) <= len(there) / 2
        percent = Decimal(100 * (len(there) - by_hand["failures"])) / len(there)
        assert 0 <= percent - numbers["success_rate"] < Decimal("0.01")

        spenders = (await exact(desk, f"/api/admin/spenders?{query}"))["users"]
        for one in spenders:
            check_used(one, [fact for fact in there if fact.user == one["user"]])
        points = (await exact(desk, f"/api/admin/series?{query}"))["points"]
        assert sum(point["requestCount"] for point in points) == len(there)
        own = [fact for fact in there if fact.user == "alice"]
        check_used((await exact(desk, f"/api/usage?{query}", "user"))["usage"], own)
        check_used((await exact(desk, f"/api/admin/users/alice/usage?{query}"))["usage"], own)
        mine = (await exact(desk, f"/api/usage/models?{query}", "user"))["models"]
        assert {one["model"] for one in mine} == {fact.model for fact in own}


def check_used(one, facts) -> None:
    by_hand = sums(facts)
    names = {"inputTokens": "input", "outputTokens": "output"}
    names |= {"cacheWriteTokens": "write", "cacheHitTokens": "read"}
    for name, kind in names.items():
        assert one[name] == by_hand[kind]
    assert one["totalTokens"] == sum(one[name] for name in names)
    assert one["requestCount"] == by_hand["requests"]
    assert amount(one, "creditsBurned") == money(sum(fact.pico for fact in facts))
    for wallet in ("ohmygpt", "openhands", "subscription"):
        assert one[f"{wallet}_usd"] == usd_from_pico(by_hand[wallet])


async def pages(desk: Desk, path: str, name: str, cursor: str, limit: int, role: str = "admin") -> list:
    """Every row of a list, page by page."""
    found, place = [], ""
    for _ in range(200):
        join = "&" if "?" in path else "?"
        document = await desk.get(
            f"{path}{join}limit={limit}" + (f"&{cursor}={place}" if place else ""), role
        )
        assert len(document[name]) <= limit
        found += document[name]
        if document["next"] is None:
            return found
        place = document["next"]
    raise AssertionError("a list without an end")


async def test_the_request_log_is_searched_in_pages(desk, monkeypatch):
    facts = await fill_past(desk.store, SEED)
    monkeypatch.setattr(server.limits, "log_rows_searched_max", 11)
    rows = await pages(desk, "/api/admin/logs", "logs", "before", 7)
    assert len({row["_id"] for row in rows}) == len(rows) == len(facts)
    assert [row["createdAt"] for row in rows] == sorted((row["createdAt"] for row in rows), reverse=True)
    assert sum(Decimal(row["creditsCost_usd"]) for row in rows) == money(sum(f.pico for f in facts))[0]
    for query, fits in {
        "user=bob": lambda fact: fact.user == "bob",
        "model=sonnet": lambda fact: fact.model == "sonnet",
        "wallet=ohmygpt": lambda fact: fact.wallet == "ohmygpt",
        "failed=true": lambda fact: fact.status != 200,
        "failed=false&user=alice": lambda fact: fact.status == 200 and fact.user == "alice",
        "outcome=upstream_error": lambda fact: fact.status != 200 and fact.first_byte != -1,
        "period=24h": lambda fact: fact.at >= MIDNIGHT,
        "from=2026-03-07&to=2026-03-08": lambda fact: MIDNIGHT - 3 * DAY <= fact.at < MIDNIGHT - DAY,
    }.items():
        found = await pages(desk, f"/api/admin/logs?{query}", "logs", "before", 7)
        expected = sum(map(fits, facts))
        if query.startswith("outcome"):
            assert 0 < len(found) <= expected
        else:
            assert len(found) == expected, query


async def test_users_are_listed_by_name_and_found_by_its_beginning(desk):
    await fill_past(desk.store, SEED)
    listed = await pages(desk, "/api/admin/users", "users", "after", 2)
    assert [one["username"] for one in listed] == sorted(USERS)
    alice = next(one for one in listed if one["username"] == "alice")
    assert (alice["credits"], alice["credits_usd"], alice["refCredits_usd"]) == (5, "5", "1")
    for begin, names in {"al": ["alice"], "alice": ["alice"], "x": [], "<": ["<b>dave</b>"]}.items():
        found = await desk.get(f"/api/admin/users?q={begin}")
        assert [one["username"] for one in found["users"]] == names
    assert (await desk.get("/api/admin/users/alice"))["keys"] == []
    assert (await desk.send("GET", "/api/admin/users/nobody", "admin"))[0] == 404


async def test_other_lists_have_pages_too(desk):
    for number in range(5):
        await desk.store.audit("somebody", "test.step", f"s{number}", {"n": number}, NOW + number)
    entries = await pages(desk, "/api/admin/audit?actor=somebody", "entries", "before", 2)
    assert [one["subject"] for one in entries] == ["s4", "s3", "s2", "s1", "s0"]
    about = await pages(desk, "/api/admin/audit?subject=s3", "entries", "before", 2)
    assert [one["details"] for one in about] == [{"n": 3}]
    for number in range(3):
        await desk.store.put_price_book({"n": number}, f"hash{number}", NOW)
    versions = await pages(desk, "/api/admin/prices", "versions", "before", 2)
    assert [one["version"] for one in versions] == [3, 2, 1]
    assert (await desk.get("/api/admin/prices/2"))["n"] == 1
    assert (await desk.send("GET", "/api/admin/prices/9", "admin"))[0] == 404
    for number, user in enumerate(("alice", "bob", "carol")):
        await desk.store.create_user(user, "user", "test", NOW)
        grant = {"pool": "credits", "amount": "3", "reason": "because"}
        await desk.post(f"/api/admin/users/{user}/grants", grant)
        journal = f"{number % 2:016x}"
        if number < 2:
            await desk.store.claim_epoch(journal, 1, "host", NOW)
        granted = await desk.store.grant(user, "ohmygpt", journal, 1, 0, 10**12, 10**12, NOW)
        assert granted.reason == ""
    leases = await pages(desk, "/api/admin/leases", "leases", "after", 1)
    assert [(one["user"], one["amount_usd"]) for one in leases] == [
        ("alice", "1"),
        ("carol", "1"),
        ("bob", "1"),
    ]
    writers = await pages(desk, "/api/admin/writers", "writers", "after", 1)
    assert [one["journal"] for one in writers] == [f"{number:016x}" for number in range(2)]
    assert await pages(desk, "/api/admin/parked", "parked", "before", 1) == []
    for number in range(3):
        await create_admin(desk.store, f"more-{number}", "support", None, "test", NOW + 1 + number // 2)
    tokens = await pages(desk, "/api/admin/tokens", "tokens", "before", 2)
    assert [one["name"] for one in tokens[:1]] == ["more-2"]
    assert sorted(one["name"] for one in tokens) == [
        "eve-admin",
        "eve-read-only",
        "more-0",
        "more-1",
        "more-2",
    ]


async def test_keys_have_pages_for_operators_and_for_their_owner(desk):
    await desk.store.create_user("alice", "user", "test", NOW)
    made = [
        await create_key(desk.store, "alice", f"k{number}", "test", NOW + number // 2) for number in range(5)
    ]
    desk.tokens["user"] = made[0].key
    by_age = sorted(enumerate(made), key=lambda one: (-(one[0] // 2), one[1].record.digest))
    expected = [one.record.label for _, one in by_age]
    for path, role in (("/api/admin/users/alice/keys", "admin"), ("/api/keys", "user")):
        for limit in (1, 2, 5):
            found = await pages(desk, path, "keys", "before", limit, role)
            assert [one["label"] for one in found] == expected
        assert (await desk.get(f"{path}?before=nobody-has-it", role))["keys"] == []
    document = await desk.get("/api/admin/users/alice")
    assert ([one["label"] for one in document["keys"]], document["next"]) == (expected, None)


async def test_pools_are_shown_to_admins_as_the_ledger_has_them(desk):
    await desk.store.create_user("alice", "user", "test", NOW)
    await desk.post("/api/admin/users/alice/grants", {"pool": "credits", "amount": "3", "reason": "because"})
    found = await desk.get("/api/admin/pools")
    assert (found["period"], found["pools"]["credits"]) == (
        "all",
        {
            "balance": "3",
            "spent_share": "",
            "types": {"earned_bonus": {"amount": "3", "transactions": 1, "users": 1}},
        },
    )
    before = await desk.get("/api/admin/pools?from=2020-01-01&to=2020-01-02")
    assert (before["pools"]["credits"]["balance"], before["pools"]["credits"]["types"]) == ("3", {})
    assert (await desk.send("GET", "/api/admin/pools", "read-only"))[0] == 403


async def test_a_key_is_made_once_per_idempotency_key_and_shown_once(desk):
    await desk.store.create_user("alice", "user", "test", NOW)
    await desk.store.create_user("bob", "user", "test", NOW)
    same = {"Idempotency-Key": "make-one-key"}
    made = await desk.post("/api/admin/users/alice/keys", {"label": "laptop"}, **same)
    again = await desk.post("/api/admin/users/alice/keys", {"label": "laptop"}, **same)
    assert made["key"].startswith("sk-trollllm-")
    other = {"label": "another wish"}
    for path, body in (("alice", other), ("bob", {"label": "laptop"})):
        status, document = await desk.send("POST", f"/api/admin/users/{path}/keys", "admin", body, **same)
        assert (status, document["error"]["code"]) == (409, "idempotency_key")
    assert "key" not in again
    assert again["repeated"]
    assert again["digest"] == made["digest"]
    assert len((await desk.get("/api/admin/users/alice/keys"))["keys"]) == 1

    desk.tokens["user"] = made["key"]
    fresh = await desk.post(f"/api/keys/{made['digest']}/rotate", {}, "user")
    assert (await desk.send("GET", "/api/keys", "user"))[0] == 401
    desk.tokens["user"] = fresh["key"]
    limited = {"requests_per_minute": 5, "allowed_models": ["sonnet"]}
    await desk.post(f"/api/keys/{fresh['digest']}/limits", limited, "user")
    keys = (await desk.get("/api/keys", "user"))["keys"]
    assert [(one["active"], one["allowed_models"]) for one in keys if one["digest"] == fresh["digest"]] == [
        (True, ["sonnet"])
    ]
    bobs = await desk.post("/api/admin/users/bob/keys", {"label": "his"})
    for action in ("rotate", "revoke"):
        assert (await desk.send("POST", f"/api/keys/{bobs['digest']}/{action}", "user", {}))[0] == 404
    await desk.post(f"/api/admin/keys/{bobs['digest']}/revoke", {})
    assert not (await desk.get("/api/admin/users/bob/keys"))["keys"][0]["active"]
    wrong = {"Idempotency-Key": "wrong-user-key"}
    for _ in range(2):
        assert (await desk.send("POST", "/api/admin/users/nobody/keys", "admin", {}, **wrong))[0] in {
            400,
            409,
        }


async def test_a_request_whose_end_is_not_known_is_not_done_twice(desk, monkeypatch):
    await desk.store.create_user("alice", "user", "test", NOW)
    same = {"Idempotency-Key": "make-one-key"}

    async def dies(*_: object) -> None:
        raise StoreDownError("gone")

    with monkeypatch.context() as patch:
        patch.setattr("farebox.console.once._keep", dies)
        assert (await desk.send("POST", "/api/admin/users/alice/keys", "admin", {}, **same))[0] == 503
    status, document = await desk.send("POST", "/api/admin/users/alice/keys", "admin", {}, **same)
    assert (status, document["error"]["code"]) == (409, "begun")


async def test_a_query_that_makes_no_sense_is_said_to(desk):
    for query in (
        "period=2d",
        "from=yesterday",
        "from=2026-03-08&to=2026-03-01",
        "period=1h&from=2026-03-01",
    ):
        status, document = await desk.send("GET", f"/admin/user-stats?{query}", "admin")
        assert (status, document["error"]["code"]) == (400, "invalid"), query
    for query in ("limit=0", "limit=100000", "failed=perhaps", "before=x", "before=\u00b2-1"):
        assert (await desk.send("GET", f"/api/admin/logs?{query}", "admin"))[0] in {400, 422}, query
    for path in ("/api/admin/audit", "/api/admin/prices"):
        for before in ("x", "\u00b2", "9" * 20, "-1"):
            assert (await desk.send("GET", f"{path}?before={before}", "admin"))[0] == 400, (path, before)
    assert (await desk.send("GET", "/api/admin/prices/\u00b2", "admin"))[0] == 404


async def test_the_openapi_document_says_what_is_there(desk):
    document = await desk.get("/api/openapi.json", "")
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert operation["summary"].endswith("."), route
        names = {one["name"] for one in operation["parameters"]}
        assert ("Idempotency-Key" in names) == (route.body is not None and route.keyed)
        assert ("requestBody" in operation) == (route.body is not None)
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) == len(ROUTES)
    named = {one["name"] for one in document["paths"]["/admin/user-stats"]["get"]["parameters"]}
    assert named == {"period", "from", "to"}
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in document["components"]["schemas"]
