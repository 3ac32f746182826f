"""Promise: the official OpenAI and Anthropic clients work unchanged, and each answer is charged exactly.

The clients, the processes and the store are real; usage is scripted, so the bill is known to the pico.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from e2e.deployment import Customer
from e2e.storefront import EMBEDDING, GPT, SONNET, Storefront, price_pico

CHAT = {"prompt": 120, "completion": 40, "cache_read": 30}
CHAT_PICO = price_pico(GPT, input=120, output=40, cache_read=30)
MESSAGES = {"prompt": 100, "completion": 25, "cache_read": 400, "cache_write": 60, "cache_write_1h": 20}
MESSAGES_PICO = price_pico(SONNET, input=100, output=25, cache_read=400, cache_write=60, cache_write_1h=20)
CHAT_TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
MESSAGES_TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storefront]:
    with Storefront(tmp_path_factory.mktemp("sdks")) as storefront:
        yield storefront
        storefront.close_books()


@pytest.fixture
def customer(shop: Storefront) -> Customer:
    return shop.new_customer()


def said(**script: Any) -> Any:
    """One user message that carries the script."""
    return [{"role": "user", "content": f"script: {json.dumps(script)}"}]


def open_client(shop: Storefront, customer: Customer, **options: Any) -> openai.OpenAI:
    options = {"max_retries": 0, "api_key": customer.key, **options}
    return openai.OpenAI(base_url=f"{shop.base_url}/v1", **options)


def open_client_async(shop: Storefront, customer: Customer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{shop.base_url}/v1", api_key=customer.key, max_retries=0)


def claude_client(shop: Storefront, customer: Customer, **options: Any) -> anthropic.Anthropic:
    options = {"max_retries": 0, "api_key": customer.key, **options}
    return anthropic.Anthropic(base_url=shop.base_url, **options)


def claude_client_async(shop: Storefront, customer: Customer) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=shop.base_url, api_key=customer.key, max_retries=0)


# -- OpenAI ------------------------------------------------------------


def test_chat_plain(shop: Storefront, customer: Customer) -> None:
    with open_client(shop, customer) as client:
        answer = client.chat.completions.create(model=GPT, messages=said(**CHAT), max_tokens=100)
    assert answer.choices[0].message.content == "word0 word1 word2 word3 word4 "
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (150, 40)
    shop.charged(customer, [CHAT_PICO])


@pytest.mark.parametrize("asked", [False, True], ids=["usage-not-asked", "usage-asked"])
def test_M9_chat_stream_shows_usage_only_to_who_asked(
    shop: Storefront, customer: Customer, asked: bool
) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if asked else {}
    with open_client(shop, customer) as client:
        stream = client.chat.completions.create(
            model=GPT, messages=said(**CHAT), max_tokens=100, stream=True, **options
        )
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        "word0 word1 word2 word3 word4 "
    )
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert [usage.total_tokens for usage in usages] == ([190] if asked else [])
    assert [chunk for chunk in chunks if not chunk.choices] == (chunks[-1:] if asked else [])
    shop.charged(customer, [CHAT_PICO])


def test_chat_tools_plain_and_streamed(shop: Storefront, customer: Customer) -> None:
    script = said(**CHAT, tool="weather", chunks=3)
    with open_client(shop, customer) as client:
        answer = client.chat.completions.create(
            model=GPT, messages=script, max_tokens=100, tools=CHAT_TOOLS, tool_choice="auto"
        )
        stream = client.chat.completions.create(
            model=GPT, messages=script, max_tokens=100, tools=CHAT_TOOLS, stream=True
        )
        calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
    called: Any = answer.choices[0].message.tool_calls
    assert json.loads(called[0].function.arguments) == {"city": "Paris", "unit": "celsius"}
    assert answer.choices[0].finish_reason == "tool_calls"
    assert calls[0].function is not None
    assert calls[0].function.name == "weather"
    streamed = "".join(call.function.arguments or "" for call in calls if call.function is not None)
    assert json.loads(streamed) == {"city": "Paris", "unit": "celsius"}
    shop.charged(customer, [CHAT_PICO, CHAT_PICO])


def test_chat_stream_helper(shop: Storefront, customer: Customer) -> None:
    with (
        open_client(shop, customer) as client,
        client.chat.completions.stream(model=GPT, messages=said(**CHAT), max_tokens=100) as stream,
    ):
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content == "word0 word1 word2 word3 word4 "
    shop.charged(customer, [CHAT_PICO])


def test_responses_plain_and_streamed(shop: Storefront, customer: Customer) -> None:
    with open_client(shop, customer) as client:
        answer = client.responses.create(model=GPT, input=said(**CHAT), max_output_tokens=100)
        stream = client.responses.create(
            model=GPT, input=said(**CHAT, chunks=9), max_output_tokens=100, stream=True
        )
        events = list(stream)
        with client.responses.stream(model=GPT, input=said(**CHAT), max_output_tokens=100) as helper:
            final = helper.get_final_response()
    assert answer.output_text == "word0 word1 word2 word3 word4 "
    assert answer.usage is not None
    assert answer.usage.total_tokens == 190
    assert events[-1].type == "response.completed"
    assert sum(event.type == "response.output_text.delta" for event in events) == 9
    assert final.output_text == answer.output_text
    shop.charged(customer, [CHAT_PICO] * 3)


def test_completions_plain_and_streamed(shop: Storefront, customer: Customer) -> None:
    prompt = f"script: {json.dumps(CHAT)}"
    with open_client(shop, customer) as client:
        answer = client.completions.create(model=GPT, prompt=prompt, max_tokens=100)
        stream = client.completions.create(model=GPT, prompt=prompt, max_tokens=100, stream=True)
        chunks = list(stream)
    assert answer.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)
    shop.charged(customer, [CHAT_PICO, CHAT_PICO])


def test_embeddings(shop: Storefront, customer: Customer) -> None:
    with open_client(shop, customer) as client:
        answer = client.embeddings.create(model=EMBEDDING, input=['script: {"prompt": 33}'])
    assert answer.data[0].embedding == [0.25, -0.5, 0.125, 1.0]
    assert answer.usage.prompt_tokens == 33
    shop.charged(customer, [price_pico(EMBEDDING, input=33)])


def test_openai_lists_models(shop: Storefront, customer: Customer) -> None:
    with open_client(shop, customer) as client:
        listed = {model.id for model in client.models.list()}
        one = client.models.retrieve(GPT)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-unknown")
    assert {GPT, EMBEDDING, "claude-sonnet-4-5-20250929"} <= listed
    assert (one.id, one.object) == (GPT, "model")


def test_openai_raw_and_streaming_response(shop: Storefront, customer: Customer) -> None:
    with open_client(shop, customer) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=GPT, messages=said(**CHAT), max_tokens=100
        )
        with client.chat.completions.with_streaming_response.create(
            model=GPT, messages=said(**CHAT), max_tokens=100, stream=True
        ) as streamed:
            lines = list(streamed.iter_lines())
    assert raw.status_code == 200
    assert raw.headers["x-farebox-cost"] == f"0.{CHAT_PICO:012d}".rstrip("0")
    assert raw.headers["x-request-id"] == raw.request_id
    assert raw.parse().usage is not None
    assert lines[-2:] == ["data: [DONE]", ""] or lines[-1] == "data: [DONE]"
    assert not any('"usage":{' in line for line in lines)
    shop.charged(customer, [CHAT_PICO, CHAT_PICO])


def test_openai_async(shop: Storefront, customer: Customer) -> None:
    async def converse() -> None:
        async with open_client_async(shop, customer) as client:
            answer = await client.chat.completions.create(model=GPT, messages=said(**CHAT), max_tokens=100)
            assert answer.usage is not None
            stream = await client.chat.completions.create(
                model=GPT, messages=said(**CHAT), max_tokens=100, stream=True
            )
            assert [chunk.usage async for chunk in stream] == [None] * 7
            raw = await client.responses.with_raw_response.create(
                model=GPT, input=said(**CHAT), max_output_tokens=100
            )
            assert (await _parsed(raw)).output_text == "word0 word1 word2 word3 word4 "
            tool = await client.chat.completions.create(
                model=GPT, messages=said(**CHAT, tool="weather"), max_tokens=100, tools=CHAT_TOOLS
            )
            assert tool.choices[0].message.tool_calls
            assert [model.id async for model in client.models.list()][:1] == [GPT]

    asyncio.run(converse())
    shop.charged(customer, [CHAT_PICO] * 4)


async def _parsed(raw: Any) -> Any:
    parsed = raw.parse()
    return await parsed if asyncio.iscoroutine(parsed) else parsed


# -- Anthropic ------------------------------------------------------------


def test_messages_plain(shop: Storefront, customer: Customer) -> None:
    with claude_client(shop, customer) as client:
        answer = client.messages.create(model=SONNET, messages=said(**MESSAGES), max_tokens=100)
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "word0 word1 word2 word3 word4 "
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 25)
    shop.charged(customer, [MESSAGES_PICO])


def test_messages_streams(shop: Storefront, customer: Customer) -> None:
    with claude_client(shop, customer) as client:
        events = list(
            client.messages.create(model=SONNET, messages=said(**MESSAGES), max_tokens=100, stream=True)
        )
        with client.messages.stream(model=SONNET, messages=said(**MESSAGES), max_tokens=100) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")
    assert text == "word0 word1 word2 word3 word4 "
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 25)
    shop.charged(customer, [MESSAGES_PICO, MESSAGES_PICO])


def test_messages_tools_plain_and_streamed(shop: Storefront, customer: Customer) -> None:
    script = said(**MESSAGES, tool="weather", chunks=3)
    with claude_client(shop, customer) as client:
        answer = client.messages.create(model=SONNET, messages=script, max_tokens=100, tools=MESSAGES_TOOLS)
        with client.messages.stream(
            model=SONNET, messages=script, max_tokens=100, tools=MESSAGES_TOOLS
        ) as stream:
            streamed = stream.get_final_message()
    for message in (answer, streamed):
        assert message.stop_reason == "tool_use"
        assert message.content[0].type == "tool_use"
        assert message.content[0].input == {"city": "Paris", "unit": "celsius"}
    shop.charged(customer, [MESSAGES_PICO, MESSAGES_PICO])


def test_count_tokens_is_answered_and_free(shop: Storefront, customer: Customer) -> None:
    with claude_client(shop, customer) as client:
        counted = client.messages.count_tokens(model=SONNET, messages=said(prompt=77))
        client.messages.create(model=SONNET, messages=said(**MESSAGES), max_tokens=100)
    assert counted.input_tokens == 77
    shop.charged(customer, [MESSAGES_PICO])


def test_anthropic_lists_models(shop: Storefront, customer: Customer) -> None:
    with claude_client(shop, customer) as client:
        listed = list(client.models.list())
        one = client.models.retrieve(SONNET)
    assert {model.type for model in listed} == {"model"}
    assert "Claude Sonnet 4.5" in {model.display_name for model in listed}
    assert one.display_name == "Claude Sonnet 4.5"


def test_anthropic_raw_and_streaming_response(shop: Storefront, customer: Customer) -> None:
    with claude_client(shop, customer) as client:
        raw = client.messages.with_raw_response.create(
            model=SONNET, messages=said(**MESSAGES), max_tokens=100
        )
        with client.messages.with_streaming_response.create(
            model=SONNET, messages=said(**MESSAGES), max_tokens=100
        ) as streamed:
            assert json.loads(streamed.read())["usage"]["output_tokens"] == 25
    assert raw.headers["x-farebox-cost"] == f"0.{MESSAGES_PICO:012d}".rstrip("0")
    assert raw.parse().usage.cache_read_input_tokens == 400
    shop.charged(customer, [MESSAGES_PICO, MESSAGES_PICO])


def test_anthropic_key_as_bearer_token(shop: Storefront, customer: Customer) -> None:
    with claude_client(shop, customer, api_key=None, auth_token=customer.key) as client:
        client.messages.create(model=SONNET, messages=said(**MESSAGES), max_tokens=100)
    shop.charged(customer, [MESSAGES_PICO])


def test_anthropic_async(shop: Storefront, customer: Customer) -> None:
    async def converse() -> None:
        async with claude_client_async(shop, customer) as client:
            answer = await client.messages.create(model=SONNET, messages=said(**MESSAGES), max_tokens=100)
            assert answer.usage.output_tokens == 25
            async with client.messages.stream(
                model=SONNET, messages=said(**MESSAGES), max_tokens=100
            ) as stream:
                assert await anext(aiter(stream.text_stream)) == "word0 "
            counted = await client.messages.count_tokens(model=SONNET, messages=said(prompt=5))
            assert counted.input_tokens == 5
            assert [model.id async for model in client.models.list()][:1] == [GPT]

    asyncio.run(converse())
    shop.charged(customer, [MESSAGES_PICO, MESSAGES_PICO])
