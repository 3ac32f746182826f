"""Promise: every refusal has its documented status, type, code and text, in the format of its route.

And when a request violates two checks it learns of the earlier one only: method, route, key, rate, body,
model, price field, money. Bodies are compared byte for byte. Pairs are tried with a key Farebox does not
remember and with one it does: the two go different ways inside.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from e2e.deployment import Customer
from e2e.raw_http import Answer, exchange, request
from e2e.storefront import DEAD_CLAUDE, DEAD_GPT, EMBEDDING, GPT, SONNET, USD, Storefront
from farebox.base.clock import wall_ms
from farebox.base.ids import new_lot_id
from farebox.base.keys import key_digest, new_key
from farebox.base.records import LotAmount, Transaction
from farebox.run.demo.processes import wait_until
from farebox.store.base import Event


@dataclass(frozen=True)
class Side:
    """One error format: its route and models, and how it writes an error."""

    name: str
    path: str
    model: str
    dead_model: str

    def error(
        self, openai_type: str, code: str | None, anthropic_type: str, message: str, tail: str = ""
    ) -> str:
        """The body of a refusal; `tail`: further members, as JSON text."""
        text = json.dumps(message, ensure_ascii=False)
        if self.name == "anthropic":
            return f'{{"type":"error","error":{{"type":"{anthropic_type}","message":{text}{tail}}}}}'
        coded = "" if code is None else f',"code":"{code}"'
        return f'{{"error":{{"message":{text},"type":"{openai_type}"{coded}{tail}}}}}'


OPENAI = Side("openai", "/v1/chat/completions", GPT, DEAD_GPT)
ANTHROPIC = Side("anthropic", "/v1/messages", SONNET, DEAD_CLAUDE)
SIDES = pytest.mark.parametrize("side", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
MISSING = "Send your API key as Authorization: Bearer <key> or x-api-key: <key>."
INVALID = "This API key is not valid."


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storefront]:
    with Storefront(tmp_path_factory.mktemp("errors")) as storefront:
        yield storefront
        storefront.close_books()


def body(model: str, script: dict[str, object] | None = None, **members: object) -> bytes:
    said = [{"role": "user", "content": f"script: {json.dumps(script or {})}"}]
    return json.dumps({"model": model, "max_tokens": 50, "messages": said, **members}).encode()


def post(shop: Storefront, side: Side, key: str, data: bytes, **headers: str) -> Answer:
    headers = {"authorization": f"Bearer {key}", **headers}
    return exchange(shop.port, request("POST", side.path, data, **headers))


# -- the table ------------------------------------------------------------


@SIDES
def test_405_names_the_allowed_method(shop: Storefront, side: Side) -> None:
    answer = exchange(shop.port, request("GET", side.path))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    kind = "invalid_request_error"
    assert answer.body.decode() == side.error(kind, None, kind, "Use POST on this route.")


def test_404_unknown_route_in_the_shape_its_path_suggests(shop: Storefront) -> None:
    for side, path in ((OPENAI, "/v1/chat/completion"), (ANTHROPIC, "/v1/messages/batches")):
        answer = exchange(shop.port, request("POST", path, b"{}"))
        expected = side.error(
            "invalid_request_error", "unknown_route", "not_found_error", "There is no such route here."
        )
        assert (answer.status, answer.body.decode()) == (404, expected)


@SIDES
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer two words"])
def test_401_missing_or_malformed_key(shop: Storefront, side: Side, header: str) -> None:
    answer = exchange(shop.port, request("POST", side.path, body(side.model), authorization=header))
    expected = side.error("invalid_request_error", None, "authentication_error", MISSING)
    assert (answer.status, answer.body.decode()) == (401, expected)


@SIDES
def test_400_two_different_keys(shop: Storefront, side: Side) -> None:
    answer = post(shop, side, new_key(), body(side.model), x_api_key=new_key())
    kind = "invalid_request_error"
    text = "The request carries different API keys; send one."
    assert answer.status == 400
    assert answer.body.decode() == side.error(kind, "ambiguous_credentials", kind, text)


@SIDES
def test_401_unknown_revoked_and_inactive_are_one_text(shop: Storefront, side: Side) -> None:
    revoked, inactive = shop.new_customer(), shop.new_customer()
    shop.store(lambda store: store.set_key_active(key_digest(revoked.key), False, "test", wall_ms()))
    shop.store(lambda store: store.set_user_active(inactive.user, False, "test", wall_ms()))
    expected = side.error("authentication_error", None, "authentication_error", INVALID)
    for key in (new_key(), revoked.key, inactive.key):
        answer = post(shop, side, key, body(side.model))
        assert (answer.status, answer.body.decode()) == (401, expected)


@SIDES
def test_402_expired(shop: Storefront, side: Side) -> None:
    customer = shop.new_customer(0)
    lots = (LotAmount(new_lot_id(), "creditsNew", USD),)
    row = Transaction(
        customer.user, "earned_purchase", f"old-{customer.user}", "creditsNew", USD, lots, "test", wall_ms()
    )
    event = Event((row,), expires_at_ms=wall_ms() - 1000, source="test", actor="test")
    shop.store(lambda store: store.apply_event(event, wall_ms()))
    answer = post(shop, side, customer.key, body(side.model))
    assert answer.status == 402
    kind, code = ("type", "code") if side is OPENAI else ("type", "type")
    assert answer.error[kind] == ("insufficient_quota" if side is OPENAI else "credits_expired")
    assert answer.error[code] == "credits_expired"
    assert answer.error["message"] == "Your credits have expired. Buy credits to go on."
    assert answer.error["remaining"] == "0"


@SIDES
def test_402_pool_empty(shop: Storefront, side: Side) -> None:
    answer = post(shop, side, shop.new_customer(0).key, body(side.model))
    text = "Insufficient credits. Your balance is $0.00."
    tail = (
        f',"wallet":"openhands","remaining":"0","held":"0","needed":"{answer.error["needed"]}","balance":0.0'
    )
    expected = side.error("insufficient_quota", "insufficient_credits", "insufficient_credits", text, tail)
    assert (answer.status, answer.body.decode()) == (402, expected)


@SIDES
def test_402_balance_short(shop: Storefront, side: Side) -> None:
    customer = shop.new_customer(USD // 20)
    answer = post(shop, side, customer.key, body(side.model, max_tokens=100_000))
    needed, fitting = answer.error["needed"], answer.error["max_tokens"]
    text = (
        f"This request may cost up to ${_four_places(needed)}, and $0.0500 of your balance is free. "
        "Lower max_tokens, wait for running requests to finish, or buy credits."
    )
    tail = f',"wallet":"openhands","remaining":"0.05","held":"0","needed":"{needed}","max_tokens":{fitting}'
    expected = side.error("insufficient_balance", None, "insufficient_balance", text, tail)
    assert (answer.status, answer.body.decode()) == (402, expected)
    assert 0 < fitting < 100_000
    assert post(shop, side, customer.key, body(side.model, max_tokens=fitting)).status == 200
    assert post(shop, side, customer.key, body(side.model, max_tokens=fitting + 1)).status == 402


def _four_places(amount: str) -> str:
    whole, _, part = amount.partition(".")
    return f"{(int(whole) * 10**12 + int(part.ljust(12, '0')) + 5 * 10**7) // 10**8 / 10**4:.4f}"


@SIDES
def test_402_balance_too_short_even_for_the_input(shop: Storefront, side: Side) -> None:
    answer = post(shop, side, shop.new_customer(1).key, body(side.model, max_tokens=1))
    assert (answer.status, answer.error["max_tokens"]) == (402, 0)
    assert "max_tokens" not in answer.error["message"]


@SIDES
def test_400_malformed_json(shop: Storefront, side: Side) -> None:
    answer = post(shop, side, shop.new_customer().key, b'{"model": ')
    kind = "invalid_request_error"
    expected = side.error(kind, None, kind, answer.error["message"])
    assert (answer.status, answer.body.decode()) == (400, expected)
    assert "JSON" in answer.error["message"] or "json" in answer.error["message"]


@SIDES
def test_404_unknown_model_is_named(shop: Storefront, side: Side) -> None:
    answer = post(shop, side, shop.new_customer().key, body("no-such-model"))
    kind = "invalid_request_error"
    expected = side.error(kind, None, kind, "The model 'no-such-model' does not exist here.")
    assert (answer.status, answer.body.decode()) == (404, expected)


@SIDES
def test_403_model_not_allowed(shop: Storefront, side: Side) -> None:
    customer = shop.new_customer(allowed_models=("other",))
    answer = post(shop, side, customer.key, body(side.model))
    kind = "permission_error"
    model = GPT if side is OPENAI else "claude-sonnet-4-5-20250929"
    expected = side.error(kind, "model_not_allowed", kind, f"This key may not use the model {model}.")
    assert (answer.status, answer.body.decode()) == (403, expected)


@pytest.mark.parametrize(
    ("path", "status", "openai_type", "code", "anthropic_type", "message"),
    [
        ("/v1/models", 401, "authentication_error", None, "authentication_error", INVALID),
        (
            "/v1/models/no-such",
            404,
            "invalid_request_error",
            None,
            "invalid_request_error",
            "The model 'no-such' does not exist here.",
        ),
        (
            f"/v1/models/{GPT}",
            403,
            "permission_error",
            "model_not_allowed",
            "permission_error",
            f"This key may not use the model {GPT}.",
        ),
    ],
    ids=["key", "unknown", "not-allowed"],
)
@SIDES
def test_the_models_routes_refuse_in_the_shape_of_who_asks(
    shop: Storefront,
    side: Side,
    path: str,
    status: int,
    openai_type: str,
    code: str | None,
    anthropic_type: str,
    message: str,
) -> None:
    key = new_key() if status == 401 else shop.new_customer(allowed_models=("other",)).key
    version = {"anthropic_version": "2023-06-01"} if side is ANTHROPIC else {}
    answer = exchange(shop.port, request("GET", path, authorization=f"Bearer {key}", **version))
    expected = side.error(openai_type, code, anthropic_type, message)
    assert (answer.status, answer.body.decode()) == (status, expected)


@SIDES
def test_400_a_head_that_could_be_read_in_two_ways(shop: Storefront, side: Side) -> None:
    answer = exchange(shop.port, request("POST", side.path, b"{}", host="two words"))
    kind = "invalid_request_error"
    assert answer.status == 400
    assert answer.body.decode() == side.error(kind, None, kind, "The Host header is not a host.")


@SIDES
def test_400_model_not_on_this_route(shop: Storefront, side: Side) -> None:
    answer = post(shop, side, shop.new_customer().key, body(EMBEDDING))
    kind = "invalid_request_error"
    text = f"The model {EMBEDDING} is not served on {side.path}."
    assert (answer.status, answer.body.decode()) == (400, side.error(kind, "unsupported", kind, text))


@SIDES
def test_400_price_field_that_has_no_price(shop: Storefront, side: Side) -> None:
    answer = post(shop, side, shop.new_customer().key, body(side.model, service_tier="priority"))
    kind = "invalid_request_error"
    model = GPT if side is OPENAI else "claude-sonnet-4-5-20250929"
    text = f"The field service_tier with this value is not offered for model {model}; leave it out."
    expected = side.error(kind, "unpriced_field", kind, text, ',"param":"service_tier"')
    assert (answer.status, answer.body.decode()) == (400, expected)


@SIDES
def test_429_with_the_seconds_to_wait(shop: Storefront, side: Side) -> None:
    customer = shop.new_customer(requests_per_minute=1)
    assert post(shop, side, customer.key, body(side.model)).status == 200
    answer = post(shop, side, customer.key, body(side.model))
    wait_s = answer.headers["retry-after"]
    text = f"Rate limit of 1 requests a minute reached; try again in {wait_s} s."
    expected = side.error("rate_limit_error", "rate_limit_exceeded", "rate_limit_error", text)
    assert (answer.status, answer.body.decode()) == (429, expected)
    assert 1 <= int(wait_s) <= 60


@SIDES
def test_413_and_415(shop: Storefront, side: Side) -> None:
    key = shop.new_customer().key
    large = post(shop, side, key, b"", content_length=str(10**9))
    encoded = post(shop, side, key, body(side.model), content_encoding="gzip")
    typed = post(shop, side, key, body(side.model), content_type="text/plain")
    kind = "invalid_request_error"
    text = f"The body is larger than the limit of {50 * 2**20} bytes."
    assert (large.status, large.body.decode()) == (
        413,
        side.error(kind, "body_too_large", "request_too_large", text),
    )
    text = "Send the body without Content-Encoding."
    assert (encoded.status, encoded.body.decode()) == (415, side.error(kind, "content_encoding", kind, text))
    text = "Send the body as Content-Type: application/json."
    assert (typed.status, typed.body.decode()) == (415, side.error(kind, "content_type", kind, text))


@SIDES
def test_502_upstream_down(shop: Storefront, side: Side) -> None:
    answer = post(shop, side, shop.new_customer().key, body(side.dead_model))
    text = "The upstream provider cannot be reached."
    assert (answer.status, answer.body.decode()) == (
        502,
        side.error("upstream_error", None, "api_error", text),
    )


@SIDES
@pytest.mark.parametrize(
    ("script", "status", "openai_type", "code", "anthropic_type", "text"),
    [
        *(
            (
                {"status": status},
                *(502, "upstream_error", None, "api_error"),
                "The upstream provider did not accept this service's request.",
            )
            for status in (401, 402, 403)
        ),
        (
            {"status": 404},
            *(404, "not_found_error", "not_found", "not_found_error"),
            "The upstream provider does not know what was asked for.",
        ),
        (
            {"status": 429},
            *(429, "rate_limit_error", None, "rate_limit_error"),
            "The upstream provider limits requests; try again later.",
        ),
        ({"status": 500}, 500, "server_error", None, "api_error", "The upstream provider failed."),
        (
            {"status": 529},
            *(529, "overloaded_error", "service_overloaded", "overloaded_error"),
            "The upstream provider is overloaded.",
        ),
        (
            {"drop": True},
            502,
            "upstream_error",
            None,
            "api_error",
            "The upstream provider broke off its answer.",
        ),
    ],
)
def test_upstream_faults(
    shop: Storefront,
    side: Side,
    script: dict[str, object],
    status: int,
    openai_type: str,
    code: str | None,
    anthropic_type: str,
    text: str,
) -> None:
    answer = post(shop, side, shop.new_customer().key, body(side.model, script))
    expected = side.error(openai_type, code, anthropic_type, text)
    assert (answer.status, answer.body.decode()) == (status, expected)
    assert "x-request-id" in answer.headers


# -- the order of the checks ------------------------------------------------------------


@pytest.fixture(params=["unknown-yet", "remembered"])
def remembered(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "remembered")


def buyer(shop: Storefront, side: Side, remembered: bool, amount_pico: int = USD) -> Customer:
    """A customer whose key the worker has seen before, or not."""
    customer = shop.new_customer(amount_pico)
    if remembered:
        assert post(shop, side, customer.key, b"").status == 400
    return customer


@SIDES
def test_order_method_before_key(shop: Storefront, side: Side) -> None:
    assert exchange(shop.port, request("PUT", side.path, b"{}")).status == 405


def test_order_route_before_key(shop: Storefront) -> None:
    for path in ("/v1/nothing", "/v1/messages/nothing", "/v1/models/", "/v1/responses/resp_1/cancel", "/"):
        for method in ("POST", "GET", "DELETE"):
            assert exchange(shop.port, request(method, path)).status == 404, (method, path)


@SIDES
def test_order_key_before_rate(shop: Storefront, side: Side) -> None:
    customer = shop.new_customer(requests_per_minute=1)
    assert post(shop, side, customer.key, body(side.model)).status == 200
    assert post(shop, side, customer.key, body(side.model)).status == 429
    shop.store(lambda store: store.set_key_active(key_digest(customer.key), False, "test", wall_ms()))
    assert wait_until(lambda: post(shop, side, customer.key, body(side.model)).status == 401, 5.0)


@SIDES
def test_order_key_before_body(shop: Storefront, side: Side) -> None:
    for data, headers in (
        (b"{", {}),
        (b"", {"content_length": str(10**9)}),
        (b"x", {"content_type": "text/plain"}),
        (b"x", {"content_encoding": "gzip"}),
    ):
        assert post(shop, side, new_key(), data, **headers).status == 401


@SIDES
def test_order_rate_before_body(shop: Storefront, side: Side) -> None:
    customer = shop.new_customer(requests_per_minute=1)
    assert post(shop, side, customer.key, body(side.model)).status == 200
    assert post(shop, side, customer.key, b"{").status == 429
    assert post(shop, side, customer.key, b"", content_length=str(10**9)).status == 429
    assert post(shop, side, customer.key, b"x", content_type="text/plain").status == 429


@SIDES
def test_order_body_before_model(shop: Storefront, side: Side, remembered: bool) -> None:
    answer = post(shop, side, buyer(shop, side, remembered).key, b'{"model": "no-such-model", ')
    assert answer.status == 400
    assert "no-such-model" not in answer.error["message"]


@SIDES
def test_order_model_before_price_field(shop: Storefront, side: Side, remembered: bool) -> None:
    key = buyer(shop, side, remembered).key
    assert post(shop, side, key, body("no-such-model", service_tier="priority")).status == 404
    restricted = shop.new_customer(allowed_models=("other",))
    assert post(shop, side, restricted.key, body(side.model, service_tier="priority")).status == 403


@SIDES
def test_order_price_field_before_money(shop: Storefront, side: Side, remembered: bool) -> None:
    customer = buyer(shop, side, remembered, 0)
    assert post(shop, side, customer.key, body(side.model, service_tier="priority")).status == 400
    assert post(shop, side, customer.key, body(side.model)).status == 402


@SIDES
def test_order_money_before_upstream(shop: Storefront, side: Side, remembered: bool) -> None:
    seen = shop.upstream_count()
    customer = buyer(shop, side, remembered, 0)
    assert post(shop, side, customer.key, body(side.dead_model)).status == 402
    assert post(shop, side, customer.key, body(side.model)).status == 402
    assert shop.upstream_count() == seen
