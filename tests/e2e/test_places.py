"""Promise: an upstream with several places is used by weight, around what is broken, and never twice for one
request that may have been worked on; whoever serves an exchange, it is charged once.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from e2e.raw_http import Answer, exchange, request
from e2e.storefront import GPT, SONNET, USD, Storefront, price_pico
from farebox.run.demo.processes import free_port, get, wait_until

PRICE_PICO = price_pico(GPT, input=10, output=5)


class Places(Storefront):
    """The demonstration's upstream, and two more with the same credential: `ports`, in their order.

    A place in the tests names the upstream it stands for by `number`; the first stands for itself.
    """

    endpoint = "demo-openai"

    def __init__(self, folder: Path, main: dict[str, Any], *alternatives: dict[str, Any]) -> None:
        self.ports: list[int] = []
        self.upstreams: list[subprocess.Popen[bytes]] = []
        self._main, self._alternatives = main, alternatives
        super().__init__(folder)

    def amend(self, document: dict[str, Any]) -> None:
        super().amend(document)
        self.ports = [self.upstream_port, self._another(), self._another()]
        endpoint = next(each for each in document["endpoints"] if each["name"] == self.endpoint)
        endpoint.update(self._main)
        endpoint["alternatives"] = [self._place(**each) for each in self._alternatives]

    def _place(self, number: int, **place: Any) -> dict[str, Any]:
        address = f"http://127.0.0.1:{self.ports[number]}"
        return {"base_url": address, "api_key_env": "FAREBOX_DEMO_UPSTREAM_KEY", **place}

    def _another(self) -> int:
        port = free_port()
        command = ["farebox.run.demo.upstream", "--port", str(port)]
        command += ["--key", os.environ["FAREBOX_DEMO_UPSTREAM_KEY"]]
        self.upstreams.append(self._start(f"upstream-{port}", command))
        self._wait(self.upstreams[-1], f"upstream-{port}", port, "/_log?lines=0")
        return port

    def served(self) -> list[tuple[int, dict[str, int]]]:
        """What each upstream received, and how often it answered with each status."""
        logs = [json.loads(get(port, "/_log?lines=0")[1]) for port in self.ports]
        return [(log["received"], log["statuses"]) for log in logs]


def ask(shop: Places, key: str, **script: Any) -> Answer:
    content = f"script: {json.dumps({'prompt': 10, 'completion': 5, **script})}"
    body = {"model": GPT, "max_tokens": 20, "messages": [{"role": "user", "content": content}]}
    head = {"authorization": f"Bearer {key}"}
    return exchange(shop.port, request("POST", "/v1/chat/completions", orjson.dumps(body), **head))


@pytest.fixture
def wrong_key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FAREBOX_TEST_WRONG_KEY", "sk-wrong")
    return "FAREBOX_TEST_WRONG_KEY"


def test_requests_are_shared_out_by_weight(tmp_path: Path) -> None:
    with Places(tmp_path, {"weight": 3}, {"number": 1, "weight": 2}, {"number": 2}) as shop:
        customer = shop.new_customer()
        for _ in range(12):
            assert ask(shop, customer.key).status == 200
        assert [received for received, _ in shop.served()] == [6, 4, 2]
        shop.charged(customer, [PRICE_PICO] * 12)
        shop.close_books()


def test_a_refused_credential_is_asked_once_and_rests(tmp_path: Path, wrong_key: str) -> None:
    with Places(tmp_path, {"api_key_env": wrong_key, "weight": 5}, {"number": 1}) as shop:
        customer = shop.new_customer()
        answers = [ask(shop, customer.key) for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 6
        assert all("sk-wrong" not in answer.body.decode() for answer in answers)
        assert shop.served()[0] == (1, {"401": 1})
        assert shop.served()[1] == (6, {"200": 6})
        shop.charged(customer, [PRICE_PICO] * 6)
        shop.close_books()


def test_L24_an_address_where_nobody_listens_is_passed_over(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with Places(tmp_path, {"base_url": dead}, {"number": 1}) as shop:
        customer = shop.new_customer()
        assert [ask(shop, customer.key).status for _ in range(6)] == [200] * 6
        assert shop.served()[1][0] == 6
        shop.charged(customer, [PRICE_PICO] * 6)
        shop.close_books()


def test_where_every_place_is_busy_each_is_asked_once_and_nothing_is_charged(tmp_path: Path) -> None:
    with Places(tmp_path, {}, {"number": 1}, {"number": 2}) as shop:
        customer = shop.new_customer()
        answer = ask(shop, customer.key, status=429)
        assert answer.status >= 429
        assert [received for received, _ in shop.served()] == [1, 1, 1]
        shop.free_of_charge(customer, 1)
        shop.close_books()


def test_L24_what_may_have_been_worked_on_is_not_sent_again(tmp_path: Path) -> None:
    statuses = [500, 502, 504, 400]
    with Places(tmp_path, {}, {"number": 1}) as shop:
        customer = shop.new_customer()
        for count, status in enumerate(statuses, start=1):
            assert ask(shop, customer.key, status=status).status >= 400
            assert sum(received for received, _ in shop.served()) == count
        shop.free_of_charge(customer, len(statuses))
        shop.close_books()


def test_a_place_that_dies_under_load_costs_what_ran_there_and_nothing_else(tmp_path: Path) -> None:
    with Places(tmp_path, {}, {"number": 1}) as shop:
        customer = shop.new_customer(1000 * USD)
        assert [ask(shop, customer.key).status for _ in range(4)] == [200] * 4
        shop.upstreams[0].kill()
        shop.upstreams[0].wait()
        statuses = [ask(shop, customer.key).status for _ in range(20)]
        assert statuses == [200] * 20
        assert wait_until(lambda: len(shop.spent_rows(customer.user)) == 24, 20.0)
        shop.close_books()


class ClaudePlaces(Places):
    """The same for the endpoint that counts tokens."""

    endpoint = "demo-anthropic"


def count_tokens(shop: Places, key: str) -> Answer:
    content = 'script: {"prompt": 77}'
    body = {"model": SONNET, "messages": [{"role": "user", "content": content}]}
    head = {"authorization": f"Bearer {key}"}
    return exchange(shop.port, request("POST", "/v1/messages/count_tokens", orjson.dumps(body), **head))


def test_tokens_are_counted_by_any_place_around_those_that_fail(tmp_path: Path, wrong_key: str) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with ClaudePlaces(
        tmp_path,
        {"base_url": dead, "weight": 5},
        {"number": 1, "api_key_env": wrong_key, "weight": 5},
        {"number": 2},
    ) as shop:
        customer = shop.new_customer()
        answers = [count_tokens(shop, customer.key) for _ in range(6)]
        assert [(answer.status, json.loads(answer.body)["input_tokens"]) for answer in answers] == [
            (200, 77)
        ] * 6
        assert shop.served()[1][1].keys() == {"401"}
        assert shop.served()[2] == (6, {"200": 6})
        assert shop.spent_rows(customer.user) == []
        shop.close_books()


def test_where_no_place_counts_tokens_the_client_is_told_once(tmp_path: Path, wrong_key: str) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with ClaudePlaces(tmp_path, {"base_url": dead}, {"number": 1, "api_key_env": wrong_key}) as shop:
        customer = shop.new_customer()
        answer = count_tokens(shop, customer.key)
        assert answer.status == 502
        assert "sk-wrong" not in answer.body.decode()
        assert shop.served()[1] == (1, {"401": 1})
