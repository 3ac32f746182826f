"""A worker killed at every step of an exchange: the client tries again and is charged once for what he got
(J01 to J11, M3 to M6); what the kill cut off is charged as the table says, and never otherwise.

A real Farebox serves over HTTP while its failpoints are armed one after the other. A part of the table runs
here; `FAREBOX_FAULTS=all` (`make failpoints`) takes all of it.
"""

import http.client
import json
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.deployment import Customer, Deployment
from farebox.base.records import Transaction
from farebox.run.demo.processes import wait_until
from farebox.run.failpoints import FIRED, PERMIT, POINTS, VARIABLE

USD = 10**12
PRICE_PICO = 120 * 1_312_500 + 60 * 10_500_000
"""What the script below costs: 120 tokens in, 60 out."""

NOTHING, ESTIMATED, EXACT = "nothing", "estimated", "exact"


@dataclass(frozen=True)
class Case:
    """Where the worker dies, and what the exchange it was serving costs; `also` is armed beside it."""

    point: str
    costs: tuple[str, ...]
    stream: bool = False
    skip: int = 0
    also: str = ""


TABLE = (
    Case("proxy.fence", (NOTHING,), also="store.grant kill"),
    Case("proxy.grant", (NOTHING,)),
    Case("proxy.granted", (NOTHING,)),
    Case("store.grant", (NOTHING,)),
    Case("proxy.hold", (NOTHING,)),
    Case("journal.turn", (NOTHING,)),
    Case("journal.write", (NOTHING,)),
    Case("journal.written", (ESTIMATED,)),
    Case("proxy.sending", (ESTIMATED,)),
    Case("proxy.sent", (ESTIMATED,)),
    Case("proxy.answered", (ESTIMATED,), stream=True),
    Case("proxy.whole", (ESTIMATED,)),
    Case("proxy.chunk", (ESTIMATED,), stream=True),
    Case("proxy.settle", (ESTIMATED,)),
    Case("proxy.settling", (ESTIMATED,)),
    Case("journal.turn", (ESTIMATED,), skip=1),
    Case("journal.write", (ESTIMATED,), skip=1),
    Case("journal.written", (EXACT,), skip=1),
    Case("proxy.recorded", (EXACT,)),
    Case("proxy.recorded", (EXACT,), stream=True),
    Case("proxy.delivered", (EXACT,)),
    Case("journal.sync", (ESTIMATED, EXACT)),
    Case("journal.synced", (ESTIMATED, EXACT)),
    Case("proxy.void", (NOTHING,), also="journal.write raise OSError ENOSPC"),
    Case("proxy.return", (NOTHING,)),
    Case("proxy.returned", (NOTHING,)),
)
CHOSEN = {"proxy.granted", "proxy.sending", "proxy.chunk", "proxy.settle", "proxy.recorded"}
"""One of each kind; the others need `make failpoints`."""
CASES = TABLE if os.environ.get("FAREBOX_FAULTS") == "all" else [one for one in TABLE if one.point in CHOSEN]


def test_every_point_of_a_serving_worker_is_in_the_table() -> None:
    assert {point.name for point in POINTS if point.name.startswith("proxy.")} <= {one.point for one in TABLE}


def delivered(deployment: Deployment, customer: Customer, stream: bool) -> bool:
    """One request; whether its answer arrived whole."""
    script = json.dumps({"prompt": 120, "completion": 60, "chunks": 6, "delay_ms": 2})
    body = {
        "model": "gpt-5.1",
        "max_tokens": 200,
        "stream": stream,
        "messages": [{"role": "user", "content": f"script: {script}"}],
    }
    headers = {"Authorization": f"Bearer {customer.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{deployment.base_url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            data = response.read()
    except (OSError, http.client.HTTPException):
        return False
    return not stream or data.rstrip().endswith(b"[DONE]")


def served(deployment: Deployment, customer: Customer, stream: bool) -> None:
    """Try until an answer arrives, as a client library does."""
    assert wait_until(lambda: delivered(deployment, customer, stream), 60.0), deployment.log_tail("farebox")


def disturbed(deployment: Deployment, points: Path, one: Case, customer: Customer) -> None:
    """Arm the points, serve the customer, see that a process died and another takes its place."""
    before = fired(points)
    if one.also:
        point, order = one.also.split(maxsplit=1)
        (points / point).write_text(order)
    (points / one.point).write_text(f"kill skip={one.skip}")
    served(deployment, customer, one.stream)
    assert wait_until(lambda: fired(points) > before + bool(one.also), 30.0), f"{one.point} was not reached"
    victim = (points / FIRED).read_text().split()[-1]
    assert wait_until(lambda: not Path(f"/proc/{victim}").exists(), 30.0)
    assert deployment.ready()


def fired(points: Path) -> int:
    path = points / FIRED
    return len(path.read_text().splitlines()) if path.exists() else 0


def extra_cost(rows: list[Transaction]) -> str:
    """What was charged beside the answer that the customer got."""
    charges = sorted((str(row.charge["evidence"]), -row.amount_pico) for row in rows)
    if (EXACT, PRICE_PICO) not in charges:
        return f"not charged for his answer: {charges}"
    charges.remove((EXACT, PRICE_PICO))
    if not charges:
        return NOTHING
    ((evidence, amount_pico),) = charges
    if evidence == EXACT and amount_pico == PRICE_PICO:
        return EXACT
    return ESTIMATED if evidence == ESTIMATED and 0 < amount_pico < 4 * PRICE_PICO else str(charges)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_J06_J08_J09_J10_killed_at_each_step_of_an_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = tmp_path / "failpoints"
    points.mkdir()
    (points / PERMIT).touch()
    monkeypatch.setenv(VARIABLE, str(points))
    with Deployment(tmp_path) as deployment:
        customers = {}
        for number, one in enumerate(CASES):
            customers[one] = deployment.customer(f"user{number}", USD)
            disturbed(deployment, points, one, customers[one])
        deployment.settled([customer.user for customer in customers.values()], 60.0)
        report = deployment.verified()
        assert (report.differences, report.parked) == ([], [])
        wrong = []
        for one, customer in customers.items():
            rows = deployment.spent_rows(customer.user)
            cost = extra_cost(rows)
            if cost not in one.costs and not (cost == NOTHING and EXACT in one.costs):
                wrong.append((one, cost))
            left_pico = deployment.account(customer.user).balances["creditsNew"]
            assert left_pico == USD + sum(row.amount_pico for row in rows)
        assert wrong == []
