"""Promise: the official clients raise each refusal as the exception type their users catch, with what helps.

No fault of the operator's own account is shown as the user's (U19-U21); a refused request costs nothing.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from e2e.storefront import DEAD_CLAUDE, DEAD_GPT, GPT, SONNET, Storefront, price_pico
from farebox.base.clock import wall_ms
from farebox.base.keys import key_digest, new_key
from farebox.base.units import usd_from_pico
from farebox.run.demo.processes import wait_until

Call = Callable[..., Any]
"""Send one request through a client; the exchange's script and the request's other members are arguments."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storefront]:
    with Storefront(tmp_path_factory.mktemp("sdk-errors")) as storefront:
        yield storefront
        storefront.close_books()


def chat(shop: Storefront, key: str, script: Any = None, **members: Any) -> Any:
    members = {"model": GPT, "max_tokens": 100, "messages": said(script), **members}
    with openai.OpenAI(base_url=f"{shop.base_url}/v1", api_key=key, max_retries=0) as client:
        return client.chat.completions.create(**members)


def messages(shop: Storefront, key: str, script: Any = None, **members: Any) -> Any:
    members = {"model": SONNET, "max_tokens": 100, "messages": said(script), **members}
    with anthropic.Anthropic(base_url=shop.base_url, api_key=key, max_retries=0) as client:
        return client.messages.create(**members)


def said(script: Any) -> Any:
    return [{"role": "user", "content": f"script: {json.dumps(script or {})}"}]


def caught(send: Call, *arguments: Any, **members: Any) -> openai.APIStatusError | anthropic.APIStatusError:
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as error:
        send(*arguments, **members)
    return error.value


def member(error: openai.APIStatusError | anthropic.APIStatusError) -> Any:
    """The error object, which the two libraries keep at different depths."""
    body: Any = error.body
    return body["error"] if isinstance(error, anthropic.APIStatusError) else body


BOTH = pytest.mark.parametrize(
    ("send", "sdk", "model"),
    [(chat, openai, GPT), (messages, anthropic, SONNET)],
    ids=["openai", "anthropic"],
)


@BOTH
def test_401_wrong_and_revoked_keys_look_alike(shop: Storefront, send: Call, sdk: Any, model: str) -> None:
    customer = shop.new_customer()
    send(shop, customer.key)
    shop.store(lambda store: store.set_key_active(key_digest(customer.key), False, "test", wall_ms()))
    wrong = caught(send, shop, new_key())
    assert isinstance(wrong, sdk.AuthenticationError)
    assert member(wrong)["type"] == "authentication_error"
    revoked = _until(lambda: send(shop, customer.key), sdk.AuthenticationError)
    assert member(revoked) == member(wrong)


def _until(send: Callable[[], Any], error: type[Exception]) -> Any:
    """Send until it raises; account changes reach workers within a second."""
    for _ in range(400):
        try:
            send()
        except error as raised:
            return raised
    pytest.fail("the key still works")


@BOTH
def test_402_empty_wallet(shop: Storefront, send: Call, sdk: Any, model: str) -> None:
    error = caught(send, shop, shop.new_customer(0).key)
    assert error.status_code == 402
    said_so = member(error)
    assert (said_so["remaining"], said_so["held"], said_so["balance"]) == ("0", "0", 0)
    assert said_so["needed"] != "0"
    if sdk is openai:
        assert (said_so["type"], said_so["code"]) == ("insufficient_quota", "insufficient_credits")
    else:
        assert said_so["type"] == "insufficient_credits"


@BOTH
def test_402_says_what_would_fit_and_it_does(shop: Storefront, send: Call, sdk: Any, model: str) -> None:
    amount_pico = price_pico(model, input=3000, output=200)
    customer = shop.new_customer(amount_pico)
    error = caught(send, shop, customer.key, max_tokens=5000)
    said_so = member(error)
    assert error.status_code == 402
    assert said_so["type"] == "insufficient_balance"
    assert (said_so["remaining"], said_so["held"]) == (usd_from_pico(amount_pico), "0")
    assert float(said_so["needed"]) > float(said_so["remaining"])
    assert 200 <= said_so["max_tokens"] < 5000
    send(shop, customer.key, max_tokens=said_so["max_tokens"])
    shop.charged(customer, [price_pico(model, input=12, output=5)])


@BOTH
def test_404_unknown_model(shop: Storefront, send: Call, sdk: Any, model: str) -> None:
    error = caught(send, shop, shop.new_customer().key, model="gpt-unknown")
    assert isinstance(error, sdk.NotFoundError)
    assert "gpt-unknown" in member(error)["message"]
    assert error.response.headers["x-request-id"]


@BOTH
def test_403_model_not_allowed_for_this_key(shop: Storefront, send: Call, sdk: Any, model: str) -> None:
    customer = shop.new_customer(allowed_models=("other",))
    assert isinstance(caught(send, shop, customer.key), sdk.PermissionDeniedError)


@BOTH
def test_429_over_the_limit_of_the_key(shop: Storefront, send: Call, sdk: Any, model: str) -> None:
    customer = shop.new_customer(requests_per_minute=2)
    for _ in range(2):
        send(shop, customer.key)
    error = caught(send, shop, customer.key)
    assert isinstance(error, sdk.RateLimitError)
    assert 1 <= int(error.response.headers["retry-after"]) <= 60
    assert member(error)["type"] == "rate_limit_error"
    shop.charged(customer, [price_pico(model, input=12, output=5)] * 2)


@BOTH
def test_400_from_us_and_from_the_upstream(shop: Storefront, send: Call, sdk: Any, model: str) -> None:
    customer = shop.new_customer()
    ours = caught(send, shop, customer.key, service_tier="priority")
    theirs = caught(send, shop, customer.key, {"status": 400, "error": "too long by 7 tokens"})
    assert isinstance(ours, sdk.BadRequestError)
    assert member(ours)["param"] == "service_tier"
    assert isinstance(theirs, sdk.BadRequestError)
    assert member(theirs)["message"] == "too long by 7 tokens"
    shop.free_of_charge(customer, 1)


@BOTH
@pytest.mark.parametrize(
    ("upstream", "answered", "kind"),
    [
        (401, 502, "InternalServerError"),
        (402, 502, "InternalServerError"),
        (403, 502, "InternalServerError"),
        (404, 404, "NotFoundError"),
        (429, 429, "RateLimitError"),
        (500, 500, "InternalServerError"),
        (503, 503, None),
        (529, 529, None),
    ],
)
def test_U19_U20_U21_faults_of_the_upstream(
    shop: Storefront, send: Call, sdk: Any, model: str, upstream: int, answered: int, kind: str | None
) -> None:
    customer = shop.new_customer()
    secret = "organisation org-4711 is out of credit"
    error = caught(send, shop, customer.key, {"status": upstream, "error": secret, "retry_after": 7})
    assert error.status_code == answered
    assert kind is None or isinstance(error, getattr(sdk, kind))
    assert "4711" not in json.dumps(error.body)
    assert ("retry-after" in error.response.headers) == (answered in {429, 503, 529})
    shop.free_of_charge(customer, 1)


@BOTH
def test_502_upstream_down(shop: Storefront, send: Call, sdk: Any, model: str) -> None:
    customer = shop.new_customer()
    dead = DEAD_GPT if sdk is openai else DEAD_CLAUDE
    error = caught(send, shop, customer.key, model=dead)
    assert error.status_code == 502
    assert isinstance(error, sdk.InternalServerError)
    shop.free_of_charge(customer, 0)


def test_M5_a_stream_that_breaks_off_raises_and_is_settled_as_far_as_seen(shop: Storefront) -> None:
    customer = shop.new_customer()
    script = {"chunks": 6, "cut_after": 4, "delay_ms": 5}
    options: Any = {"base_url": f"{shop.base_url}/v1", "api_key": customer.key, "max_retries": 0}
    with openai.OpenAI(**options) as client, pytest.raises(openai.APIError, match="broke off"):
        list(client.chat.completions.create(model=GPT, max_tokens=9, messages=said(script), stream=True))
    options["base_url"] = shop.base_url
    with anthropic.Anthropic(**options) as claude, pytest.raises(anthropic.APIError, match="broke off"):
        list(claude.messages.create(model=SONNET, max_tokens=9, messages=said(script), stream=True))
    wait_until(lambda: len(shop.logs(customer.user)) == 2, 10.0)
    assert {row["evidence"] for row in shop.logs(customer.user)} <= {"partial", "estimated"}
    assert all(row.amount_pico < 0 for row in shop.spent_rows(customer.user))


def test_async_clients_raise_the_same(shop: Storefront) -> None:
    async def converse() -> None:
        client = openai.AsyncOpenAI(base_url=f"{shop.base_url}/v1", api_key=new_key(), max_retries=0)
        async with client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model=GPT, messages=said({}))
            with pytest.raises(openai.AuthenticationError):
                await client.responses.create(model=GPT, input="hello")
        claude = anthropic.AsyncAnthropic(base_url=shop.base_url, api_key=new_key(), max_retries=0)
        async with claude:
            with pytest.raises(anthropic.AuthenticationError):
                await claude.messages.create(model=SONNET, messages=said({}), max_tokens=9)
            with pytest.raises(anthropic.AuthenticationError):
                await claude.messages.count_tokens(model=SONNET, messages=said({}))

    asyncio.run(converse())
