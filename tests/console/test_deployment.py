"""The console beside real workers: Prometheus scrapes them, its alerts fire, pages show what runs just now.

promtool runs the shipped rules over made-up series, each in a condition that fires it and one that does not;
a real server scrapes a real deployment under load and fires an alert there.
"""

import http.client
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.storefront import GPT, USD, Storefront
from farebox.base.clock import wall_ms
from farebox.console.metrics import FareboxCollector
from farebox.credits.admins import create_admin
from farebox.run.demo.processes import free_port, wait_until
from farebox.store.base import Event, EventResult, Record, RecordChange, Store
from needs import REPOSITORY, needs_program

CONFIGS = REPOSITORY / "configs" / "prometheus"
ALERTS = CONFIGS / "farebox-alerts.yml"
RULES = CONFIGS / "farebox-recording.yml"
"""What is recorded from other series."""


def promtool(*arguments: str) -> None:
    """Run promtool in the folder of the rules; its words where it finds fault."""
    command = [needs_program("promtool"), *arguments]
    done = subprocess.run(command, cwd=CONFIGS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_and_rules_are_right() -> None:
    promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_in_its_condition_and_is_silent_otherwise() -> None:
    promtool("test", "rules", "farebox-alerts.test.yml")
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    cases = (CONFIGS / "farebox-alerts.test.yml").read_text()
    tried = re.findall(r"alertname: (\w+)\n +exp_alerts:( \[\])?\n", cases)
    assert sorted(tried) == sorted((alert, silent) for alert in alerts for silent in ("", " []"))


def test_rules_and_dashboard_speak_of_series_that_exist() -> None:
    dashboard = json.loads((REPOSITORY / "configs" / "grafana" / "farebox.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked += re.findall(
        r"^ +(?:expr:)? .*farebox[_:].*$", RULES.read_text() + ALERTS.read_text(), re.MULTILINE
    )
    documented = (REPOSITORY / "docs" / "DASHBOARD.md").read_text(encoding="utf-8")
    families = set(re.findall(r"^\| `(farebox_[a-z0-9_]+)", documented, re.MULTILINE))
    exist = families | set(re.findall(r"- record: (\S+)", RULES.read_text()))
    named = {name for text in asked for name in re.findall(r"\bfarebox[_:][a-z0-9_:]+", text)}
    assert {name for name in named if name.removesuffix("_bucket") not in exist} == set()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storefront]:
    with Storefront(tmp_path_factory.mktemp("shop"), console={"port": free_port()}) as shop:
        yield shop


@contextmanager
def prometheus(folder: Path, console_port: int) -> Iterator[int]:
    """A Prometheus with the shipped files, faster and without patience; its port."""
    for path in (RULES, ALERTS):
        text = path.read_text()
        (folder / path.name).write_text(re.sub(r"^ +for: .*\n", "", text, flags=re.MULTILINE))
    config = (CONFIGS / "prometheus.yml").read_text()
    config = config.replace("127.0.0.1:8090", f"127.0.0.1:{console_port}").replace(": 15s", ": 1s")
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    command = [
        needs_program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int, path: str) -> Any:
    """What Prometheus says; nothing while it starts."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=5) as answer:
            return json.loads(answer.read())["data"]
    except OSError:
        return {}


def value(port: int, query: str) -> float | None:
    found = answers(port, f"query?query={query}").get("result") or []
    return float(found[0]["value"][1]) if found else None


def firing(port: int) -> set[str]:
    alerts = answers(port, "alerts").get("alerts", [])
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


async def leave_a_payment_waiting(store: Store) -> EventResult:
    record = Record(
        "payment", "sepay:1", 1, {"amount": "5"}, user="user0", status="review", created_ms=wall_ms()
    )
    return await store.apply_event(Event((), records=(RecordChange.insert(record),), actor="test"), wall_ms())


@pytest.mark.timeout(600)
def test_a_real_server_scrapes_a_deployment_under_load_and_fires(shop: Storefront, tmp_path: Path) -> None:
    customer = shop.new_customer(10 * USD)
    body = {"model": GPT, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
    request = urllib.request.Request(
        f"http://127.0.0.1:{shop.port}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {customer.key}", "Content-Type": "application/json"},
    )

    def send(count: int) -> None:
        for _ in range(count):
            urllib.request.urlopen(request, timeout=60).read()

    console_port = json.loads(shop.config.read_text())["console"]["port"]
    with prometheus(tmp_path, console_port) as port:

        def scraped_after_more_requests() -> bool:
            send(16)
            return (value(port, "farebox_exchanges_total") or 0) > 0

        assert wait_until(scraped_after_more_requests, 60), (tmp_path / "prometheus.log").read_text()
        assert value(port, 'up{job="farebox"}') == 1
        assert wait_until(lambda: (value(port, "farebox_added_latency_seconds_count") or 0) > 0, 60)
        assert wait_until(lambda: (value(port, "farebox_first_byte_seconds_count") or 0) > 0, 60)
        assert wait_until(lambda: value(port, "farebox_journal_lag_seconds") == 0, 60)
        assert value(port, "farebox_conservation_delta_pico") == 0
        assert "FareboxPaymentsWaiting" not in firing(port)
        assert shop.store(leave_a_payment_waiting) is EventResult.DONE
        assert wait_until(lambda: "FareboxPaymentsWaiting" in firing(port), 90)
        assert "FareboxMoneyInQuestion" not in firing(port)


def log_in(shop: Storefront, port: int) -> tuple[http.client.HTTPConnection, str]:
    """A connection of an operator, and his cookie."""

    async def token(store: Store) -> str:
        return (await create_admin(store, "watcher", "read-only", None, "test", wall_ms())).token

    body = json.dumps({"key": shop.store(token)})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/api/login", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    return connection, answer.headers["Set-Cookie"].partition(";")[0]


@pytest.mark.timeout(600)
def test_pages_show_what_runs_in_the_workers_and_how_the_writer_stands(shop: Storefront) -> None:
    customer = shop.new_customer(10 * USD)
    console_port = json.loads(shop.config.read_text())["console"]["port"]
    connection, cookie = log_in(shop, console_port)

    def live() -> str:
        connection.request("GET", "/live", headers={"Cookie": cookie})
        return connection.getresponse().read().decode()

    assert wait_until(lambda: "Money in question" in live(), 60)
    script = json.dumps({"prompt": 100, "completion": 9, "chunks": 9, "first_delay_ms": 30, "delay_ms": 3000})
    body = {
        "model": GPT,
        "stream": True,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": f"script: {script}"}],
    }
    stream = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=60)
    headers = {"Authorization": f"Bearer {customer.key}", "Content-Type": "application/json"}
    stream.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    assert wait_until(lambda: f">{customer.user}</a>" in live(), 60)
    stream.close()
    connection.close()


def test_what_is_exposed_is_what_the_collector_says() -> None:
    """No metric of the process or the interpreter comes along by default."""
    assert {family.name.split("_")[0] for family in FareboxCollector(list, Path("/none")).collect()} == {
        "farebox"
    }
