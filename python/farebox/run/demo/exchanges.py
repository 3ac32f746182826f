"""The exchanges a demonstration sends: ordinary client requests, with the scripted upstream's usage in the
prompt.
"""

import http.client
import json
from dataclasses import dataclass
from typing import Any, Final

from farebox.run.demo.processes import DemoError

TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request: a title for people, its route and body."""

    title: str
    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """What the client received. `exchange` is the id by which the charge is found."""

    exchange: str
    status: int
    body: bytes


def exchanges() -> list[Exchange]:
    """Chat, messages and responses, streamed and not, two of them with prompt-cache tokens."""
    chat = {"model": "gpt-5.1"}
    messages = {"model": "claude-sonnet-4-5", "max_tokens": 2000}
    return [
        Exchange(
            "chat completions",
            "/v1/chat/completions",
            {**chat, "messages": _said("Say hello.", prompt=1200, completion=300)},
        ),
        Exchange(
            "chat completions, streamed",
            "/v1/chat/completions",
            {**chat, "stream": True, "messages": _said("Count to 40.", prompt=80, completion=160, chunks=40)},
        ),
        Exchange(
            "messages, writing and reading the prompt cache",
            "/v1/messages",
            {
                **messages,
                "messages": _said(
                    "Summarise.", prompt=1200, completion=800, cache_write=2000, cache_read=10000
                ),
            },
        ),
        Exchange(
            "messages, streamed, reading the prompt cache",
            "/v1/messages",
            {
                **messages,
                "stream": True,
                "messages": _said("And again.", prompt=40, completion=500, cache_read=12000, chunks=25),
            },
        ),
        Exchange(
            "responses",
            "/v1/responses",
            {
                **chat,
                "input": _said("Plan a trip.", prompt=700, completion=900, reasoning=600, cache_read=512),
            },
        ),
        Exchange(
            "responses, streamed, a tool call",
            "/v1/responses",
            {
                **chat,
                "stream": True,
                "input": _said("Weather?", prompt=300, completion=60, tool="get_weather"),
            },
        ),
    ]


def _said(text: str, **script: object) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{text} script: {json.dumps(script)}"}]


def send(port: int, key: str, exchange: Exchange) -> Answered:
    """Send one exchange as any client would; raises DemoError unless it is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    try:
        connection.request("POST", exchange.path, json.dumps(exchange.body), headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DemoError(f"{exchange.title}: no answer: {error!r}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise DemoError(
            f"{exchange.title}: answered {response.status}: {body[:500].decode(errors='replace')}"
        )
    return Answered(response.getheader("x-request-id", ""), response.status, body)
