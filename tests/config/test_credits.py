"""The section `credits`: exact, explicit about time zones, and every fault named with its place."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from farebox.base.redaction import Secret
from farebox.config.credits import DAY_MS, CreditsSettings, credits_settings
from farebox.config.credits_document import CreditsEntry
from farebox.config.problems import ConfigError, Problems
from farebox.config.secrets import payment_secrets


def judged(**section: Any) -> tuple[CreditsSettings, list[str]]:
    problems = Problems(Path("shop.json"))
    made = credits_settings(CreditsEntry.model_validate(section), problems)
    return made, [str(error) for error in problems.errors]


def promotion(**changes: Any) -> dict[str, Any]:
    usual = {
        "name": "new year",
        "begins": "2026-01-01T00:00:00+07:00",
        "ends": "2026-01-02T17:00:00Z",
        "percent": "20",
    }
    merged = {**usual, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def test_nothing_written_is_the_replaced_system_without_a_shop() -> None:
    made, errors = judged()
    assert errors == []
    assert (dict(made.rates), made.sepay, made.stripe, made.referral) == ({}, None, None, None)
    assert (made.pool, made.min_pico, made.max_pico) == ("creditsNew", 20 * 10**12, 100 * 10**12)
    assert made.expires_ms("creditsNew", 5) == made.expires_ms("credits", 5) == 5 + 7 * DAY_MS
    assert made.expires_ms("refCredits", 5) is None
    assert made.renews("creditsNew")
    assert not made.renews("refCredits")


def test_promotions_are_moments_whatever_their_time_zone() -> None:
    made, errors = judged(promotions=[promotion()])
    assert errors == []
    (only,) = made.promotions
    assert only.ends_ms - only.begins_ms == 2 * DAY_MS


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"rates": {"VND": "0"}}, "credits.rates.VND"),
        ({"min_credits": "0"}, "credits.min_credits"),
        ({"min_credits": "200"}, "credits.min_credits"),
        ({"min_credits": "0.1234567890123"}, "credits.min_credits"),
        ({"promotions": [promotion(begins="2026-01-01T00:00:00")]}, "has no time zone"),
        ({"promotions": [promotion(begins="new year")]}, "is no moment"),
        ({"promotions": [promotion(ends="2025-01-01T00:00:00Z")]}, "must lie after begins"),
        ({"promotions": [promotion(credits="5")]}, "either percent or credits"),
        ({"promotions": [promotion(percent=None)]}, "either percent or credits"),
        ({"sepay": {"api_key_env": "K"}}, "no price in VND"),
        ({"rates": {"VND": "1"}, "sepay": {}}, "either api_key_env or api_key_file"),
        ({"rates": {"VND": "1"}, "sepay": {"api_key_env": "K", "utc_offset": "+15:00"}}, "no offset"),
        ({"stripe": {"webhook_secret_env": "K", "webhook_secret_file": "f"}}, "either webhook_secret_env"),
    ],
)
def test_each_fault_is_named(section: dict[str, Any], said: str) -> None:
    _, errors = judged(**section)
    assert any(said in error for error in errors), errors


@pytest.mark.parametrize(
    "section",
    [
        {"rates": {"vnd": "1"}},
        {"rates": {"VND": "-1"}},
        {"pool": "gold"},
        {"order_prefix": "troll"},
        {"order_minutes": 0},
        {"validity": {"gold": {}}},
        {"sepay": {"api_key": "written down"}},
    ],
)
def test_what_has_no_meaning_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CreditsEntry.model_validate(section)


def test_providers_are_read_with_their_places() -> None:
    made, errors = judged(
        rates={"VND": "2500"},
        sepay={"api_key_file": "/run/key", "utc_offset": "-03:30", "sub_account": ""},
        stripe={"webhook_secret_env": "S", "tolerance_s": 60},
        referral={"percent": "50", "max_bonus": "30"},
        validity={"creditsNew": {"rule": "lot"}},
    )
    assert errors == []
    assert made.sepay is not None
    assert (made.sepay.utc_offset, made.sepay.sub_account) == (-timedelta(hours=3, minutes=30), None)
    assert made.stripe is not None
    assert (made.stripe.webhook_secret.variable, made.stripe.tolerance_s) == ("S", 60)
    assert made.referral is not None
    assert made.referral.max_pico == 30 * 10**12
    assert made.expires_ms("creditsNew", 5) is None
    assert not made.renews("creditsNew")


def test_M11_secrets_are_read_on_demand_and_a_missing_one_is_named() -> None:
    made, _ = judged(
        rates={"VND": "1"}, sepay={"api_key_env": "BANK"}, stripe={"webhook_secret_env": "CARDS"}
    )

    class Files:
        credits = made
        services = (type("Service", (), {"file": Path("shop.json")}),)

    found = payment_secrets(Files, {"BANK": "b", "CARDS": "c"})  # type: ignore[arg-type]
    assert {name: secret.reveal() for name, secret in found.items()} == {"sepay": "b", "stripe": "c"}
    assert isinstance(found["sepay"], Secret)
    with pytest.raises(ConfigError, match="BANK is not set"):
        payment_secrets(Files, {"CARDS": "c"})  # type: ignore[arg-type]
