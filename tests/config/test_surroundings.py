"""Promise: shipped files load, the production files differ only where they should, secrets stay outside."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from config.documents import document, model, write
from farebox.config import ConfigError, Settings, load
from farebox.config.compare import differences
from farebox.config.schema import json_schema
from farebox.config.secrets import credentials, store_url
from farebox.config.table import check_table
from farebox.run.cli import build
from needs import REPOSITORY

CHAT = REPOSITORY / "configs" / "config-openhands-prod.json"
CHAT2 = REPOSITORY / "configs" / "config-ohmygpt-prod.json"
DEMO = REPOSITORY / "python" / "farebox" / "run" / "demo" / "config.json"
SONNET = "claude-sonnet-4-5-20250929"


def test_production_files_load_together_without_a_warning() -> None:
    settings = load([CHAT, CHAT2])
    assert [(service.name, service.port) for service in settings.services] == [
        ("chat", 8004),
        ("chat2", 8005),
    ]
    assert settings.warnings == ()


def test_production_files_differ_only_where_they_should() -> None:
    found = differences(CHAT, CHAT2)
    assert {each.key for each in found} == {
        "name",
        "port",
        "models[].type",
        "models[].billing_upstream",
        "models[].billing_multiplier",
    }
    assert all(each.expected for each in found)


@pytest.mark.parametrize(
    ("slip", "entry", "key"),
    [
        (lambda d: d["models"][1].update(input_price_per_mtok=4), SONNET, "models[].input_price_per_mtok"),
        (lambda d: d["models"][1].update(upstream_model_id="x"), SONNET, "models[].upstream_model_id"),
        (lambda d: d["models"].pop(1), SONNET, "models[]"),
        (lambda d: d["endpoints"][0].update(weight=2), "openhands-openai", "endpoints[].weight"),
        (lambda d: d.update(user_agent="other"), "", "user_agent"),
    ],
)
def test_a_slip_in_one_of_two_files_is_named(
    tmp_path: Path, slip: Callable[[Any], object], entry: str, key: str
) -> None:
    changed = json.loads(CHAT2.read_text())
    slip(changed)
    other = write(tmp_path, "config.json", changed)
    assert [(each.entry, each.key) for each in differences(CHAT, other) if not each.expected] == [
        (entry, key)
    ]
    done = CliRunner().invoke(build("check-config"), ["check-config", "--compare", str(CHAT), str(other)])
    assert (done.exit_code, done.output.count("SHOULD NOT DIFFER")) == (1, 1)
    done = CliRunner().invoke(build("check-config"), ["check-config", "--compare", str(CHAT), str(CHAT2)])
    assert (done.exit_code, done.output.count("SHOULD NOT DIFFER")) == (0, 0)


def test_the_place_decides_store_and_console_address(tmp_path: Path) -> None:
    place = {"FAREBOX_STORE_URL": "mongodb://user:secret@db/farebox", "FAREBOX_CONSOLE_HOST": "0.0.0.0"}
    settings = load([CHAT, CHAT2], place)
    url = store_url(settings.store, CHAT, place)
    assert (settings.store.kind, url is not None and url.reveal()) == ("mongodb", place["FAREBOX_STORE_URL"])
    assert (settings.console_host, settings.console_port) == ("0.0.0.0", 8090)
    assert [warning.path for warning in settings.warnings] == ["console.host"]
    assert "secret" not in repr(settings)
    empty = load([CHAT], {"FAREBOX_STORE_URL": "", "FAREBOX_CONSOLE_HOST": ""})
    assert (empty.store.kind, empty.console_host, empty.warnings) == ("sqlite", "127.0.0.1", ())


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.9", 0), ("::1", 0), ("localhost", 0), ("10.0.0.1", 1), ("box", 1)]
)
def test_a_console_that_others_reach_is_warned_about(tmp_path: Path, host: str, warned: int) -> None:
    value = document(name="chat", console={"host": host})
    assert [w.path for w in load([write(tmp_path, "config.json", value)]).warnings] == [
        "console.host"
    ] * warned


def test_production_services_use_one_upstream_and_their_own_wallet() -> None:
    chat, chat2 = load([CHAT, CHAT2]).services
    for row in chat.models:
        other = chat2.models.get(row.id)
        assert other is not None
        assert (row.wallet, other.wallet) == ("openhands", "ohmygpt")
        assert row.upstream == other.upstream == "openhands"
        assert row.endpoints == other.endpoints
        assert row.price["lines"] == other.price["lines"]
        assert other.price["multiplier"] == "1.1"
        assert row.price["multiplier"] == ("1.1" if "haiku" in row.id else "1.05")
    assert chat.user_agent == chat2.user_agent == "openhands-cli/1.0.0"


def test_production_sonnet_has_the_price_of_the_golden_charge() -> None:
    row = load([CHAT]).services[0].models.get("claude-sonnet-4-5")
    assert row is not None
    expected = {
        "input": "3",
        "output": "15",
        "cache_write_5m": "3.75",
        "cache_write_1h": "6",
        "cache_read": "0.3",
    }
    assert (row.id, row.price["lines"], row.price["multiplier"]) == (SONNET, expected, "1.05")


@pytest.mark.skipif(not DEMO.exists(), reason="the demo's configuration is not in this tree")
def test_demo_file_loads() -> None:
    assert len(load([DEMO]).services[0].models) > 0


def test_table_names_upstream_address_wallet_pools_and_prices() -> None:
    row = next(row for row in check_table(load([CHAT2])) if row.model == SONNET)
    assert row.upstream == "openhands"
    assert row.urls["messages"] == "https://llm-proxy.example.com/v1/messages"
    assert (row.wallet, row.pools) == ("ohmygpt", ("credits", "refCredits"))
    assert row.prices["cache_read"] == "0.3"
    for part in (
        SONNET,
        "openhands",
        "llm-proxy.example.com",
        "wallet=ohmygpt",
        "credits>refCredits",
        "x1.1",
    ):
        assert part in row.line()


def settings_with(tmp_path: Path, **changes: object) -> Settings:
    """Settings of one file with one endpoint changed."""
    endpoint = {"name": "openhands-openai", "base_url": "https://up.example"} | changes
    value = document(name="chat", endpoints=[endpoint], models=[model(wire_formats=["chat"])])
    return load([write(tmp_path, "config.json", value)])


def test_M11_credential_comes_from_environment_or_file_and_does_not_print(tmp_path: Path) -> None:
    from_environment = settings_with(tmp_path, api_key_env="UP_KEY")
    secret = credentials(from_environment, {"UP_KEY": "sk-abc\n"})["chat", "openhands-openai"]
    assert secret.reveal() == "sk-abc"
    assert "sk-abc" not in f"{secret!r} {from_environment!r}"
    file = tmp_path / "key"
    file.write_text("sk-def\n")
    found = credentials(settings_with(tmp_path, api_key_file=str(file)), {})
    assert found["chat", "openhands-openai"].reveal() == "sk-def"
    assert credentials(settings_with(tmp_path), {}) == {}


@pytest.mark.parametrize("value", [None, "", "  ", "sk\nInjected: 1", "sk-\u00e9"])
def test_credential_that_is_missing_or_unusable_stops_the_start(tmp_path: Path, value: str | None) -> None:
    settings = settings_with(tmp_path, api_key_env="UP_KEY")
    environment = {} if value is None else {"UP_KEY": value}
    with pytest.raises(ConfigError, match="UP_KEY"):
        credentials(settings, environment)


def test_credential_file_that_is_missing_or_empty_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "key"
    settings = settings_with(tmp_path, api_key_file=str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        credentials(settings, {})
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        credentials(settings, {})


def test_store_url_with_password_comes_from_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path, "config.json", document(store={"url_env": "STORE"}))
    store = load([file]).store
    assert store.kind == "mongodb"
    secret = store_url(store, file, {"STORE": "mongodb://u:p@h/d"})
    assert secret is not None
    assert secret.reveal() == "mongodb://u:p@h/d"
    with pytest.raises(ConfigError, match="STORE is not set"):
        store_url(store, file, {})


def test_relative_store_path_lies_in_the_data_directory(tmp_path: Path) -> None:
    value = document(data_dir=str(tmp_path), store={"url": "sqlite:///money.sqlite"})
    assert load([write(tmp_path, "config.json", value)]).store.path == tmp_path / "money.sqlite"
    value = document(data_dir=str(tmp_path), store={"url": "sqlite:////var/lib/money.sqlite"})
    assert load([write(tmp_path, "config.json", value)]).store.path == Path("/var/lib/money.sqlite")


def test_schema_covers_every_key_of_the_shipped_files() -> None:
    schema = json_schema()
    entry = schema["$defs"]["ModelEntry"]
    for path in (CHAT, CHAT2):
        value = json.loads(path.read_text())
        assert {key for key in value if not key.startswith("_comment")} <= schema["properties"].keys()
        for model_entry in value["models"]:
            assert model_entry.keys() <= entry["properties"].keys()
    assert entry["additionalProperties"] is False
    assert any(re.match(pattern, "_comment_x") for pattern in entry["patternProperties"])
    assert {"type": "number"} in entry["properties"]["input_price_per_mtok"]["anyOf"]
