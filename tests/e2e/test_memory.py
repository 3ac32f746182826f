"""Promise O06: a worker that runs short of memory sheds load in steps, and loses or doubles nothing by it."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.storefront import GPT, Storefront
from farebox.base.counters import read_counters
from farebox.run.demo.processes import get, wait_until
from farebox.run.memory import ROOT_VARIABLE

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
MODELS = {"chat": GPT, "messages": "sonnet"}
ERRORS = {"chat": '"code":"overloaded"', "messages": '"type":"overloaded_error"'}


class Pressed(Storefront):
    """A deployment that takes what the test writes for the machine's memory."""

    @property
    def meminfo(self) -> Path:
        return self.folder / "system/proc/meminfo"

    def memory(self, used_percent: int) -> None:
        self.meminfo.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.meminfo.with_suffix(".new")
        fresh.write_text(f"MemTotal: 100 kB\nMemAvailable: {100 - used_percent} kB\n")
        fresh.replace(self.meminfo)

    def counters(self) -> dict[str, int]:
        (path,) = (self.folder / "run").glob("worker-?.counters")
        return read_counters(path)

    def reach(self, step: int) -> None:
        assert wait_until(lambda: self.counters()["memory_step"] == step, 20.0)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pressed]:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "system"))
    with Pressed(tmp_path) as shop:
        yield shop


def body(wire_format: str, *, stream: bool, **script: Any) -> bytes:
    content = f"script: {json.dumps({'prompt': 20, 'completion': 10, **script})}"
    message = {"role": "user", "content": content}
    value = {"model": MODELS[wire_format], "max_tokens": 4000, "stream": stream, "messages": [message]}
    return json.dumps(value).encode()


def ask(shop: Pressed, key: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers by lower-case name and JSON of one plain exchange, on a connection to be kept."""
    connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=60)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", PATHS["chat"], body("chat", stream=False), headers)
    answer = connection.getresponse()
    found = {name.lower(): value for name, value in answer.getheaders()}
    document = json.loads(answer.read())
    connection.close()
    return answer.status, found, document


class LongStream:
    """A stream that would run for minutes, read by a thread."""

    def __init__(self, shop: Pressed, key: str, wire_format: str) -> None:
        self.received = b""
        self._connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=120)
        script = body(wire_format, stream=True, completion=2000, chunks=2000, delay_ms=200)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._connection.request("POST", PATHS[wire_format], script, headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        self.received = self._answer.read1(65536)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while piece := self._answer.read1(65536):
            self.received += piece

    def ended(self) -> bool:
        return not self._thread.is_alive()


def test_O06_connections_then_new_requests_then_the_longest_streams(shop: Pressed) -> None:
    customer = shop.new_customer()
    status, headers, _ = ask(shop, customer.key)
    assert (status, headers.get("connection")) == (200, None)

    shop.memory(85)
    shop.reach(1)
    status, headers, _ = ask(shop, customer.key)
    assert (status, headers.get("connection")) == (200, "close")

    streams = {wire_format: LongStream(shop, customer.key, wire_format) for wire_format in PATHS}
    shop.memory(92)
    shop.reach(2)
    status, headers, refused = ask(shop, customer.key)
    assert (status, refused["error"]["code"]) == (503, "overloaded")
    assert int(headers["retry-after"]) >= 1
    assert get(shop.port, "/readyz")[0] == 503
    assert get(shop.port, "/healthz")[0] == 200
    assert not any(stream.ended() for stream in streams.values())

    shop.memory(97)
    shop.reach(3)
    assert wait_until(lambda: all(stream.ended() for stream in streams.values()), 30.0)
    for wire_format, stream in streams.items():
        last = stream.received.decode().strip().rpartition("\n\n")[2]
        assert ERRORS[wire_format] in last, last
    assert shop.counters()["cut_for_memory_total"] == 2

    shop.memory(10)
    shop.reach(0)
    status, headers, _ = ask(shop, customer.key)
    assert (status, headers.get("connection")) == (200, None)
    shop.close_books()
    outcomes = [log["outcome"] for log in shop.logs(customer.user)]
    assert sorted(outcomes) == ["cut", "cut", "ok", "ok", "ok"]
    assert len([row for row in shop.spent_rows(customer.user) if row.amount_pico]) == 5
