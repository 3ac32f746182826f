"""The scenarios: one class each, to be named on locust's command line or picked on its page.

    FAREBOX_KEY=sk-… locust -f bench/locust/locustfile.py --host https://chat.example.com ChatPlain Agents

Without names all of them run side by side. Nothing here imports Farebox: locust patches the whole process.
docs/BENCH.md has options, keys and thresholds.
"""

import random
import secrets
import socket
import sys
from typing import ClassVar

import ending
import options as own
import verdict
from customer import Customer
from locust.env import Environment
from prompts import PATHS, Json, filler, request, tool_turns, with_system, with_tools

from locust import between, events, task

FORMATS = tuple(PATHS)
SMALL = {"prompt": 40, "completion": 60, "chunks": 30, "delay_ms": 10}
"""The script of ordinary exchanges; streamed, it takes 0.3 s."""
PREFIX = filler(12_000)

verdict.watch()
events.init.add_listener(ending.watch)


@events.init.add_listener
def refuse_without_keys(environment: Environment, **_: object) -> None:
    """End at once where a chosen scenario has no key, rather than count its failures."""
    options = environment.parsed_options
    if options is None or (options.master and not options.processes):
        return  # such a master sends nothing; its workers elsewhere have the keys
    wanted = {user.key_variable: user.__name__ for user in environment.user_classes}
    missing = [f"{name}: {why}" for variable, name in wanted.items() if (why := own.missing_key(variable))]
    if missing:
        sys.exit("\n".join(missing))


# -- ordinary exchanges --------------------------------------------------------------------------------------


class Small(Customer):
    """Asks a small question, in any wire format."""

    abstract = True

    def ask_small(self, wire_format: str, is_streamed: bool, name: str) -> None:
        """One exchange."""
        turns = [self.asked("Count from one to thirty, in words.", **SMALL)]
        model = self.model(wire_format)
        body = request(wire_format, model, turns, output_tokens=200, is_streamed=is_streamed)
        self.exchange(wire_format, body, name)

    def ask_anything(self, name: str) -> None:
        """One exchange of any kind."""
        self.ask_small(random.choice(FORMATS), random.random() < 0.5, name)


class Ordinary(Small):
    """Asks again as soon as it is answered, always in the same way."""

    abstract = True
    wire_format = "chat"
    is_streamed = False

    @task
    def ask(self) -> None:
        way = "streamed" if self.is_streamed else "plain"
        self.ask_small(self.wire_format, self.is_streamed, f"{self.wire_format}, {way}")


class ChatPlain(Ordinary):
    """Chat completions in one piece."""


class ChatStreamed(Ordinary):
    """Chat completions as streams, usage not asked for: Farebox asks, and takes it out again."""

    is_streamed = True


class MessagesPlain(Ordinary):
    """Anthropic messages in one piece."""

    wire_format = "messages"


class MessagesStreamed(MessagesPlain):
    """Anthropic messages as streams."""

    is_streamed = True


class ResponsesPlain(Ordinary):
    """Responses in one piece."""

    wire_format = "responses"


class ResponsesStreamed(ResponsesPlain):
    """Responses as streams."""

    is_streamed = True


class Crowd(Small):
    """People: any kind of exchange, one to five seconds of thought before the next. Made for 1,000 users."""

    wait_time = between(1, 5)

    @task
    def ask(self) -> None:
        self.ask_anything("crowd")


# -- models, caches, agents ----------------------------------------------------------------------------------


class MixedModels(Customer):
    """Every model and format in turn behind one long prefix: first written to the prompt cache, then read."""

    @task
    def ask(self) -> None:
        wire_format = random.choice(FORMATS)
        is_first = wire_format == "messages" and random.random() < 0.1
        cached: Json = {"cache_write" if is_first else "cache_read": 3000}
        script = {"prompt": 30, "completion": 40, "chunks": 10, "delay_ms": 5, **cached}
        turns = [self.asked("Summarise the above in a sentence.", **script)]
        body = request(
            wire_format,
            self.model(wire_format),
            turns,
            output_tokens=100,
            is_streamed=random.random() < 0.5,
        )
        self.exchange(wire_format, with_system(wire_format, body, PREFIX), f"mixed models, {wire_format}")


class Agents(Customer):
    """Coding agents: tools, a prompt that grows by 10 KB a turn to some 100 KB, nearly all of it cached."""

    turns_max = 8

    @task
    def work(self) -> None:
        wire_format = random.choice(FORMATS)
        model = self.model(wire_format)
        history = [self.asked("Find out why the nightly build fails, and mend it.")]
        for number in range(self.turns_max):
            script = {
                "prompt": 2500,
                "cache_read": 2500 * number,
                "completion": 40,
                "chunks": 8,
                "delay_ms": 5,
            }
            script["tool"] = "read_file"
            turns = [*history, self.asked("Go on.", **script)]
            body = request(wire_format, model, turns, output_tokens=400, is_streamed=True)
            body = with_tools(wire_format, with_system(wire_format, body, PREFIX))
            self.exchange(wire_format, body, f"agents, {wire_format}")
            history += tool_turns(wire_format, number, filler(10_000))


# -- streams that are hard on a proxy ------------------------------------------------------------------------


class LongStreams(Customer):
    """Streams of --long-stream-s, an event every 50 ms."""

    @task
    def listen(self) -> None:
        chunks = max(1, round(self.options.long_stream_s / 0.05))
        script = {"prompt": 40, "completion": 2 * chunks, "chunks": chunks, "delay_ms": 50}
        turns = [self.asked(f"Write a story of {chunks} words.", **script)]
        body = request("chat", self.model("chat"), turns, output_tokens=2 * chunks, is_streamed=True)
        self.exchange("chat", body, "long streams")


def narrow_socket(family: int, kind: int, protocol: int) -> socket.socket:
    """A socket as across a network: on loopback the kernel would take whole answers off Farebox's hands."""
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)
    return made


class SlowReaders(Customer):
    """A long answer that comes at once and is read at 2,000 events a second: the rest has to wait."""

    pause_s, pause_every = 0.05, 100

    def on_start(self) -> None:
        pool = self.client.client.clientpool.get_client(self.host)._connection_pool
        pool._create_tcp_socket = narrow_socket

    @task
    def read(self) -> None:
        script = {"prompt": 40, "completion": 6000, "chunks": 6000}
        turns = [self.asked("Write a story of 6,000 words.", **script)]
        body = request("chat", self.model("chat"), turns, output_tokens=6000, is_streamed=True)
        self.exchange("chat", body, "slow readers")


class Disconnects(Customer):
    """Clients that leave in the middle of a stream; what the upstream made is charged all the same."""

    @task
    def leave(self) -> None:
        wire_format = random.choice(FORMATS)
        turns = [self.asked("Count from one to two hundred.", **{**SMALL, "completion": 200, "chunks": 100})]
        body = request(wire_format, self.model(wire_format), turns, output_tokens=400, is_streamed=True)
        self.exchange(wire_format, body, f"disconnects, {wire_format}", leave_after=random.randint(2, 60))


# -- money and keys ------------------------------------------------------------------------------------------


class EmptyWallet(Small):
    """Nobody pays: 402 is right, an answer is a failure."""

    key_variable = own.EMPTY_KEY
    expected: ClassVar[frozenset[int]] = frozenset({402})
    wait_time = between(0.01, 0.05)

    @task
    def ask(self) -> None:
        self.ask_anything("empty wallet")


class TinyWallet(Small):
    """All at once on the last cents of one wallet: answers until it is empty, then 402."""

    key_variable = own.TINY_KEY
    expected: ClassVar[frozenset[int]] = frozenset({200, 402})
    wait_time = between(0.01, 0.05)

    @task
    def ask(self) -> None:
        self.ask_anything("tiny wallet")


class WrongKeys(Small):
    """Keys nobody has: 401 is right, and must stay cheap."""

    key_variable = ""
    expected: ClassVar[frozenset[int]] = frozenset({401})
    wait_time = between(0.01, 0.05)

    @task
    def ask(self) -> None:
        self.key = f"sk-wrong-{secrets.token_hex(16)}"
        self.ask_anything("wrong keys")
