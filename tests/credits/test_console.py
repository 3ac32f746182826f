"""The console over HTTP: who may do what, what is refused and how, and that every delivery is counted."""

import asyncio
import json
import logging
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from aiohttp import ClientSession

from credits.desk import BANK_KEY, SHOP, Desk, console_of, running_desk, start_console, transfer_body
from farebox.base import limits
from farebox.base.clock import wall_ms
from farebox.base.errors import StoreDownError, UsageError
from farebox.console.routes import ANYONE, USER
from farebox.console.server import ROUTES
from farebox.credits.admins import admin_document, admins, create_admin, revoke_admin

USD = 10**12
STORES = ("sqlite",)
"""What is over HTTP does not depend on the store; `test_payments` and the others run on both."""
BODIES = {
    "OrderInput": {"credits": "20"},
    "DecisionInput": {"note": "because"},
    "RefusalInput": {"note": "because"},
    "PaymentInput": {
        "user": "alice",
        "credits": "5",
        "amount": "5",
        "currency": "USD",
        "receipt": "r1",
        "note": "cash",
    },
    "GrantInput": {"pool": "credits", "amount": "5", "reason": "because"},
    "TransferInput": {
        "user": "alice",
        "pool": "credits",
        "to_user": "bob",
        "to_pool": "credits",
        "amount": "1",
        "reason": "because",
    },
    "ReferralInput": {"user": "alice", "referrer": "bob"},
    "ActiveInput": {"active": True, "reason": "because"},
    "AllocationInput": {"pool": "credits", "to_pool": "creditsNew", "amount": "1"},
    "CancelInput": {},
    "LoginInput": {"key": "sk-trollllm-" + "0" * 64},
    "NothingInput": {},
    "CreateUserInput": {"user": "newcomer"},
    "KeyInput": {"label": "laptop"},
    "KeyLimitsInput": {"requests_per_minute": 5},
    "TokenInput": {"name": "newcomer", "role": "support"},
    "SettleInput": {"amount": "1"},
    "PasswordInput": {"password": "correct horse battery"},
    "PeriodInput": {"subscription": "s1", "plan": "pro", "starts_ms": 1, "ends_ms": 1 << 50},
    "UndoInput": {"key": "k1", "reason": "because"},
}


@pytest.fixture
async def desk(store, tmp_path) -> AsyncIterator[Desk]:
    async with running_desk(store, tmp_path) as desk:
        yield desk


def named(path: str) -> str:
    there_is_none = {"digest": "0" * 64, "exchange": "none", "version": "404", "name": "nobody"}
    return path.format(
        user="alice", payment="sepay:404", order="TROLLNONE", subscription="manual:none", **there_is_none
    )


async def money(desk: Desk) -> dict[str, dict[str, int]]:
    return {user: dict((await desk.store.account(user)).balances) for user in ("alice", "bob")}


async def test_every_route_with_every_role_and_every_bad_credential(desk):
    roles = ["admin", "support", "read-only", "user"]
    bad = {
        "": 401,
        "expired admin": 401,
        "expired user": 401,
        "revoked user": 401,
        "disabled user": 401,
        "fbx-admin-" + "0" * 64: 401,
        "sk-trollllm-" + "0" * 64: 401,
        "nonsense": 401,
        "x" * 5000: 401,
    }
    for route in ROUTES:
        body = BODIES[route.body.__name__] if route.body is not None else None
        if ANYONE in route.roles:
            assert (await desk.send(route.method, named(route.path), "", body))[0] in {200, 401}
            continue
        before = await money(desk)
        for credential in bad:
            status, document = await desk.send(route.method, named(route.path), credential, body)
            assert (status, document["error"]["code"]) == (401, "unauthorized"), (route, credential)
        for role in roles:
            if role in route.roles:
                continue
            status, document = await desk.send(route.method, named(route.path), role, body)
            assert (status, document["error"]["code"]) == (403, "forbidden"), (route, role)
        assert await money(desk) == before
        for role in roles:
            if role in route.roles:
                status, document = await desk.send(route.method, named(route.path), role, body)
                assert status not in {401, 403}, (route, role, document)


async def test_every_change_is_in_the_audit_log_with_who_made_it(desk, tmp_path):
    def audited() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            return [row[0] for row in connection.execute("SELECT actor FROM audit_log ORDER BY sequence")]

    await desk.post("/api/admin/users/alice/grants", BODIES["GrantInput"])
    assert (await desk.transfer("no code", 1))[1]["outcome"] == "review"
    changed = set()
    for route in ROUTES:
        if route.body is None or not route.keyed:
            continue
        role = "user" if USER in route.roles else "admin"
        path = named(route.path.replace("{payment}", "sepay:1").replace("{subscription}", "manual:1"))
        before = audited()
        body = {**BODIES[route.body.__name__]}
        if route.path.endswith("/accept"):
            body["user"] = "alice"
        status, _ = await desk.send(route.method, path, role, body)
        if status == 200:
            changed.add(route.path)
            actor = "user:alice" if role == "user" else "admin:eve-admin"
            assert actor in audited()[len(before) :], route
    assert {
        "/api/orders",
        "/api/admin/payments",
        "/api/admin/payments/{payment}/accept",
        "/api/admin/users/{user}/grants",
        "/api/admin/users/{user}/active",
        "/api/admin/transfers",
    } <= changed
    assert "webhook:sepay" in audited()


async def test_K3_a_role_in_the_users_table_opens_no_door(desk):
    key = (await desk.store.account("alice")) is not None
    assert key
    assert (await desk.send("GET", "/api/admin/payments", "user"))[0] == 403


async def test_a_revoked_token_is_refused_at_once(desk):
    assert (await desk.send("GET", "/api/admin/payments", "support"))[0] == 200
    await revoke_admin(desk.store, "eve-support", "test", wall_ms())
    assert (await desk.send("GET", "/api/admin/payments", "support"))[0] == 401


async def test_tokens_are_kept_as_digests_and_named_once(desk):
    made = await create_admin(desk.store, "carl", "support", None, "test", wall_ms())
    assert made.token not in json.dumps(made.record.document) + made.record.id
    shown = [admin_document(admin, wall_ms()) for admin in await admins(desk.store)]
    assert {entry["name"]: entry["status"] for entry in shown}["old"] == "expired"
    for arguments, said in (
        (("carl", "admin"), "token already"),
        (("no such name!", "admin"), "is no name"),
        (("dora", "emperor"), "is no role"),
    ):
        with pytest.raises(UsageError, match=said):
            await create_admin(desk.store, *arguments, None, "test", wall_ms())
    assert (await revoke_admin(desk.store, made.record.id[:12], "test", wall_ms())).reference == "carl"
    with pytest.raises(UsageError, match="no active token"):
        await revoke_admin(desk.store, "carl", "test", wall_ms())


async def test_a_purchase_from_order_to_wallet(desk):
    offer = (await desk.send("GET", "/api/offer"))[1]
    assert (offer["min_credits"], offer["rates"]["VND"], offer["validity_days"]) == ("20", "2500", 7)
    order = await desk.post("/api/orders", {"credits": "20"}, "user")
    assert order["transfer"] == {"bank": None, "account": "VA1", "amount": "50000", "text": order["order"]}
    assert await desk.transfer(order["order"], 1) == (
        200,
        {"success": True, "outcome": "credited", "payment": "sepay:1", "reason": ""},
    )
    assert (await desk.transfer(order["order"], 1))[1]["outcome"] == "duplicate"
    assert (await desk.get(f"/api/orders/{order['order']}", "user"))["status"] == "paid"
    wallet = await desk.get("/api/wallet", "user")
    assert wallet["wallets"] == {"ohmygpt": "0", "openhands": "20", "subscription": "0"}
    (lot,) = wallet["lots"]
    assert (lot["pool"], lot["left"], lot["expired"]) == ("creditsNew", "20", False)
    (row,) = (await desk.get("/api/transactions", "user"))["transactions"]
    assert (row["type"], row["amount"]) == ("earned_purchase", "20")
    (payment,) = (await desk.get("/api/payments", "user"))["payments"]
    assert (payment["status"], payment["creditsAfter"]) == ("credited", "20")
    assert len((await desk.get("/api/orders", "user"))["orders"]) == 1
    assert (await desk.send("GET", f"/api/orders/{order['order']}", "bob"))[0] == 404
    assert (await desk.get("/api/admin/users/alice/wallet", "read-only"))["pools"]["creditsNew"] == "20"
    assert (await desk.get("/api/admin/users/alice/transactions", "support"))["next"] == row["id"]


async def test_the_review_queue_is_decided_over_http(desk):
    assert (await desk.transfer("no code", 1))[1]["outcome"] == "review"
    assert (await desk.transfer("no code", 2))[1]["outcome"] == "review"
    queue = (await desk.get("/api/admin/payments?status=review"))["payments"]
    assert {entry["payment"] for entry in queue} == {"sepay:1", "sepay:2"}
    accepted = await desk.post("/api/admin/payments/sepay:1/accept", {"note": "he called", "user": "alice"})
    assert (accepted["status"], accepted["credits"], accepted["decided_by"]) == (
        "credited",
        "20",
        "admin:eve-admin",
    )
    assert (await desk.post("/api/admin/payments/sepay:2/refuse", {"note": "sent back"}))[
        "status"
    ] == "refused"
    assert (await desk.get("/api/admin/payments?status=review"))["payments"] == []
    status, document = await desk.send(
        "POST", "/api/admin/payments/sepay:2/accept", "admin", {"note": "again", "user": "alice"}
    )
    assert (status, document["error"]["code"]) == (400, "invalid")
    page = await desk.get("/api/admin/payments?limit=1")
    rest = await desk.get(f"/api/admin/payments?limit=5&before={page['next']}")
    assert len(page["payments"]) == len(rest["payments"]) == 1


async def test_M4_a_repeated_request_books_once(desk):
    body = {"pool": "credits", "amount": "5", "reason": "welcome"}
    key = {"Idempotency-Key": "the-same-key"}
    first = await desk.post("/api/admin/users/alice/grants", body, **key)
    again = await desk.post("/api/admin/users/alice/grants", body, **key)
    assert (first["result"], again["result"]) == ("done", "duplicate")
    other = {**body, "amount": "6"}
    status, _ = await desk.send("POST", "/api/admin/users/alice/grants", "admin", other, **key)
    assert status == 400
    await desk.post("/api/admin/users/alice/adjustments", {**body, "amount": "-1.5"})
    moved = {**BODIES["TransferInput"], "amount": "2"}
    assert (await desk.post("/api/admin/transfers", {**moved, "dry_run": True}))["result"] == "dry_run"
    await desk.post("/api/admin/transfers", moved, **key)
    await desk.post("/api/admin/transfers", moved, **key)
    assert {user: pools.get("credits") for user, pools in (await money(desk)).items()} == {
        "alice": 3 * USD // 2,
        "bob": 2 * USD,
    }
    status, document = await desk.send(
        "POST", "/api/admin/transfers", "admin", {**moved, "amount": "99", "user": "bob", "to_user": "alice"}
    )
    assert (status, document["error"]["message"]) == (400, "there is less unleased money than that")


async def test_orders_of_one_request_are_one_order(desk):
    key = {"Idempotency-Key": "order-key-1"}
    one = await desk.post("/api/orders", {"credits": "20"}, "user", **key)
    two = await desk.post("/api/orders", {"credits": "20"}, "user", **key)
    bobs = await desk.post("/api/orders", {"credits": "20"}, "bob", **key)
    assert one["order"] == two["order"] != bobs["order"]
    helped = await desk.post("/api/admin/users/alice/orders", {"credits": "30", "currency": "USD"}, "support")
    assert (helped["amount"], helped["currency"]) == ("30", "USD")


async def test_support_notes_referrals_and_stops_users(desk):
    referral = await desk.post("/api/admin/referrals", {"user": "alice", "referrer": "bob"}, "support")
    assert referral == {"user": "alice", "referrer": "bob", "status": "waiting"}
    await desk.post("/api/admin/users/alice/active", {"active": False, "reason": "abuse"}, "support")
    assert (await desk.send("GET", "/api/wallet", "user"))[0] == 401


async def test_a_payment_by_hand_is_entered_over_http(desk):
    body = BODIES["PaymentInput"]
    assert (await desk.post("/api/admin/payments", body))["payment"] == "manual:r1"
    assert (await desk.post("/api/admin/payments", body))["payment"] == "manual:r1"
    assert (await desk.get("/api/admin/payments/manual:r1", "support"))["credits"] == "5"
    assert (await money(desk))["alice"]["creditsNew"] == 5 * USD
    bad = {**body, "credits": "-5"}
    assert (await desk.send("POST", "/api/admin/payments", "admin", bad))[0] == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"credits": 20}, 422),
        ({"credits": "20", "more": 1}, 422),
        ({"credits": "1e9"}, 422),
        ({"credits": "20", "currency": "vnd"}, 422),
        ({"credits": "20", "currency": "XXX"}, 400),
        ({"credits": "2000"}, 400),
        ([], 422),
        (None, 400),
        ({}, 422),
    ],
)
async def test_bad_input_is_a_clear_error(desk, body, status):
    answered, document = await desk.send("POST", "/api/orders", "user", body)
    assert answered == status
    assert set(document["error"]) == {"code", "message"}


async def test_what_the_port_does_not_take_is_refused(desk):
    too_much = {"credits": "2" * limits.console_body_bytes_max}
    assert (await desk.send("POST", "/api/orders", "user", too_much))[0] == 413
    bigger = {"credits": "2" * limits.webhook_body_bytes_max}
    assert (await desk.send("POST", "/webhooks/sepay", "", bigger))[0] == 413
    assert (await desk.send("POST", "/api/orders", "user", {}, **{"Content-Encoding": "gzip"}))[0] == 415
    for key in ("", "short", "k" * 101, "mit leerzeichen"):
        headers = {"Idempotency-Key": key}
        status, document = await desk.send("POST", "/api/orders", "user", {"credits": "20"}, **headers)
        assert (status, document["error"]["code"]) == (400, "idempotency_key")
    assert (await desk.send("GET", "/nowhere", "admin"))[0] == 404
    assert (await desk.send("DELETE", "/api/orders", "user"))[0] == 405
    assert (await desk.send("POST", "/webhooks/paypal", "", {}))[0] == 404
    for query in ("limit=-1", "limit=x", "limit=1000", "before=x"):
        assert (await desk.send("GET", f"/api/admin/payments?{query}", "admin"))[0] in {400, 422}
    assert (await desk.send("GET", "/api/admin/users/nobody/wallet", "admin"))[0] == 404
    assert (await desk.send("GET", "/api/admin/users/nobody/transactions", "admin"))[0] == 404


async def test_refused_deliveries_credit_nothing_and_are_counted(desk, caplog):
    order = await desk.post("/api/orders", {"credits": "20"}, "user")
    code = order["order"]
    wrong = {"Authorization": "Apikey wrong"}
    assert (await desk.send("POST", "/webhooks/sepay", "", transfer_body(code, 1), **wrong))[0] == 401
    assert (await desk.transfer(code, 2, subAccount="VA9"))[0] == 422
    assert (await desk.transfer(code, 3, transferAmount=-50000))[0] == 422
    assert (await desk.transfer(code, 4, transferAmount=10**15))[0] == 422
    assert (await desk.transfer(code, 5, currency="XXX"))[0] == 422
    assert (await desk.send("POST", "/webhooks/stripe", "", {"type": "x"}))[0] == 401
    assert (await desk.transfer("TROLLAAAAAAAAAAAA", 6))[1]["outcome"] == "review"
    assert (await money(desk))["alice"].get("creditsNew", 0) == 0
    assert (await desk.transfer(code, 7))[1]["outcome"] == "credited"
    assert (await desk.transfer(code, 7, transferAmount=60000))[0] == 409
    assert (await money(desk))["alice"]["creditsNew"] == 20 * USD
    async with desk.client.get(desk.url + "/metrics") as answer:
        text = await answer.text()
    for outcome, times in (("unauthorized", 1), ("wrong_account", 1), ("absurd_amount", 2), ("conflict", 1)):
        assert f'farebox_webhook_deliveries_total{{outcome="{outcome}",provider="sepay"}} {times}.0' in text
    assert "delivery refused (wrong_account)" in caplog.text
    assert BANK_KEY not in caplog.text


async def test_stripe_pays_refunds_and_disputes_over_http(desk):
    order = await desk.post("/api/orders", {"credits": "20", "currency": "USD"}, "user")
    session = {
        "id": "cs_1",
        "mode": "payment",
        "payment_status": "paid",
        "payment_intent": "pi_1",
        "amount_total": 2000,
        "currency": "usd",
        "client_reference_id": order["order"],
    }
    assert (await desk.event("checkout.session.completed", session))[1]["outcome"] == "credited"
    charge = {
        "id": "ch_1",
        "payment_intent": "pi_1",
        "amount": 2000,
        "amount_refunded": 500,
        "currency": "usd",
    }
    assert (await desk.event("charge.refunded", charge))[1]["outcome"] == "returned"
    assert (await money(desk))["alice"]["creditsNew"] == 15 * USD
    dispute = {
        "id": "dp_1",
        "charge": "ch_1",
        "payment_intent": "pi_1",
        "amount": 1500,
        "currency": "usd",
        "status": "needs_response",
    }
    assert (await desk.event("charge.dispute.created", dispute))[1]["outcome"] == "disputed"
    assert (await desk.get("/api/wallet", "user"))["claims"][0]["amount"] == "15"
    lost = {**dispute, "status": "lost"}
    assert (await desk.event("charge.dispute.closed", lost))[1]["outcome"] == "lost"
    assert (await money(desk))["alice"]["creditsNew"] == 0
    assert (await desk.event("customer.created", {}))[1]["outcome"] == "ignored"


async def test_P1_an_internal_failure_is_no_success_and_the_redelivery_credits(desk, monkeypatch):
    order = await desk.post("/api/orders", {"credits": "20"}, "user")
    working = type(desk.store).apply_event

    async def down(self, event, now_ms):
        raise StoreDownError("the disk is full")

    async def broken(self, event, now_ms):
        raise RuntimeError("a bug")

    for failing, status in ((down, 503), (broken, 500)):
        monkeypatch.setattr(type(desk.store), "apply_event", failing)
        logging.getLogger("farebox.console.server").disabled = failing is broken
        assert (await desk.transfer(order["order"], 1))[0] == status
        logging.getLogger("farebox.console.server").disabled = False
    monkeypatch.setattr(type(desk.store), "apply_event", working)
    assert (await desk.transfer(order["order"], 1))[1]["outcome"] == "credited"
    assert (await money(desk))["alice"]["creditsNew"] == 20 * USD


async def test_M10_there_is_no_room_for_more_than_so_many_requests(desk, monkeypatch):
    begun, release = asyncio.Semaphore(0), asyncio.Event()
    reading = type(desk.store).account

    async def slow(self, user):
        begun.release()
        await release.wait()
        return await reading(self, user)

    monkeypatch.setattr(type(desk.store), "account", slow)
    waiting = [
        asyncio.create_task(desk.send("GET", "/api/wallet", "user"))
        for _ in range(limits.console_requests_open_max)
    ]
    for _ in waiting:
        await begun.acquire()
    status, document = await desk.send("GET", "/api/wallet", "user")
    assert (status, document["error"]["code"]) == (503, "busy")
    release.set()
    assert {status for status, _ in await asyncio.gather(*waiting)} == {200}


async def test_a_provider_that_is_not_configured_is_not_found(store, tmp_path):
    from dataclasses import replace

    console = replace(console_of(store, tmp_path), providers={})
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    close = await start_console(console, "127.0.0.1", port)
    async with ClientSession() as client:
        desk = Desk(store, f"http://127.0.0.1:{port}", client)
        assert (await desk.transfer("x", 1))[1]["error"]["code"] == "not_configured"
    await close()


def test_every_write_is_of_a_role_and_every_path_once():
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    for route in ROUTES:
        assert (route.method == "POST") == (route.body is not None)
        if route.body is not None:
            assert ANYONE not in route.roles or route.path == "/api/login"
            assert route.body.__name__ in BODIES
        if route.path.startswith("/api/admin/"):
            assert USER not in route.roles
    assert SHOP.pool == "creditsNew"


async def test_a_subscription_from_its_grant_to_its_cancellation(desk):
    (plan,) = (await desk.get("/api/products", "user"))["subscriptions"]
    assert (plan["product_id"], plan["credits_monthly"], plan["usd_per_credit"]) == ("pro", "500", "0.01")
    begins = wall_ms()
    period = {"subscription": "s1", "plan": "pro", "starts_ms": begins, "ends_ms": begins + 10**9}
    key = {"Idempotency-Key": "one-period"}
    for result in ("done", "duplicate"):
        granted = await desk.post("/api/admin/users/alice/subscriptions", period, **key)
        assert granted == {"result": result, "subscription": "manual:s1"}
    permanent = {"pool": "credits_permanent", "amount": "2", "reason": "gift"}
    await desk.post("/api/admin/users/alice/grants", permanent)
    shown = await desk.get("/api/credits", "user")
    assert (shown["credits_monthly"], shown["credits_permanent"], shown["balance"]) == ("5", "2", "7")
    rows = (await desk.get("/api/credits/transactions?limit=1&offset=1", "user"))["transactions"]
    assert [(row["type"], row["pool"], row["amount"]) for row in rows] == [
        ("earned_subscription", "monthly", "5")
    ]
    active = (await desk.get("/api/subscriptions", "user"))["active_subscription"]
    assert (active["subscription_id"], active["plan_name"]) == ("manual:s1", "Pro")
    assert (await desk.send("POST", "/api/subscriptions/manual:s9/cancel", "user", {}))[0] == 404
    canceled = await desk.post("/api/subscriptions/manual:s1/cancel", {}, "user")
    assert canceled["cancel_at_period_end"] is True
    assert (await desk.get("/api/admin/users/alice/subscriptions"))["subscriptions"] == [canceled]
    assert (await desk.get("/api/history", "user"))["total_count"] == 0


async def test_a_user_allocates_and_an_operator_takes_back(desk):
    await desk.post("/api/admin/users/alice/grants", {**BODIES["GrantInput"], "amount": "5"})
    own = {"pool": "credits", "to_pool": "creditsNew", "amount": "2"}
    assert (await desk.post("/api/credits/allocations", {**own, "dry_run": True}, "user"))["key"]
    moved = await desk.post("/api/credits/allocations", own, "user")
    assert (await desk.get("/api/wallet", "user"))["pools"]["creditsNew"] == "2"
    back = {"key": moved["key"], "reason": "a mistake"}
    assert (await desk.post("/api/admin/undo", back))["result"] == "done"
    assert (await desk.get("/api/wallet", "user"))["pools"]["credits"] == "5"
    assert (await desk.send("POST", "/api/credits/allocations", "user", {**own, "amount": "50"}))[0] == 400
