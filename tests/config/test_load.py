"""Promise: a good file becomes exactly the settings it states, prices to the last digit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from config.documents import document, model, write
from farebox.base import limits
from farebox.base.records import WALLETS
from farebox.config import ConfigError, Settings, load
from farebox.config.secrets import credentials
from farebox.meter.price_book import charge_of, model_price

Load = Callable[..., Settings]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """A function that writes documents to files and loads them together."""

    def load_documents(*documents: dict[str, object]) -> Settings:
        return load([write(tmp_path, f"config-{index}.json", value) for index, value in enumerate(documents)])

    return load_documents


def test_minimal_file_takes_documented_defaults(loaded: Load) -> None:
    settings = loaded(document())
    service = settings.services[0]
    assert (service.name, service.host, service.port) == ("config-0", "127.0.0.1", 8004)
    assert settings.durability == "process"
    assert settings.lease_wait_s == 2
    assert settings.request_log_ttl_days == 30
    assert (settings.console_host, settings.console_port) == ("127.0.0.1", 8090)
    assert service.requests_per_minute == 600
    assert service.body_bytes_max == 52428800
    assert service.stream_dry_policy == "cut"
    assert service.written_off_per_user_pico_max == 10**12
    assert settings.store.kind == "sqlite"
    assert settings.store.path == Path("farebox-data/farebox.sqlite")
    assert settings.journal_dir == Path("farebox-data/journals")


@pytest.mark.parametrize(
    ("literal", "kept"),
    [
        ("3", "3"),
        ("3.30", "3.30"),
        ('"3.30"', "3.30"),
        ("0.1", "0.1"),
        ("0.123456789012345", "0.123456789012345"),
        ("1e-3", "0.001"),
        ("2.5E+1", "25"),
    ],
)
def test_prices_are_kept_to_the_last_digit(tmp_path: Path, literal: str, kept: str) -> None:
    text = json.dumps(document()).replace('"input_price_per_mtok": "3"', f'"input_price_per_mtok": {literal}')
    file = tmp_path / "config.json"
    file.write_text(text)
    row = load([file]).services[0].models.get("sonnet")
    assert row is not None
    assert row.price["lines"]["input"] == kept


def test_comments_are_ignored_at_every_level(loaded: Load) -> None:
    value = document(_comment="top", _comment_2={"any": [1]}, console={"_comment": "x", "port": 8099})
    value["models"] = [model(_comment_price="why", per_call={"_comment": "fee", "web_search": "0.01"})]
    settings = loaded(value)
    assert settings.console_port == 8099
    assert settings.services[0].models.rows[0].price["lines"]["web_search"] == "0.01"


@pytest.mark.parametrize("wallet", list(WALLETS))
def test_each_wallet_brings_its_pools_in_spending_order(loaded: Load, wallet: str) -> None:
    row = loaded(document(models=[model(billing_upstream=wallet)])).services[0].models.rows[0]
    assert (row.wallet, row.pools) == (wallet, WALLETS[wallet])


def test_upstream_and_wallet_are_independent(loaded: Load) -> None:
    entry = model(type="ohmygpt", upstream="openhands", billing_upstream="ohmygpt")
    row = loaded(document(models=[entry])).services[0].models.rows[0]
    assert row.endpoints["chat"].name == "openhands-openai"
    assert row.endpoints["messages"].name == "openhands-anthropic"
    assert row.pools == ("credits", "refCredits")


def test_B10_price_and_upstream_id_come_from_the_row_an_alias_names(loaded: Load) -> None:
    cheap = model(id="cheap", id_aliases=["mini"], upstream_model_id="vendor/cheap", input_price_per_mtok="1")
    dear = model(id="dear", id_aliases=["maxi"], upstream_model_id="vendor/dear", input_price_per_mtok="9")
    models = loaded(document(models=[cheap, dear])).services[0].models
    for name, upstream_model, price in [
        ("cheap", "vendor/cheap", "1"),
        ("mini", "vendor/cheap", "1"),
        ("dear", "vendor/dear", "9"),
        ("maxi", "vendor/dear", "9"),
    ]:
        row = models.get(name)
        assert row is not None
        assert (row.upstream_model, row.price["lines"]["input"]) == (upstream_model, price)


@pytest.mark.parametrize("name", ["", "CHEAP", "cheap ", "chea", "cheap-2", "*", "default"])
def test_B10_no_pattern_prefix_or_default_finds_a_model(loaded: Load, name: str) -> None:
    assert loaded(document(models=[model(id="cheap")])).services[0].models.get(name) is None


def test_model_is_served_only_where_its_endpoint_exists(loaded: Load) -> None:
    value = document()
    value["endpoints"] = [{"name": "openhands-anthropic", "base_url": "https://up.example"}]
    row = loaded(value).services[0].models.rows[0]
    assert set(row.endpoints) == {"messages", "count_tokens"}


def test_first_party_upstreams_use_the_plain_endpoint_names(loaded: Load) -> None:
    endpoints = [
        {"name": "openai", "base_url": "https://a.example"},
        {"name": "anthropic", "base_url": "https://b.example"},
    ]
    entries = [
        model(id="a", upstream="main", type="openai"),
        model(id="b", upstream="main", type="anthropic"),
        model(id="c", upstream="anthropic", type=None),
        model(id="d", upstream="main", type=None),
    ]
    rows = loaded(document(endpoints=endpoints, models=entries)).services[0].models.rows
    assert ["chat" in row.endpoints for row in rows] == [True, False, False, True]
    assert ["messages" in row.endpoints for row in rows] == [False, True, True, True]


def test_wire_formats_and_endpoint_narrow_the_routes(loaded: Load) -> None:
    endpoints = [
        {"name": "local", "base_url": "http://127.0.0.1:9001", "wire_formats": ["chat", "embeddings"]},
    ]
    entry = model(endpoint="local", wire_formats=["embeddings"], output_price_per_mtok="0")
    row = loaded(document(endpoints=endpoints, models=[entry])).services[0].models.rows[0]
    assert {key: endpoint.name for key, endpoint in row.endpoints.items()} == {"embeddings": "local"}


@pytest.mark.parametrize(
    ("base_url", "messages_url"),
    [
        ("https://up.example", "https://up.example/v1/messages"),
        ("https://up.example/", "https://up.example/v1/messages"),
        ("https://up.example/v1", "https://up.example/v1/messages"),
        ("https://up.example/v1/messages", "https://up.example/v1/messages"),
        ("https://up.example:8443/llm/v1/", "https://up.example:8443/llm/v1/messages"),
        ("http://[::1]:9000/a", "http://[::1]:9000/a/v1/messages"),
    ],
)
def test_base_url_may_be_root_version_or_route(loaded: Load, base_url: str, messages_url: str) -> None:
    endpoint = {"name": "openhands-anthropic", "base_url": base_url}
    row = loaded(document(endpoints=[endpoint])).services[0].models.rows[0]
    assert row.endpoints["messages"].url("messages") == messages_url


def test_headers_style_follows_the_name_unless_said(loaded: Load) -> None:
    endpoints = [
        {"name": "openhands-openai", "base_url": "https://a.example"},
        {"name": "openhands-anthropic", "base_url": "https://a.example"},
        {"name": "x-anthropic", "base_url": "https://a.example", "auth": "bearer"},
    ]
    table = loaded(document(endpoints=endpoints)).services[0].endpoints
    assert [endpoint.auth for endpoint in table.values()] == ["bearer", "x-api-key", "bearer"]


def test_output_held_without_a_client_limit_counts_the_thinking_budget(loaded: Load) -> None:
    entries = [
        model(id="a"),
        model(id="b", reasoning="high"),
        model(id="c", reasoning="low", thinking_budget=12000),
        model(id="d", assumed_output_tokens=100, reasoning="high"),
        model(id="e", reasoning="high", max_output_tokens=8000),
    ]
    rows = loaded(document(models=entries)).services[0].models.rows
    assert [row.assumed_output_tokens for row in rows] == [4096, 14096, 16096, 100, 8000]


def test_amounts_become_pico_exactly(loaded: Load) -> None:
    stream_dry = {"policy": "finish", "cap": "0.000000000001"}
    service = loaded(document(written_off_cap=2.5, stream_dry=stream_dry)).services[0]
    assert (service.stream_dry_cap_pico, service.written_off_per_user_pico_max) == (1, 2_500_000_000_000)


def test_two_files_are_served_together_with_their_own_books(loaded: Load) -> None:
    settings = loaded(
        document(name="chat"), document(name="chat2", port=8005, models=[model(billing_multiplier=1.1)])
    )
    assert [service.name for service in settings.services] == ["chat", "chat2"]
    books = [service.price_book()["sonnet"]["multiplier"] for service in settings.services]
    assert books == ["1.05", "1.1"]
    json.dumps([service.price_book() for service in settings.services])


TIER_PRICES = {key: "9" for key in model() if key.endswith("_per_mtok")}


def test_tiers_and_variants_reach_the_price_entry(loaded: Load) -> None:
    entry = model(
        context_tiers=[{"above": 200000, **TIER_PRICES}, {"from": 400000, **TIER_PRICES}],
        batch_input_price_per_mtok="1.5",
        batch_output_price_per_mtok="7.5",
        service_tiers={"priority": {**TIER_PRICES, "context_tiers": [{"above": 200000, **TIER_PRICES}]}},
        price_fields={"speed": {"fast": {**TIER_PRICES}}},
        per_call={"web_search": 0.01},
    )
    settings = loaded(document(models=[entry]))
    row = settings.services[0].models.rows[0]
    assert [tier[:2] for tier in row.price["tiers"]] == [(200000, False), (400000, True)]
    assert list(row.price["variants"]) == ["batch", "priority", "priority@200000", "speed:fast"]
    assert row.price["variants"]["batch"] == {"input": "1.5", "output": "7.5"}
    assert row.priced_fields == {"service_tier": {"priority": "priority"}, "speed": {"fast": "speed:fast"}}
    assert row.price["lines"]["web_search"] == "0.01"
    assert [warning.path for warning in settings.warnings] == [
        "models[0].service_tiers.priority",
        "models[0].price_fields.speed.fast",
        "models[0].price_fields.speed.fast",
    ]


def test_loaded_prices_charge_the_golden_amount(loaded: Load) -> None:
    price = model_price(loaded(document()).services[0].price_book()["sonnet"])
    counts = {"input": 1200, "output": 800, "cache_write_5m": 2000, "cache_read": 10000}
    assert charge_of(price, counts, 13200).amount_pico == 27_405_000_000


def test_free_is_said_and_charges_nothing(loaded: Load) -> None:
    unpriced = {key: None for key in model() if key.endswith("_per_mtok")}
    row = loaded(document(models=[model(free=True, **unpriced)])).services[0].models.rows[0]
    charge = charge_of(model_price(row.price), {"input": 10, "output": 10, "web_search": 1}, 10)
    assert (row.free, charge.amount_pico, charge.missing) == (True, 0, [])


def test_alternatives_take_from_their_endpoint_what_they_do_not_say(tmp_path: Path) -> None:
    endpoint = {
        "name": "openhands-openai",
        "base_url": "https://up.example/v1",
        "api_key_env": "KEY_A",
        "idle_timeout_s": 20,
        "weight": 3,
        "alternatives": [
            {"api_key_env": "KEY_B"},
            {"base_url": "http://other.example:81/x/v1", "api_key_env": "KEY_C", "connections_max": 7},
        ],
    }
    anthropic = {"name": "openhands-anthropic", "base_url": "https://up.example", "api_key_env": "KEY_A"}
    settings = load([write(tmp_path, "a.json", document(endpoints=[endpoint, anthropic]))])
    main, second, third = settings.services[0].endpoints["openhands-openai"].places()
    assert [(each.name, each.weight, each.connections_max) for each in (main, second, third)] == [
        ("openhands-openai", 3, limits.upstream_connections_max),
        ("openhands-openai/2", 1, limits.upstream_connections_max),
        ("openhands-openai/3", 1, 7),
    ]
    assert second.url("chat") == main.url("chat")
    assert third.url("chat") == "http://other.example:81/x/v1/chat/completions"
    assert {each.idle_timeout_s for each in (main, second, third)} == {20.0}
    keys = {"KEY_A": "sk-a", "KEY_B": "sk-b", "KEY_C": "sk-c"}
    found = {name: secret.reveal() for (_, name), secret in credentials(settings, keys).items()}
    assert found["openhands-openai/3"] == "sk-c"
    with pytest.raises(ConfigError, match=r"endpoint openhands-openai/2: .*KEY_B is not set"):
        credentials(settings, {"KEY_A": "sk-a", "KEY_C": "sk-c"})
