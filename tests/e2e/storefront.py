"""A deployment that sells every wire format, for tests that look at what callers get.

Beside the demonstration's two models: embeddings, and models whose upstream refuses connections. `charged`
compares a user's bill, to the pico, with what the script's usage costs.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from e2e.deployment import Customer, Deployment
from farebox.run.demo.processes import free_port, wait_until

USD = 10**12
GPT = "gpt-5.1"
SONNET = "sonnet"
"""An alias: the official client warns about the model's own id, whose provider retires it."""
EMBEDDING = "embedding-small"
DEAD_GPT = "gpt-dead"
DEAD_CLAUDE = "claude-dead"

PICO_PER_TOKEN: Mapping[str, Mapping[str, int]] = {
    GPT: {"input": 1_312_500, "output": 10_500_000, "cache_read": 131_250},
    SONNET: {
        "input": 3_150_000,
        "output": 15_750_000,
        "cache_read": 315_000,
        "cache_write": 3_937_500,
        "cache_write_1h": 6_300_000,
    },
    EMBEDDING: {"input": 20_000},
}
"""The configured prices per million tokens, times the multiplier, in pico-USD a token."""


def price_pico(model: str, **counts: int) -> int:
    """What so many tokens of each kind cost."""
    return sum(PICO_PER_TOKEN[model][kind] * count for kind, count in counts.items())


def _model(model: str, upstream: str, wire_format: str, **prices: str) -> dict[str, object]:
    return {
        "id": model,
        "name": model,
        "upstream": upstream,
        "billing_upstream": "openhands",
        "wire_formats": [wire_format],
        "input_price_per_mtok": "1.25",
        "output_price_per_mtok": "10",
        **prices,
    }


class Storefront(Deployment):
    """A running Farebox that serves all routes."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.customers: list[Customer] = []
        super().__init__(folder, **changes)

    def amend(self, document: dict[str, Any]) -> None:
        """Add the models and endpoints of this file to the demonstration's configuration."""
        super().amend(document)
        document["models"][1]["id_aliases"].append(SONNET)
        dead = f"http://127.0.0.1:{free_port()}"
        credential = {"api_key_env": "FAREBOX_DEMO_UPSTREAM_KEY"}
        document["endpoints"] += [
            {"name": "dead-openai", "base_url": dead, **credential},
            {"name": "dead-anthropic", "base_url": dead, **credential},
        ]
        document["models"] += [
            _model(EMBEDDING, "demo", "embeddings", input_price_per_mtok="0.02", output_price_per_mtok="0"),
            _model(DEAD_GPT, "dead", "chat"),
            _model(
                DEAD_CLAUDE,
                "dead",
                "messages",
                cache_write_price_per_mtok="1.25",
                cache_write_1h_price_per_mtok="2.5",
                cache_hit_price_per_mtok="0.125",
            ),
        ]

    def new_customer(self, amount_pico: int = USD, **limits: Any) -> Customer:
        """A customer of his own for one test, remembered for the closing of the books."""
        customer = self.customer(f"user{len(self.customers)}", amount_pico, **limits)
        self.customers.append(customer)
        return customer

    def charged(self, customer: Customer, expected_pico: Iterable[int]) -> None:
        """Wait until the customer has as many charges as expected; each must be exact."""
        expected = sorted(expected_pico)
        wait_until(lambda: len(self.spent_rows(customer.user)) >= len(expected), 10.0)
        assert sorted(-row.amount_pico for row in self.spent_rows(customer.user)) == expected

    def free_of_charge(self, customer: Customer, exchanges: int) -> None:
        """Wait until the customer has a log row for each exchange; none may have cost money."""
        wait_until(lambda: len(self.logs(customer.user)) >= exchanges, 10.0)
        assert len(self.logs(customer.user)) == exchanges
        assert [row.amount_pico for row in self.spent_rows(customer.user) if row.amount_pico] == []

    def close_books(self) -> None:
        """Everything settled, nothing held, every sum right, Farebox still running."""
        self.settled([customer.user for customer in self.customers])
        report = self.verified()
        assert report.differences == []
        assert report.parked == []
        assert self.farebox.poll() is None
        _, found, traceback = (self.folder / "farebox.log").read_text(encoding="utf-8").partition("Traceback")
        assert not found, traceback[:3000]
