"""Promise: two Farebox services, one a domain, share a MongoDB database behind the real nginx; each takes
from its own wallet, and together they spend no cent that is not there (M2).
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.domains import CHAT, CHAT2, MODEL, Domains, rich, smoke
from farebox.run.demo.processes import free_port, wait_until
from farebox.store.base import Store
from farebox.writer.verify import VerifyReport, verify
from needs import needs_program

pytestmark = [pytest.mark.needs_nginx]

PRICE_PICO = {CHAT: 100 * 2_362_500 + 50 * 12_600_000, CHAT2: 100 * 2_475_000 + 50 * 13_200_000}
"""100 input and 50 output tokens at 2.25 and 12 USD per million, times each domain's multiplier."""


class TwoServices(Domains):
    """A process set for each configuration, with data of its own; one database."""

    def __init__(self, folder: Path, nginx: str, url: str) -> None:
        self._url = url
        super().__init__(folder, nginx)

    def store_url(self) -> str:
        return self._url

    def write_config(self) -> None:
        super().write_config()
        for path, name in ((self.config, "chat"), (self.second_config, "chat2")):
            document = json.loads(path.read_text())
            document["data_dir"] = str(self.folder / name)
            document["store"] = {"url": self._url}
            document["console"]["port"] = free_port()
            path.write_text(json.dumps(document))

    def start_farebox(self) -> None:
        for path, port, name in (
            (self.config, self.port, "farebox"),
            (self.second_config, self.second_port, "farebox2"),
        ):
            child = self._start(name, ["farebox.run.cli", "serve", "--config", str(path)])
            self._wait(child, name, port, "/readyz")
            log = self.folder / f"{name}.log"
            assert wait_until(lambda log=log: "workers serve" in log.read_text(), 30.0)  # type: ignore[misc]

    def verified(self) -> VerifyReport:
        async def look(store: Store) -> VerifyReport:
            report = await verify(store, self.folder / "chat" / "journals")
            report.differences += (await verify(store, self.folder / "chat2" / "journals")).differences
            return report

        return self.store(look)


@pytest.fixture
def services(tmp_path: Path, mongodb_url: str) -> Iterator[TwoServices]:
    with TwoServices(tmp_path, needs_program("nginx"), mongodb_url) as services:
        yield services


@pytest.mark.timeout(240)
def test_M2_two_services_on_one_database_each_take_from_their_own_wallet(services: TwoServices) -> None:
    customer = rich(services, "smoke")
    first = smoke(services, customer, CHAT, "--wallet", "openhands")
    second = smoke(services, customer, CHAT2, "--wallet", "ohmygpt")
    assert (first["exit"], second["exit"]) == (0, 0), (first, second)
    assert (first["pools"], second["pools"]) == ("creditsNew", "credits")
    assert first["upstream"] == second["upstream"] == "openhands"
    assert {log["creditType"] for log in services.logs("smoke")} == {"openhands", "ohmygpt"}

    poor = services.customer("poor", 4 * PRICE_PICO[CHAT] + 1, "creditsNew")
    services.top_up("poor", 2 * PRICE_PICO[CHAT2], "credits", "few")
    services.top_up("poor", 2 * PRICE_PICO[CHAT2] + 1, "refCredits", "more")
    script = f"script: {json.dumps({'prompt': 100, 'completion': 50})}"
    body = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": script}]}

    def one(number: int) -> tuple[str, int]:
        domain = (CHAT, CHAT2)[number % 2]
        return domain, services.ask(domain, "POST", "/v1/chat/completions", body, poor.key)[0]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(one, range(24)))
    assert {status for _, status in answers} <= {200, 402}
    for domain, price_pico in PRICE_PICO.items():
        assert 0 < sum(answer == (domain, 200) for answer in answers) <= 4, (domain, price_pico)
    served = sum(status == 200 for _, status in answers)
    assert wait_until(lambda: len({row.reference for row in services.spent_rows("poor")}) == served, 30.0)
    services.settled(["poor", "smoke"], 40.0)
    account = services.account("poor")
    assert account.written_off_pico == 0
    assert all(left >= 0 for left in account.balances.values())
    spent = sum(
        price_pico * sum(answer == (domain, 200) for answer in answers)
        for domain, price_pico in PRICE_PICO.items()
    )
    granted = 4 * PRICE_PICO[CHAT] + 1 + 4 * PRICE_PICO[CHAT2] + 1
    assert sum(account.balances.values()) == granted - spent
