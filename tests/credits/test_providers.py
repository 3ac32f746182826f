"""Deliveries of payment providers: the genuine are read exactly, the rest is refused with its reason."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stripe import WebhookSignature

from credits.shop import NOW, settings
from farebox.base.redaction import Secret
from farebox.credits.notices import (
    DisputeChanged,
    InvoicePaid,
    Irrelevant,
    MoneyReceived,
    MoneyReturned,
    SubscriptionChanged,
    WebhookRefusedError,
)
from farebox.credits.sepay import SepayProvider
from farebox.credits.stripe_events import StripeProvider

CODE = "TROLLABCDEFGH2345"
TRANSFER: dict[str, Any] = {
    "id": 92704,
    "gateway": "Vietcombank",
    "transactionDate": "2025-10-09 15:53:20",
    "accountNumber": "0123499999",
    "code": None,
    "content": f"chuyen tien {CODE}alice",
    "transferType": "in",
    "transferAmount": 50000,
    "accumulated": 19077000,
    "subAccount": "VA1",
    "referenceCode": "MBVCB.3278907687",
    "description": "",
}
SECRET = "whsec_test"


@pytest.fixture
def bank():
    shop = settings(sepay={"api_key_env": "K", "sub_account": "VA1", "account_number": "0123499999"})
    return SepayProvider(shop.sepay, Secret("right"), shop.order_prefix)


@pytest.fixture
def cards():
    shop = settings(stripe={"webhook_secret_env": "K"})
    return StripeProvider(shop.stripe, Secret(SECRET), frozenset(shop.rates))


def told(bank, key="Apikey right", **fields):
    body = json.dumps({**TRANSFER, **fields}).encode()
    return bank.read({"authorization": key}, body, NOW)


def refused(read, *args, **fields):
    with pytest.raises(WebhookRefusedError) as refusal:
        read(*args, **fields)
    return refusal.value.status, refusal.value.outcome


def test_a_transfer_is_read(bank):
    notice = told(bank)
    assert notice == MoneyReceived(
        payment="sepay:92704",
        amount=Decimal(50000),
        currency="VND",
        order=CODE,
        at_ms=NOW,
        details={"bank_reference": "MBVCB.3278907687", "gateway": "Vietcombank"},
    )


def test_the_code_may_stand_in_the_description_and_the_date_carry_its_zone(bank):
    notice = told(bank, content=None, description=CODE.lower(), transactionDate="2025-10-09T08:53:20Z")
    assert (notice.order, notice.at_ms) == (CODE, NOW)
    assert told(bank, transactionDate="").at_ms == NOW


def test_what_left_the_account_is_acknowledged(bank):
    assert isinstance(told(bank, transferType="out"), Irrelevant)


@pytest.mark.parametrize(
    "key", ["", "Apikey wrong", "Apikey right ", "Bearer right", "apikey right", "right"]
)
def test_a_wrong_key_is_refused(bank, key):
    assert refused(told, bank, key) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("fields", "status", "outcome"),
    [
        ({"subAccount": "VA2"}, 422, "wrong_account"),
        ({"subAccount": None}, 422, "wrong_account"),
        ({"accountNumber": "1"}, 422, "wrong_account"),
        ({"transferAmount": -50000}, 422, "absurd_amount"),
        ({"transferAmount": 0}, 422, "absurd_amount"),
        ({"transferAmount": 10**14}, 422, "absurd_amount"),
        ({"transferAmount": True}, 422, "absurd_amount"),
        ({"transferAmount": "50000"}, 422, "absurd_amount"),
        ({"transferAmount": 0.00001}, 422, "absurd_amount"),
        ({"transferAmount": None}, 422, "absurd_amount"),
        ({"currency": "USD"}, 422, "unknown_currency"),
        ({"transactionDate": "2025-10-09 16:53:20"}, 422, "stale"),
        ({"transactionDate": "yesterday"}, 422, "invalid"),
        ({"id": None}, 422, "invalid"),
        ({"id": True}, 422, "invalid"),
        ({"id": "a:b"}, 422, "invalid"),
        ({"id": "7" * 65}, 422, "invalid"),
        ({"transferType": "sideways"}, 422, "invalid"),
        ({"content": 7}, 422, "invalid"),
        ({"content": "x" * 2001}, 422, "invalid"),
    ],
)
def test_an_absurd_transfer_is_refused(bank, fields, status, outcome):
    assert refused(told, bank, **fields) == (status, outcome)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"transferAmount": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_transfer_is_refused(bank, body):
    assert refused(bank.read, {"authorization": "Apikey right"}, body, NOW) == (400, "invalid")


@given(st.binary(max_size=200), st.text(max_size=40))
def test_any_bytes_are_a_notice_or_a_refusal(body, header):
    shop = settings(sepay={"api_key_env": "K"}, stripe={"webhook_secret_env": "K"})
    providers = (
        SepayProvider(shop.sepay, Secret("right"), "TROLL"),
        StripeProvider(shop.stripe, Secret(SECRET), frozenset(shop.rates)),
    )
    for provider in providers:
        with pytest.raises(WebhookRefusedError):
            provider.read({"authorization": header, "stripe-signature": header}, body, NOW)
    with pytest.raises(WebhookRefusedError):
        providers[0].read({"authorization": "Apikey right"}, body, NOW)


def signed(cards, kind, about, *, at_s=NOW // 1000, now_ms=NOW, secret=SECRET, **event):
    body = json.dumps(
        {"id": "evt_1", "type": kind, "created": NOW // 1000, "data": {"object": about}, **event}
    )
    header = WebhookSignature.generate_signature_header(body, secret, at_s)
    return cards.read({"stripe-signature": header}, body.encode(), now_ms)


SESSION: dict[str, Any] = {
    "id": "cs_1",
    "mode": "payment",
    "payment_status": "paid",
    "payment_intent": "pi_1",
    "amount_total": 2000,
    "currency": "usd",
    "client_reference_id": CODE,
}
CHARGE: dict[str, Any] = {
    "id": "ch_1",
    "payment_intent": "pi_1",
    "amount": 2000,
    "amount_refunded": 500,
    "currency": "usd",
}
DISPUTE: dict[str, Any] = {
    "id": "dp_1",
    "charge": "ch_1",
    "payment_intent": "pi_1",
    "amount": 2000,
    "currency": "usd",
    "status": "needs_response",
}


def test_a_paid_checkout_is_read(cards):
    notice = signed(cards, "checkout.session.completed", SESSION)
    assert notice == MoneyReceived(
        payment="stripe:pi_1",
        amount=Decimal(20),
        currency="USD",
        order=CODE,
        at_ms=NOW,
        reference="stripe:cs_1",
    )


def test_a_checkout_in_a_currency_without_cents_keeps_its_amount(cards):
    about = {**SESSION, "currency": "vnd", "amount_total": 50000, "client_reference_id": None}
    about["metadata"] = {"order": CODE}
    notice = signed(cards, "checkout.session.async_payment_succeeded", about)
    assert (notice.amount, notice.currency, notice.order) == (Decimal(50000), "VND", CODE)


def test_refunds_and_disputes_name_their_payment(cards):
    assert signed(cards, "charge.refunded", CHARGE) == MoneyReturned(
        "stripe:pi_1", Decimal(5), Decimal(20), "USD", NOW
    )
    states = {"needs_response": "open", "under_review": "open", "won": "won", "lost": "lost"}
    states |= {"warning_closed": "won", "prevented": "won"}
    for status, state in states.items():
        notice = signed(cards, "charge.dispute.closed", {**DISPUTE, "status": status})
        assert notice == DisputeChanged("stripe:pi_1", "dp_1", Decimal(20), "USD", state, NOW)
    bare = {**DISPUTE, "payment_intent": None}
    assert signed(cards, "charge.dispute.created", bare).payment == "stripe:ch_1"
    assert isinstance(signed(cards, "charge.dispute.funds_reinstated", DISPUTE), Irrelevant)


def test_an_invoice_of_a_subscription_is_read_in_both_forms(cards):
    line = {"period": {"start": 10, "end": 20}, "metadata": {"user": "alice"}}
    old = {
        "id": "in_1",
        "subscription": "sub_1",
        "payment_intent": "pi_9",
        "amount_paid": 900,
        "currency": "usd",
        "lines": {"data": [{**line, "price": {"id": "price_1"}}]},
    }
    new = {
        "id": "in_1",
        "parent": {"subscription_details": {"subscription": "sub_1", "metadata": {"user": "alice"}}},
        "amount_paid": 900,
        "currency": "usd",
        "lines": {"data": [{**line, "pricing": {"price_details": {"price": "price_1"}}}]},
    }
    listed = {**new, "payments": {"data": [{"payment": {"payment_intent": "pi_9"}}]}}
    for invoice, reference in ((old, "stripe:pi_9"), (listed, "stripe:pi_9"), (new, "")):
        assert signed(cards, "invoice.payment_succeeded", invoice) == InvoicePaid(
            payment="stripe:in_1",
            subscription="sub_1",
            plan="price_1",
            amount=Decimal(9),
            currency="USD",
            period_begins_ms=10_000,
            period_ends_ms=20_000,
            at_ms=NOW,
            reference=reference,
            metadata={"user": "alice"},
        )
    for reason in ("subscription_create", "subscription_cycle"):
        assert signed(cards, "invoice.payment_succeeded", {**old, "billing_reason": reason}).begins_period
    for reason in ("subscription_update", "subscription_threshold", "manual"):
        assert not signed(cards, "invoice.payment_succeeded", {**old, "billing_reason": reason}).begins_period
    single = {**old, "subscription": None}
    assert isinstance(signed(cards, "invoice.payment_succeeded", single), Irrelevant)


@pytest.mark.parametrize(
    "others",
    [
        [{"type": "subscription", "proration": True}],
        [{"type": "invoiceitem"}],
        [{"parent": {"subscription_item_details": {"proration": True}}}],
        [{"parent": {"type": "invoice_item_details"}}, {"proration": True}],
    ],
)
def test_an_invoice_is_for_the_period_whatever_else_it_lists(cards, others):
    other = {"period": {"start": 1, "end": 2}, "price": {"id": "price_other"}}
    period = {"period": {"start": 10, "end": 20}, "price": {"id": "price_1"}}
    invoice = {"id": "in_1", "subscription": "sub_1", "amount_paid": 900, "currency": "usd"}
    for lines in ([{**other, **line} for line in others] + [period], [period, {**other, **others[0]}]):
        notice = signed(cards, "invoice.payment_succeeded", {**invoice, "lines": {"data": lines}})
        assert (notice.plan, notice.period_ends_ms) == ("price_1", 20_000)
    only = {**invoice, "lines": {"data": [{**other, **others[0]}]}}
    assert signed(cards, "invoice.payment_succeeded", only).plan == "price_other"


def test_a_subscription_is_read_in_both_forms(cards):
    old = {"id": "sub_1", "status": "active", "current_period_start": 10, "current_period_end": 20}
    item = {"current_period_start": 10, "current_period_end": 20, "price": {"id": "price_1"}}
    new = {"id": "sub_1", "status": "active", "items": {"data": [item]}, "cancel_at_period_end": True}
    told_old = signed(cards, "customer.subscription.updated", old)
    told_new = signed(cards, "customer.subscription.deleted", new)
    assert (told_old.period_begins_ms, told_old.plan, told_old.cancel_at_period_end) == (10_000, "", False)
    assert (told_new.period_ends_ms, told_new.plan, told_new.cancel_at_period_end) == (
        20_000,
        "price_1",
        True,
    )
    begun = {**SESSION, "mode": "subscription", "subscription": "sub_1", "metadata": {"user": "alice"}}
    notice = signed(cards, "checkout.session.completed", begun)
    assert isinstance(notice, SubscriptionChanged)
    assert (notice.subscription, notice.status, notice.metadata) == ("sub_1", "active", {"user": "alice"})


def test_what_is_of_no_concern_is_acknowledged(cards):
    assert isinstance(signed(cards, "customer.created", {}), Irrelevant)
    unpaid = {**SESSION, "payment_status": "unpaid"}
    assert isinstance(signed(cards, "checkout.session.completed", unpaid), Irrelevant)


def test_a_wrong_signature_is_refused(cards):
    assert refused(signed, cards, "charge.refunded", CHARGE, secret="whsec_other") == (401, "unauthorized")
    body = b'{"type": "charge.refunded"}'
    for header in ("", "t=1", "v1=00", "t=x,v1=00", f"t={NOW // 1000},v1=00", f"t={NOW // 1000},v0=00"):
        assert refused(cards.read, {"stripe-signature": header}, body, NOW) == (401, "unauthorized")
    good = WebhookSignature.generate_signature_header(body.decode(), SECRET, NOW // 1000)
    assert refused(cards.read, {"stripe-signature": good}, body + b" ", NOW) == (401, "unauthorized")


@pytest.mark.parametrize("off_s", [-301, 301])
def test_a_stale_timestamp_is_refused(cards, off_s):
    assert refused(signed, cards, "charge.refunded", CHARGE, at_s=NOW // 1000 + off_s) == (400, "stale")
    assert signed(cards, "charge.refunded", CHARGE, at_s=NOW // 1000 + off_s // 2)


@pytest.mark.parametrize(
    ("kind", "about", "status", "outcome"),
    [
        ("charge.refunded", {**CHARGE, "currency": "eur"}, 422, "unknown_currency"),
        ("charge.refunded", {**CHARGE, "amount_refunded": -5}, 422, "absurd_amount"),
        ("charge.refunded", {**CHARGE, "amount_refunded": 10**16}, 422, "absurd_amount"),
        ("charge.refunded", {**CHARGE, "amount_refunded": 1.5}, 422, "invalid"),
        ("charge.refunded", {**CHARGE, "amount_refunded": True}, 422, "invalid"),
        ("checkout.session.completed", {**SESSION, "amount_total": 0}, 422, "absurd_amount"),
        ("checkout.session.completed", {**SESSION, "amount_total": None}, 422, "invalid"),
        ("charge.dispute.created", {**DISPUTE, "id": ""}, 422, "invalid"),
        ("charge.dispute.created", [], 400, "invalid"),
    ],
)
def test_an_absurd_event_is_refused(cards, kind, about, status, outcome):
    assert refused(signed, cards, kind, about) == (status, outcome)


def test_a_signed_body_that_is_no_event_is_refused(cards):
    for body in ("[]", "{}", '{"type": 5}', "not json"):
        header = WebhookSignature.generate_signature_header(body, SECRET, NOW // 1000)
        assert refused(cards.read, {"stripe-signature": header}, body.encode(), NOW) == (400, "invalid")
    header = WebhookSignature.generate_signature_header('{"type": "x", "data": {"object": {}}}', SECRET, 1)
    body = b'{"type": "x", "data": {"object": {}}}'
    assert refused(cards.read, {"stripe-signature": header}, body, 1000) == (422, "invalid")
