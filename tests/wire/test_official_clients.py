"""The official client libraries understand our errors, error events and cuts as what they are."""

from collections.abc import Awaitable, Callable

import anthropic
import openai
import pytest

from farebox.base.errors import Refusal, Refused
from farebox.wire.errors import cut_event, error_event
from farebox.wire.incoming import Incoming
from wire.rig import on_uvloop, serving

LATE = Refused(Refusal.UPSTREAM_TIMEOUT, "Late.")
SHORT = Refused(Refusal.BALANCE_SHORT, "Short.", details={"needed": "0.5"})
TEXT_EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message",'
    b'"role":"assistant",'
    b'"content":[],"model":"x","stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"hi"}}\n\n'
)


def streaming(events: bytes) -> Callable[[Incoming], Awaitable[None]]:
    async def handle(incoming: Incoming) -> None:
        await incoming.body()
        incoming.start_stream(200, [("Content-Type", "text/event-stream")])
        incoming.write_framed(events)
        incoming.end()

    return handle


async def refusing(incoming: Incoming) -> None:
    raise SHORT


def openai_client(port: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="k", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)


def anthropic_client(port: int) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key="k", base_url=f"http://127.0.0.1:{port}", max_retries=0)


@on_uvloop
async def test_openai_reads_a_refusal() -> None:
    async with serving(refusing) as (_, port), openai_client(port) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        assert caught.value.status_code == 402
        assert caught.value.body == {"message": "Short.", "type": "insufficient_balance", "needed": "0.5"}


@on_uvloop
async def test_anthropic_reads_a_refusal() -> None:
    async with serving(refusing) as (_, port), anthropic_client(port) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "x"}])
        assert caught.value.status_code == 402
        assert "insufficient_balance" in str(caught.value.body)


@on_uvloop
async def test_openai_sees_a_cut_chat_as_ended_by_its_limit() -> None:
    async with serving(streaming(cut_event("chat", "dry"))) as (_, port), openai_client(port) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        reasons = [choice.finish_reason async for chunk in stream for choice in chunk.choices]
        assert reasons == ["length"]


@on_uvloop
async def test_openai_sees_a_cut_completion_as_ended_by_its_limit() -> None:
    async with (
        serving(streaming(cut_event("completions", "dry"))) as (_, port),
        openai_client(port) as client,
    ):
        stream = await client.completions.create(model="m", prompt="x", stream=True)
        assert [chunk.choices[0].finish_reason async for chunk in stream] == ["length"]


@on_uvloop
async def test_openai_sees_a_cut_response_as_incomplete() -> None:
    async with serving(streaming(cut_event("responses", "dry"))) as (_, port), openai_client(port) as client:
        stream = await client.responses.create(model="m", input="x", stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events] == ["response.incomplete"]


@on_uvloop
async def test_anthropic_sees_a_cut_message_as_ended_by_its_limit() -> None:
    events = TEXT_EVENTS + cut_event("messages", "dry", output_tokens=3)
    async with serving(streaming(events)) as (_, port), anthropic_client(port) as client:
        async with client.messages.stream(
            model="m", max_tokens=5, messages=[{"role": "user", "content": "x"}]
        ) as stream:
            message = await stream.get_final_message()
        assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


@on_uvloop
async def test_openai_raises_on_an_error_event() -> None:
    async with serving(streaming(error_event("chat", LATE))) as (_, port), openai_client(port) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(openai.APIError, match="Late"):
            async for _ in stream:
                pass


@on_uvloop
async def test_anthropic_raises_on_an_error_event() -> None:
    events = TEXT_EVENTS + error_event("messages", LATE)
    async with serving(streaming(events)) as (_, port), anthropic_client(port) as client:
        with pytest.raises(anthropic.APIError, match="Late"):
            async with client.messages.stream(
                model="m", max_tokens=5, messages=[{"role": "user", "content": "x"}]
            ) as stream:
                await stream.get_final_message()
