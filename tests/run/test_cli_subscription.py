"""Promise: an operator grants periods of a plan, sees what they did and ends them, at the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

PLANS = {
    "plans": [
        {
            "id": "pro",
            "name": "Pro",
            "credits_monthly": "500",
            "usd_per_credit": "0.01",
            "renewal": "reset",
            "price_ids": [],
        }
    ]
}


@pytest.fixture
def config(farebox: Any, tmp_path: Path) -> str:
    """A configuration with one plan; the smallest that serves a model."""
    document = {
        "port": 8004,
        "endpoints": [{"name": "x-openai", "base_url": "http://127.0.0.1:9"}],
        "models": [
            {
                "id": "m",
                "name": "m",
                "upstream": "x",
                "billing_upstream": "subscription",
                "input_price_per_mtok": "1",
                "output_price_per_mtok": "1",
            }
        ],
        "store": {"url": f"sqlite:///{farebox.path}"},
        "credits": PLANS,
    }
    path = tmp_path / "farebox.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_periods_are_granted_shown_and_ended(farebox: Any, config: str) -> None:
    farebox("user", "add", "alice")
    grant = ("subscription", "grant", "alice", "--plan", "pro", "--name", "team", "--config", config)
    first = farebox.document(*grant, "--ends", "30d", "--reference", "in1")
    assert first == {"subscription": "manual:team", "invoice": "in1", "result": "done"}
    assert farebox.document(*grant, "--ends", "30d", "--reference", "in1")["result"] == "duplicate"
    farebox("wallet", "adjust", "alice", "--pool", "credits_monthly", "--amount=-2", "--reason", "used")
    assert farebox.document(*grant, "--ends", "60d", "--reference", "in2")["result"] == "done"
    assert farebox.document("wallet", "show", "alice")["pools"]["credits_monthly"] == "5"
    history = farebox.document("subscription", "history", "manual:team")
    assert sorted((row["type"], row["amount"]) for row in history) == [
        ("earned_subscription", "5"),
        ("earned_subscription", "5"),
        ("expired", "-3"),
    ]
    (listed,) = farebox.document("subscription", "list", "--user", "alice")
    shown = farebox.document("subscription", "show", "manual:team")
    assert shown == {**listed, "invoices": ["in1", "in2"]}
    assert (shown["status"], shown["cancel_at_period_end"]) == ("active", False)
    assert farebox.document("subscription", "cancel", "manual:team")["cancel_at_period_end"] is True
    assert "Pro" in farebox("subscription", "list").stdout


def test_what_cannot_be_granted_or_found_is_one_clear_line(farebox: Any, config: str) -> None:
    farebox("user", "add", "alice")
    grant = ("subscription", "grant", "alice", "--name", "team", "--ends", "30d", "--config", config)
    assert "no plan 'gold'" in farebox.refusal(*grant, "--plan", "gold")
    nobody = tuple("nobody" if part == "alice" else part for part in grant)
    assert "no user 'nobody'" in farebox.refusal(*nobody, "--plan", "pro")
    assert "no subscription" in farebox.refusal("subscription", "show", "stripe:sub_1")
