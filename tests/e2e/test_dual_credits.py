"""The replaced system's open checklist, on real processes and both stores: two ports, two wallets, a shop and
its bank; on MongoDB beside documents that the replaced system left.

purchase -> creditsNew; the port of wallet openhands spends creditsNew, the one of ohmygpt spends credits;
each refuses for its own wallet; nobody is served on expired credit, whether or not a sweeper has run.
"""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.deployment import Customer, Deployment
from farebox.base.clock import wall_ms
from farebox.base.errors import StoreDownError
from farebox.base.keys import new_key
from farebox.credits.admins import create_admin
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.run.demo.processes import free_port, get, wait_until

PRICE_PICO = 100 * 1_312_500 + 50 * 10_500_000
BODY = {
    "model": "gpt-5.1",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": 'script: {"prompt": 100, "completion": 50}' + " word" * 30}],
}
USD = 10**12
BANK_KEY = "bank-key-of-this-test"


class TwoPorts(Deployment):
    """`port` spends creditsNew, `old_port` spends credits and refCredits; the console sells credit."""

    def __init__(self, folder: Path, url: str) -> None:
        self._url = url
        super().__init__(folder)

    def store_url(self) -> str:
        return self._url or super().store_url()

    def amend(self, document: dict[str, Any]) -> None:
        super().amend(document)
        document["store"] = {"url": self.store_url()}
        (self.folder / "bank.key").write_text(BANK_KEY)
        document["credits"] = {
            "rates": {"VND": "2500"},
            "sepay": {"api_key_file": str(self.folder / "bank.key")},
        }
        self.console = f"http://127.0.0.1:{document['console']['port']}"
        self.console_port = document["console"]["port"]
        self.old_port = free_port()
        old = json.loads(json.dumps(document))
        old.update(port=self.old_port, name="ohmygpt")
        for model in old["models"]:
            model["billing_upstream"] = "ohmygpt"
        self.old_config = self.folder / "old.json"
        self.old_config.write_text(json.dumps(old))
        document["name"] = "openhands"

    def start_farebox(self) -> None:
        files = ["--config", str(self.config), "--config", str(self.old_config)]
        child = self._start("farebox", ["farebox.run.cli", "serve", *files, "--workers", "1"])
        for port, path in (
            (self.port, "/readyz"),
            (self.old_port, "/readyz"),
            (self.console_port, "/healthz"),
        ):
            self._wait(child, "farebox", port, path)

    def ask(self, port: int, customer: Customer) -> tuple[int, dict[str, Any]]:
        """One exchange."""
        headers = {"Authorization": f"Bearer {customer.key}"}
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY, headers=headers, timeout=30
        )
        return answer.status_code, answer.json()

    def call(self, method: str, path: str, credential: str, body: object = None) -> dict[str, Any]:
        """A request to the console; 503 while it is still opening the store is asked again."""
        headers = {"Authorization": credential, "Idempotency-Key": f"{path}-{wall_ms()}"[-90:]}
        answer = httpx.request(method, self.console + path, json=body, headers=headers, timeout=30)
        if answer.status_code == 503:
            raise StoreDownError(answer.text)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def buys(self, customer: Customer, payment: int) -> None:
        """An order of 20 credits, paid at the bank."""
        order = self.call("POST", "/api/orders", f"Bearer {customer.key}", {"credits": "20"})
        paid = {
            "id": payment,
            "subAccount": "",
            "transferType": "in",
            "transferAmount": 50000,
            "content": order["order"],
        }
        assert self.call("POST", "/webhooks/sepay", f"Apikey {BANK_KEY}", paid)["outcome"] == "credited"


@pytest.fixture(params=["sqlite", "mongodb"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database; "" for the file each deployment has of its own."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("mongodb_url"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_checklist_purchase_two_wallets_refusals_and_expiry(tmp_path: Path, store_url: str) -> None:
    with TwoPorts(tmp_path, store_url) as shop:
        alice = shop.customer("alice", 0)
        admin = shop.store(lambda s: create_admin(s, "eve", "admin", None, "test", wall_ms()))
        assert wait_until(lambda: opened(shop, alice), 30)

        # nobody is served on an empty wallet, and each refusal names the wallet that is empty
        for port, wallet in ((shop.port, "openhands"), (shop.old_port, "ohmygpt")):
            status, answer = shop.ask(port, alice)
            assert (status, wallet in json.dumps(answer)) == (402, True), answer

        # a purchase credits creditsNew, and only the port of that wallet is served from it
        user = f"Bearer {alice.key}"
        shop.buys(alice, 1)
        assert wait_until(lambda: shop.ask(shop.port, alice)[0] == 200, 20)
        status, answer = shop.ask(shop.old_port, alice)
        assert (status, "ohmygpt" in json.dumps(answer)) == (402, True), answer
        shop.settled(["alice"])
        served = len(shop.spent_rows("alice"))
        assert shop.account("alice").balances["creditsNew"] == 20 * USD - served * PRICE_PICO
        assert {row.pool for row in shop.spent_rows("alice")} == {"creditsNew"}

        # credit of the other wallet serves the other port, and neither borrows
        grant = {"pool": "credits", "amount": "5", "reason": "checklist"}
        shop.call("POST", "/api/admin/users/alice/grants", f"Bearer {admin.token}", grant)
        assert wait_until(lambda: shop.ask(shop.old_port, alice)[0] == 200, 20)
        shop.settled(["alice"])
        balances = shop.account("alice").balances
        assert balances["creditsNew"] == 20 * USD - served * PRICE_PICO
        assert balances["credits"] == 5 * USD - (len(shop.spent_rows("alice")) - served) * PRICE_PICO
        wallet = shop.call("GET", "/api/wallet", user)
        ends = {lot["pool"]: lot["expires_ms"] for lot in wallet["lots"]}
        week_ms = 7 * 86_400_000
        assert ends["credits"] is None
        assert wall_ms() + week_ms - 120_000 < ends["creditsNew"] < wall_ms() + week_ms

        # E3: credit that a worker leases is spent no more from the moment it expires, without any sweep
        bob = shop.customer("bob", 0)
        ends_ms = wall_ms() + 5_000
        shop.call(
            "POST", "/api/admin/users/bob/grants", f"Bearer {admin.token}", {**grant, "expires_ms": ends_ms}
        )
        while wall_ms() < ends_ms - 500:
            status, answer = shop.ask(shop.old_port, bob)
            assert status == 200 or wall_ms() >= ends_ms or "error" in answer
            time.sleep(0.2)
        assert wait_until(lambda: wall_ms() > ends_ms, 20)
        status, answer = shop.ask(shop.old_port, bob)
        assert (status, "expired" in json.dumps(answer)) == (402, True), answer
        shop.settled(["alice", "bob"])
        assert shop.verified().differences == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_checklist_documents_of_the_replaced_system_beside_new_ones(
    tmp_path: Path, mongodb_url: str, mongodb_database: Any
) -> None:
    """Absent fields read as 0 and come with the first write; no script has to run before."""
    olga, otto = Customer("olga", new_key()), Customer("otto", new_key())
    mongodb_database.usersNew.insert_many(
        [{"_id": "olga", "credits": 5.0, "creditsUsed": 1.5, "migration": True}, {"_id": "otto"}]
    )
    with TwoPorts(tmp_path, mongodb_url) as shop:
        new = shop.customer("nora", 0)
        grant = Move("grant", "first", "nora", "creditsNew", USD, "test", "test")
        shop.store(lambda s: perform(s, grant, wall_ms()))
        for old in (olga, otto):
            shop.give_key(old)
        assert wait_until(lambda: opened(shop, new), 30)
        answers = {
            (customer.user, port): shop.ask(port, customer)[0]
            for customer in (olga, otto, new)
            for port in (shop.port, shop.old_port)
        }
        assert {which for which, status in answers.items() if status == 200} == {
            ("olga", shop.old_port),
            ("nora", shop.port),
        }, answers
        shop.buys(olga, 1)
        assert wait_until(lambda: shop.ask(shop.port, olga)[0] == 200, 20)
        shop.settled(["olga", "otto", "nora"])
        spent = dict.fromkeys(("credits", "creditsNew"), 0)
        for row in shop.spent_rows("olga"):
            spent[row.pool] -= row.amount_pico
        balances = shop.account("olga").balances
        assert balances["credits"] == 5 * USD - spent["credits"] < 5 * USD
        assert balances["creditsNew"] == 20 * USD - spent["creditsNew"] < 20 * USD
        stored = mongodb_database.usersNew.find_one({"_id": "olga"})
        assert stored["migration"] is True
        for field, amount_pico in (
            ("creditsNew", balances["creditsNew"]),
            ("creditsNewUsed", spent["creditsNew"]),
            ("creditsUsed", 3 * USD // 2 + spent["credits"]),
        ):
            assert stored[field].to_decimal() * USD == amount_pico, field
        assert stored["tokensUserNew"] > 0
        assert stored["expiresAtNew"] > stored["purchasedAtNew"]
        assert shop.verified().differences == []


def opened(shop: TwoPorts, customer: Customer) -> bool:
    """Whether the console has opened the store."""
    assert get(shop.console_port, "/metrics")[0] == 200
    try:
        return bool(shop.call("GET", "/api/wallet", f"Bearer {customer.key}"))
    except StoreDownError:
        return False
