"""Import: every balance and log arrives to the pico, once; what is damaged is named."""

import asyncio
import gzip
import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from credits.legacy_data import LegacyData, write_bson, write_dump
from farebox.base.errors import UsageError
from farebox.base.keys import key_digest
from farebox.config.plans import Plan
from farebox.credits.import_legacy import Import
from farebox.credits.import_report import ImportReport
from farebox.credits.subscriptions import PaidPeriod, grant_period, subscriptions_document
from farebox.ledger.conservation import differences
from farebox.ledger.opening import exact_pico
from farebox.store.base import EventResult, Store
from farebox.store.legacy import open_source
from farebox.writer.verify import verify

NOW = 1_770_000_000_000
STORES = ("sqlite",)
DATE = datetime(2026, 2, 2, tzinfo=UTC)


@pytest.fixture
def dump(tmp_path):
    """A function that writes collections into a dump folder."""
    folder = tmp_path / "dump" / "fproxy"
    folder.mkdir(parents=True)

    def write(**collections: list[dict[str, Any]]) -> str:
        for name, documents in collections.items():
            write_bson(folder / f"{name}.bson", iter(documents))
        return str(folder.parent)

    return write


async def run(store: Store | None, folder: str, *, dry_run: bool = False, **more: Any) -> ImportReport:
    source = open_source(folder)
    report = ImportReport(dry_run)
    await Import(store, source, report, NOW, **more).run()
    source.close()
    assert report.adds_up()
    return report


async def sound(store: Store) -> None:
    """M1 and M2 of every user."""
    async for account in store.accounts():
        found = await store.account_with_rows(account.user)
        assert found is not None
        assert differences(*found) == []


async def pools(store: Store, user: str) -> dict[str, int]:
    account = await store.account(user)
    assert account is not None
    return {pool: amount for pool, amount in account.balances.items() if amount}


async def test_M1_an_import_adds_up_to_an_independent_sum(store, tmp_path):
    sums = write_dump(tmp_path / "dump", LegacyData(1300, 7000))
    report = await run(store, str(tmp_path / "dump"))
    booked = dict.fromkeys(sums.pools, 0)
    async for account in store.accounts():
        for pool in booked:
            booked[pool] += account.balances[pool]
    assert booked == sums.pools
    assert {pool: found.booked for pool, found in report.pools.items()} == sums.pools
    logs, after = 0, ""
    while page := await store.logs_after(after, 1000):
        logs += sum(exact_pico(float(row["creditsCost"]))[0] for row in page)
        after = page[-1]["_id"]
    assert (logs, report.logs.booked) == (sums.logs, sums.logs)
    assert (report.counts["keys read"], report.problems) == (sums.keys, [])
    await sound(store)


async def test_M4_a_repeated_import_changes_nothing(store, tmp_path):
    sums = write_dump(tmp_path / "dump", LegacyData(40, 90))
    await run(store, str(tmp_path / "dump"))
    before = [await store.account_with_rows(a.user) async for a in store.accounts()]
    again = await run(store, str(tmp_path / "dump"))
    assert [await store.account_with_rows(a.user) async for a in store.accounts()] == before
    assert again.counts == {
        "users unchanged": 40,
        "keys read": sums.keys,
        "keys new": 0,
    }
    assert sum(found.booked for found in (*again.pools.values(), again.logs)) == 0
    assert again.logs.before == sums.logs


async def test_M4_an_interrupted_import_is_finished_by_the_next(store, tmp_path):
    sums = write_dump(tmp_path / "dump", LegacyData(1100, 30))

    def stop(collection: str, done: int, size: int) -> None:
        if done > 0.7 * size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await run(store, str(tmp_path / "dump"), on_progress=stop)
    report = await run(store, str(tmp_path / "dump"))
    assert report.counts["users unchanged"] == 500
    assert report.counts["users created"] == 600
    assert {pool: found.booked + found.before for pool, found in report.pools.items()} == sums.pools
    await sound(store)


async def test_a_dry_run_says_what_would_happen_and_changes_nothing(store, dump):
    folder = dump(usersNew=[{"_id": "alice", "credits": 5.5, "apiKey": "sk-trollllm-1"}])
    for opened in (store, None):
        report = await run(opened, folder, dry_run=True)
        assert (report.counts["users created"], report.pools["credits"].booked) == (1, 5_500_000_000_000)
    assert await store.account("alice") is None
    assert await store.key(key_digest("sk-trollllm-1")) is None


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (math.nan, "credits is nan"),
        (math.inf, "credits is inf"),
        (-0.01, "credits is negative"),
        ("12.5", "credits is a text"),
        (True, "credits is true or false"),
        ([1], "credits is a list"),
        (1e9, "more than an account can hold"),
        (Decimal128("NaN"), "credits is NaN"),
    ],
)
async def test_a_balance_that_is_no_amount_parks_its_user_and_nobody_else(store, dump, amount, said):
    wrong = {"_id": "mallory", "credits": amount, "creditsNew": 3.0, "apiKey": "sk-trollllm-m"}
    folder = dump(usersNew=[wrong, {"_id": "alice", "credits": 1.0}])
    report = await run(store, folder)
    (named,) = report.problems
    assert named.startswith("user mallory: parked")
    assert said in named
    assert report.pools["creditsNew"].held_back == 3 * 10**12
    assert (await store.account("mallory")).parked.startswith("import: ")
    assert await pools(store, "mallory") == {}
    assert await pools(store, "alice") == {"credits": 10**12}
    again = await run(store, folder)
    assert again.problems == [named]
    mended = dump(usersNew=[{**wrong, "credits": 2.0}])
    report = await run(store, mended)
    assert report.counts["users added"] == 1
    assert (await store.account("mallory")).parked is None
    assert await pools(store, "mallory") == {"credits": 2 * 10**12, "creditsNew": 3 * 10**12}
    await sound(store)


async def test_noise_below_half_a_pico_is_nothing_and_is_shown(store, dump):
    folder = dump(usersNew=[{"_id": "alice", "credits": -2.8e-17, "creditsNew": 0.1 + 0.2}])
    report = await run(store, folder)
    assert await pools(store, "alice") == {"creditsNew": 300_000_000_000}
    assert report.pools["credits"].rounding == Fraction("-2.8e-17") * 10**12
    rows = await store.transactions("alice", 5)
    assert [row.cause for row in rows] == [
        "opening balance: 0.30000000000000004 in usersNew, rounded by -4.0e-17 USD"
    ]


async def test_dates_flags_and_counters_come_along(store, dump):
    user = {
        "_id": "alice",
        "credits": 5,
        "expiresAt": DATE,
        "creditsNew": Int64(2),
        "expiresAtNew": None,
        "refCredits": Decimal128("0.5"),
        "creditsUsed": 7.25,
        "tokensUserNew": 12.0,
        "totalInputTokens": math.nan,
        "isActive": False,
        "role": "admin",
    }
    report = await run(store, dump(usersNew=[user, {**user, "_id": "root"}]), admins=frozenset({"root"}))
    account = await store.account("alice")
    ends = {lot.pool: lot.expires_at_ms for lot in account.lots}
    assert ends == {"credits": int(DATE.timestamp() * 1000), "creditsNew": None, "refCredits": None}
    assert account.is_active is False
    counters = await store.lifetime("alice")
    assert (counters["creditsUsed_pico"], counters["tokensUserNew"]) == (7_250_000_000_000, 12)
    assert counters["totalInputTokens"] == 0
    assert report.counts["administrators imported as users"] == 1


async def test_M11_old_keys_keep_working_as_digests_and_rotated_ones_do_not(store, dump, tmp_path):
    keys = {
        "own": "sk-trollllm-" + "a" * 64,
        "rotated": "sk-trollllm-" + "b" * 64,
        "made by an admin": "sk-troll-" + "c" * 24,
        "off": "sk-troll-" + "d" * 24,
    }
    rows = [
        {"_id": keys["own"], "name": "alice"},
        {"_id": keys["rotated"], "name": "alice", "isActive": True},
        {"_id": keys["made by an admin"], "name": "alice", "planExpiresAt": DATE},
        {"_id": keys["off"], "name": "alice", "isActive": False},
        {"_id": "sk-troll-nobody", "name": "nobody"},
        {"name": "alice"},
    ]
    folder = dump(usersNew=[{"_id": "alice", "credits": 1.0, "apiKey": keys["own"]}], user_keys=rows)
    report = await run(store, folder)
    active = {}
    for name, text in keys.items():
        found = await store.key(key_digest(text))
        active[name] = found is not None and found.key_active
    assert active == {"own": True, "rotated": False, "made by an admin": True, "off": False}
    assert report.problems == ["user_keys: skipped: a key without its text or its owner"]
    await store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert not any(text.encode() in stored for text in keys.values())


async def test_a_user_of_both_systems_has_one_account(store, dump):
    await store.create_user("alice", "user", "test", NOW)
    folder = dump(
        usersNew=[{"_id": "alice", "credits": 2.0}, {"_id": "bob", "credits": 1.0}],
        users_credits=[
            {"user_id": "alice", "credits_monthly": 300, "credits_permanent": 50, "total_earned": 900},
            {"user_id": "carol", "balance": 120},
            {"user_id": "Dave", "credits_monthly": 1},
        ],
    )
    with pytest.raises(UsageError, match="--usd-per-credit"):
        await run(store, folder)
    report = await run(store, folder, usd_per_credit=Decimal("0.01"))
    assert await pools(store, "alice") == {
        "credits": 2 * 10**12,
        "credits_monthly": 3 * 10**12,
        "credits_permanent": 5 * 10**11,
    }
    assert await pools(store, "carol") == {"credits_permanent": 12 * 10**11}
    assert (await store.lifetime("alice"))["total_earned_pico"] == 9 * 10**12
    assert report.counts["users added"] == 2
    assert "'Dave' is no user name" in report.problems[0]
    await sound(store)


async def test_M4_a_source_that_changed_since_is_named_and_not_booked_again(store, dump):
    await run(store, dump(usersNew=[{"_id": "alice", "credits": 5.0}]))
    report = await run(store, dump(usersNew=[{"_id": "alice", "credits": 4.0}, {"_id": "alice"}]))
    assert await pools(store, "alice") == {"credits": 5 * 10**12}
    assert report.pools["credits"].held_back == 4 * 10**12
    assert report.problems == [
        "usersNew alice: skipped: the source names this user twice",
        "user alice: imported before with another balance, which stays; see `farebox wallet adjust`",
    ]


async def test_a_balance_at_the_old_rate_waits_for_an_operator(store, dump):
    folder = dump(
        usersNew=[{"_id": "alice", "credits": 5.0, "migration": False}, {"_id": "bob", "migration": False}]
    )
    report = await run(store, folder)
    assert "rate migration" in report.problems[0]
    assert (await store.account("bob")).parked is None


async def test_logs_come_with_their_wallet_and_a_digest(store, dump):
    log = {"_id": ObjectId("1" * 24), "userId": "alice", "userKeyId": "secret", "createdAt": DATE}
    folder = dump(
        usersNew=[{"_id": "alice"}],
        request_logs=[
            {**log, "creditsCost": 0.25, "trollKeyId": "openhands:k", "model": "m", "isSuccess": True},
            {**log, "_id": ObjectId("2" * 24), "creditsCost": 1, "creditType": "openhands"},
            {**log, "_id": ObjectId("3" * 24), "creditsCost": math.nan},
            {**log, "_id": ObjectId("4" * 24), "createdAt": None},
        ],
    )
    report = await run(store, folder)
    newest, oldest = await store.logs_after("", 9), await store.request_log("1" * 24)
    assert [row["creditType"] for row in newest] == ["ohmygpt", "openhands"]
    assert (oldest["creditsCost"], oldest["upstream"], oldest["createdAt"]) == ("0.25", "openhands", DATE)
    assert oldest["userKeyId"] == key_digest("secret")
    assert report.problems == [
        f"request_logs {'3' * 24}: skipped: creditsCost is nan",
        f"request_logs {'4' * 24}: skipped: no date",
    ]


async def test_payments_come_as_history_and_credit_nothing(store, dump):
    paid = {
        "userId": "alice",
        "credits": 20,
        "amount": 50000.0,
        "currency": "VND",
        "orderCode": "TROLL20D1AB",
    }
    more = {"status": "success", "sepayTransactionId": 77, "createdAt": DATE, "creditsAfter": 20.5}
    payments = [{"_id": ObjectId(f"{n:024x}"), **paid, **more} for n in range(1, 131)]
    folder = dump(
        usersNew=[{"_id": "alice"}],
        payments=[*payments, {"_id": 1, "userId": "alice"}, {"_id": 2, **paid, **more, "amount": "x"}],
    )
    report = await run(store, folder)
    assert (report.counts["payments read"], report.counts["payments new"]) == (130, 130)
    assert (await run(store, folder)).counts["payments new"] == 0
    record = await store.record("payment", f"legacy:{1:024x}")
    assert (record.user, record.status, record.reference) == ("alice", "imported", "77")
    assert (record.document["amount"], record.document["creditsAfter"]) == ("50000", "20.5")
    assert await pools(store, "alice") == {}
    assert [problem.partition(": ")[2] for problem in report.problems] == [
        "skipped: no date, or no user",
        "skipped: amount is not a number",
    ]
    assert (await verify(store, None)).differences == []


async def test_an_export_in_json_gives_the_same(store, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    lines = [
        '{"_id": "alice", "credits": {"$numberDouble": "0.1"}, "expiresAt": {"$date": "2026-02-02"}}',
        '{"_id": "bob", "credits": {"$numberDecimal": "2.5"}, "expiresAt": {"$date": {"$numberInt": "5"}}}',
        '{"_id": "carol", "credits": NaN}',
        '{"_id": "dave", "credits": ',
        '["no document"]',
        '{"_id": "erin", "createdAt": {"$date": "nonsense"}}',
        "",
        '{"_id": "frank", "credits": {"$numberLong": "3"}, "x": [{"$oid": "5"}]}',
    ]
    with gzip.open(folder / "usersNew.json.gz", "wt") as file:
        file.write("\n".join(lines))
    (folder / "credits_transactions.ndjson").write_text("{}\n")
    report = await run(store, str(folder))
    assert await pools(store, "alice") == {"credits": 10**11}
    assert await pools(store, "bob") == {"credits": 25 * 10**11}
    assert await pools(store, "frank") == {"credits": 3 * 10**12}
    assert [problem.partition(" cannot")[0] for problem in report.problems] == [
        "usersNew: usersNew.json.gz line 4",
        "usersNew: usersNew.json.gz line 5",
        "usersNew: usersNew.json.gz line 6",
        "user carol: parked: import: credits is nan",
    ]
    assert report.notes[0].startswith("credits_transactions is not imported")


async def test_the_two_pool_systems_payments_and_subscriptions_come_and_the_next_invoice_grants(store, dump):
    """Stripe counts cents; an old subscription is Stripe's own, so its renewal finds it."""
    paid = {"payment_id": "p1", "user_id": "alice", "stripe_payment_intent_id": "cs_1", "currency": "usd"}
    paid |= {"amount": 1999, "status": "completed", "product_type": "bonus", "created_at": DATE}
    plan = {
        "subscription_id": "s1",
        "user_id": "alice",
        "stripe_subscription_id": "sub_1",
        "status": "active",
    }
    plan |= {"plan_name": "pro", "credits_monthly": 500, "current_period_start": DATE, "created_at": DATE}
    plan |= {"current_period_end": DATE + timedelta(days=30)}
    folder = dump(
        users_credits=[{"user_id": "alice", "credits_monthly": 120, "credits_permanent": 3}],
        payments_records=[{**paid, "_id": "d1"}, {**paid, "_id": "d2", "payment_id": "p2", "amount": "x"}],
        users_subscriptions=[{**plan, "_id": "d3"}, {**plan, "_id": "d4", "status": "odd"}],
    )
    report = await run(store, folder, usd_per_credit=Decimal("0.01"))
    counts = ("payments_records new", "users_subscriptions new")
    assert [report.counts[name] for name in counts] == [1, 1]
    assert [problem.partition("skipped: ")[2] for problem in report.problems] == [
        "amount is no count of cents",
        "no stripe_subscription_id, no period, or an unknown status",
    ]
    payment = await store.record("payment", "legacy:p1")
    assert (payment.user, payment.status) == ("alice", "imported")
    assert (payment.document["amount"], payment.document["currency"]) == ("19.99", "USD")
    shown = await subscriptions_document(store, "alice", NOW)
    active = shown["active_subscription"]
    assert (active["stripe_subscription_id"], active["plan_name"]) == ("sub_1", "pro")
    assert (active["credits_monthly"], active["renewal"]) == ("5", "accumulate")
    again = await run(store, folder, usd_per_credit=Decimal("0.01"))
    assert [again.counts[name] for name in counts] == [0, 0]
    pro = Plan("pro", "Pro", Decimal(500), Decimal("0.01"), 5 * 10**12, True, ())
    ends_ms = active["current_period_end"] + 30 * 86_400_000
    renewal = PaidPeriod("stripe:sub_1", "alice", pro, "in_2", active["current_period_end"], ends_ms)
    assert await grant_period(store, renewal, "test", NOW) is EventResult.DONE
    assert await pools(store, "alice") == {"credits_monthly": 5 * 10**12, "credits_permanent": 3 * 10**10}
    assert (await verify(store, None)).differences == []


async def test_friend_keys_come_revoked_with_the_models_they_were_for(store, dump):
    limits_ = [{"modelId": "opus", "limitUsd": 5, "enabled": True}, {"modelId": "haiku", "enabled": False}]
    key = {"_id": "sk-trollllm-friend-1", "ownerId": "alice", "isActive": True, "modelLimits": limits_}
    report = await run(store, dump(usersNew=[{"_id": "alice"}], friend_keys=[key, {"_id": "x"}]))
    found = await store.key(key_digest("sk-trollllm-friend-1"))
    assert (found.user, found.key_active, found.allowed_models) == ("alice", False, ("opus",))
    assert report.problems == ["friend_keys: skipped: a key without its text or its owner"]
    assert report.notes == ["friend_keys are imported as revoked: they had a limit in USD, see the docs"]


async def test_an_export_that_is_one_array_is_read_too(store, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "usersNew.json").write_text(json.dumps([{"_id": "alice", "credits": 1.5}]))
    await run(store, str(folder))
    assert await pools(store, "alice") == {"credits": 15 * 10**11}


def whole(documents: list[dict[str, Any]]) -> bytes:
    return b"".join(bson.encode(document) for document in documents)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("usersNew.bson", whole([{"_id": "alice"}])[:-3], "in the middle of a document at byte 0"),
        ("usersNew.bson", whole([{"_id": "alice"}]) + b"\x03\x00\x00\x00", "damaged at byte 20"),
        ("usersNew.bson", b"\xff\xff\xff\x7f" * 3, "damaged at byte 0"),
        ("usersNew.bson.gz", gzip.compress(whole([{"_id": "alice"}]), mtime=0)[:-9], "damaged"),
        ("usersNew.json", b"[1,", "no JSON"),
        ("other.json", b"{}", "neither usersNew nor users_credits"),
        ("README", b"", "no collection"),
    ],
)
async def test_a_damaged_source_is_refused_by_name(store, tmp_path, name, content, said):
    folder = tmp_path / "dump"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=said):
        await run(store, str(folder))


async def test_a_damaged_document_between_others_is_named(store, tmp_path):
    folder = tmp_path / "dump"
    folder.mkdir()
    broken = bytearray(bson.encode({"_id": "carol", "x": "yyyy"}))
    broken[4] = 0x7E
    parts = (bson.encode({"_id": "alice", "credits": 1.0}), bytes(broken), bson.encode({"_id": "bob"}))
    (folder / "usersNew.bson").write_bytes(b"".join(parts))
    report = await run(store, str(folder))
    assert [account.user async for account in store.accounts()] == ["alice", "bob"]
    assert report.problems[0].startswith("usersNew: usersNew.bson byte 37 cannot be read")


@given(st.floats(min_value=0, max_value=9e6, allow_nan=False))
def test_the_nearest_pico_is_at_most_half_a_pico_away(amount):
    pico, rest = exact_pico(amount)
    assert abs(rest) <= Fraction(1, 2)
    assert pico + rest == Fraction(repr(amount)) * 10**12
    if amount < 4000:
        assert float(Fraction(pico, 10**12)) == pytest.approx(amount, abs=1e-12)


async def test_hole_19_two_processes_that_open_one_balance_open_it_once(store, dump):
    folder = dump(usersNew=[{"_id": "alice", "credits": 0.1 + 0.2}])
    await asyncio.gather(*(run(store, folder) for _ in range(3)))
    assert await pools(store, "alice") == {"credits": 300_000_000_000}
    assert [row.type for row in await store.transactions("alice", 9)] == ["opening"]
    await sound(store)
