"""Promise: a broken file stops the start, and every fault shows at once with its JSON path (O09, L16)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.documents import document, model, write
from farebox.config import ConfigError, Problem, load

Faults = Callable[..., dict[str, str]]


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """A function that loads documents together and gives path -> message of what is wrong."""

    def load_broken(*documents: dict[str, Any]) -> dict[str, str]:
        files = [write(tmp_path, f"config-{index}.json", value) for index, value in enumerate(documents)]
        with pytest.raises(ConfigError) as caught:
            load(files)
        return {problem.path: problem.message for problem in caught.value.problems}

    return load_broken


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"id": None}, "id", "missing"),
        ({"name": None}, "name", "missing"),
        ({"id": ""}, "id", "at least 1"),
        ({"id": "a b"}, "id", "match"),
        ({"colour": "red"}, "colour", "no key Farebox knows"),
        ({"type": "gemini"}, "type", "'anthropic'"),
        ({"free": "yes"}, "free", "boolean"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater"),
        ({"max_output_tokens": True}, "max_output_tokens", "integer"),
        ({"billing_upstream": "openhand"}, "billing_upstream", "'ohmygpt', 'openhands', 'subscription'"),
        ({"billing_upstream": ""}, "billing_upstream", "is no wallet"),
        ({"upstream_model_id": ["a", "b"]}, "upstream_model_id", "billed is the model that is served"),
        ({"upstream_model_id": ""}, "upstream_model_id", "empty"),
        ({"upstream_model_weights": [1, 2]}, "upstream_model_weights", "refused"),
        (
            {"upstream": "elsewhere"},
            "upstream",
            "no endpoint named 'elsewhere-openai' or 'elsewhere-anthropic'",
        ),
        ({"upstream": None, "type": None}, "upstream", "missing"),
        ({"endpoint": "nowhere"}, "endpoint", "no endpoint named 'nowhere'"),
        ({"endpoint": ["openhands-openai", "nowhere"]}, "endpoint", "no endpoint named 'nowhere'"),
        ({"endpoint": []}, "endpoint", "no endpoint"),
        ({"endpoint": "openhands-openai", "wire_formats": ["messages"]}, "wire_formats", "serves messages"),
    ],
)
def test_O09_broken_model_entry(faults: Faults, change: dict[str, object], path: str, says: str) -> None:
    entry = model(**change)
    for key, value in change.items():
        if value is not None:
            entry[key] = value
    found = faults(document(models=[entry]))
    assert says in found[f"models[0].{path}"]


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"input_price_per_mtok": None}, "input_price_per_mtok", "is missing"),
        ({"output_price_per_mtok": None}, "output_price_per_mtok", "is missing"),
        ({"cache_hit_price_per_mtok": None}, "cache_hit_price_per_mtok", "is missing"),
        ({"cache_write_price_per_mtok": None}, "cache_write_price_per_mtok", "is missing"),
        ({"input_price_per_mtok": 0}, "input_price_per_mtok", "is 0"),
        ({"output_price_per_mtok": "0.000"}, "output_price_per_mtok", "is 0"),
        ({"input_price_per_mtok": -3}, "input_price_per_mtok", "must not be negative"),
        ({"input_price_per_mtok": "3,00"}, "input_price_per_mtok", "not a plain decimal"),
        ({"input_price_per_mtok": "3e2"}, "input_price_per_mtok", "not a plain decimal"),
        ({"input_price_per_mtok": ""}, "input_price_per_mtok", "not a plain decimal"),
        ({"input_price_per_mtok": True}, "input_price_per_mtok", "decimal number"),
        ({"input_price_per_mtok": [3]}, "input_price_per_mtok", "decimal number"),
        ({"input_price_per_mtok": "0.1234567890123456"}, "input_price_per_mtok", "15 after the point"),
        ({"billing_multiplier": 0}, "billing_multiplier", "above 0"),
        ({"billing_multiplier": "-1.05"}, "billing_multiplier", "must not be negative"),
        ({"batch_input_price_per_mtok": 1}, "batch_output_price_per_mtok", "come in pairs"),
        ({"free": True}, "free", "has prices"),
        (
            {"context_tiers": [{"input_price_per_mtok": 6}]},
            "context_tiers[0]",
            "exactly one of above and from",
        ),
        (
            {"context_tiers": [{"above": 200000, "input_price_per_mtok": 6, "output_price_per_mtok": 22}]},
            "context_tiers[0].cache_hit_price_per_mtok",
            "is missing",
        ),
        ({"service_tiers": {"default": {}}}, "service_tiers.default", "not a tier of its own"),
        ({"service_tiers": {"priority": {}}}, "service_tiers.priority.input_price_per_mtok", "is missing"),
        (
            {"price_fields": {"speed": {"fast": {}}}},
            "price_fields.speed.fast.output_price_per_mtok",
            "is missing",
        ),
        ({"per_call": {"web_serch": "0.01"}}, "per_call.web_serch", "no key Farebox knows"),
    ],
)
def test_L16_price_that_is_missing_or_wrong(
    faults: Faults, change: dict[str, object], path: str, says: str
) -> None:
    found = faults(document(models=[model(**change)]))
    assert says in found[f"models[0].{path}"]


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"port": 0}, "port", "greater"),
        ({"port": "8004"}, "port", "integer"),
        ({"port": None}, "port", "missing"),
        ({"models": []}, "models", "no model"),
        ({"models": None}, "models", "missing"),
        ({"system_prompt": "You are"}, "system_prompt", "unchanged"),
        ({"durability": "maybe"}, "durability", "'process'"),
        ({"written_off_cap": "0.0000000000001"}, "written_off_cap", "12 decimals"),
        ({"store": {"url": "postgres://x"}}, "store.url", "sqlite:///PATH or mongodb://"),
        ({"store": {"url": "mongodb://u:secret@h/d"}}, "store.url", "must not hold a credential"),
        ({"store": {"url": "sqlite:///a", "url_env": "B"}}, "store", "keep one"),
        ({"console": {"port": 8004}}, "console.port", "a port of its own"),
        ({"limits": {"body_bytes": 2**40}}, "limits.body_bytes", "less than"),
        ({"stream_dry": {"policy": "ignore"}}, "stream_dry.policy", "'cut'"),
        ({"surprise": 1}, "surprise", "no key Farebox knows"),
    ],
)
def test_O09_broken_top_level(faults: Faults, change: dict[str, object], path: str, says: str) -> None:
    value = document()
    for key, entry in change.items():
        value.pop(key, None)
        if entry is not None:
            value[key] = entry
    assert says in faults(value)[path]


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"base_url": "up.example"}, "base_url", "http:// or https://"),
        ({"base_url": "ftp://up.example"}, "base_url", "http:// or https://"),
        ({"base_url": "https://user:pass@up.example"}, "base_url", "credential"),
        ({"base_url": "https://up.example/?key=1"}, "base_url", "query"),
        ({"base_url": "https://up.example/a b"}, "base_url", "spaces"),
        ({"base_url": "https://up.example:99999"}, "base_url", "not a URL"),
        ({"base_url": "http://127.0.0.1:8004"}, "base_url", "own port"),
        ({"api_key_file": "/x"}, "", "keep one"),
        ({"api_key": "sk-1"}, "api_key", "no key Farebox knows"),
        ({"name": "plain"}, "wire_formats", "-openai or -anthropic"),
        ({"connect_timeout_s": 0}, "connect_timeout_s", "greater"),
        ({"weight": 0}, "weight", "greater"),
        ({"connections_max": 0}, "connections_max", "greater"),
        ({"alternatives": [{}]}, "alternatives[0]", "neither another address nor another credential"),
        ({"alternatives": [{"weight": 1001, "api_key_env": "B"}]}, "alternatives[0].weight", "less"),
        ({"alternatives": [{"base_url": "ftp://x"}]}, "alternatives[0].base_url", "http:// or https://"),
        ({"alternatives": [{"api_key_env": "B", "api_key_file": "/x"}]}, "alternatives[0]", "keep one"),
        ({"alternatives": [{"api_key_env": "B"}] * 65}, "alternatives", "at most 64"),
    ],
)
def test_O09_broken_endpoint(faults: Faults, change: dict[str, object], path: str, says: str) -> None:
    endpoint = {"name": "openhands-openai", "base_url": "https://up.example", "api_key_env": "K"} | change
    found = faults(document(endpoints=[endpoint]))
    assert says in found["endpoints[0]" + (f".{path}" if path else "")]


def test_O09_doubled_names_point_at_both_places(faults: Faults) -> None:
    first, second = model(id="a", id_aliases=["b"]), model(id="b", id_aliases=["c", "c"])
    endpoint = {"name": "openhands-openai", "base_url": "https://up.example"}
    found = faults(document(models=[first, second], endpoints=[endpoint, endpoint]))
    assert "models[0].id_aliases[0]" in found["models[1].id"]
    assert "models[1].id_aliases[0]" in found["models[1].id_aliases[1]"]
    assert "twice" in found["endpoints[1].name"]


def test_O09_thresholds_must_rise(faults: Faults) -> None:
    prices = {key: "1" for key in model() if key.endswith("_per_mtok")}
    tiers = [{"above": 200000, **prices}, {"from": 200000, **prices}]
    assert "must rise" in faults(document(models=[model(context_tiers=tiers)]))["models[0].context_tiers[1]"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "line 1"),
        ("[]", "one JSON object"),
        ('{"port": NaN}', "NaN is not a number"),
        ('{"port": 1, "port": 2}', "twice"),
        ("[" * 100_000, "not usable JSON"),
    ],
)
def test_O09_file_that_is_no_document(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load([file])


def test_O09_file_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.json"
    binary.write_bytes(b'{"port": "\xff"}')
    with pytest.raises(ConfigError) as caught:
        load([tmp_path / "absent.json", binary])
    first, second = caught.value.problems
    assert first.file.name == "absent.json"
    assert "No such file" in first.message
    assert "UTF-8" in second.message


def test_O09_all_faults_of_all_files_show_at_once(tmp_path: Path) -> None:
    broken = document(system_prompt="x", models=[model(billing_upstream="nope", input_price_per_mtok=None)])
    files = [write(tmp_path, "a.json", broken), tmp_path / "absent.json", write(tmp_path, "c.json", broken)]
    with pytest.raises(ConfigError) as caught:
        load(files)
    found = [(problem.file.name, problem.path) for problem in caught.value.problems]
    for name in ("a.json", "c.json"):
        assert {path for file, path in found if file == name} >= {
            "system_prompt",
            "models[0].billing_upstream",
            "models[0].input_price_per_mtok",
        }
    assert ("absent.json", "") in found
    assert str(files[0]) in str(caught.value)


def test_O09_faults_of_form_and_of_meaning_show_together(faults: Faults) -> None:
    endpoint = {"name": "openhands-openai", "base_url": "nowhere"}
    entries = [model(colour="red"), model(id="b", billing_upstream="nope", input_price_per_mtok=None)]
    found = faults(document(models=entries, endpoints=[endpoint], system_prompt="x", surprise=1))
    assert set(found) == {
        "surprise",
        "system_prompt",
        "endpoints[0].base_url",
        "models[0].colour",
        "models[1].billing_upstream",
        "models[1].input_price_per_mtok",
    }


def test_faulty_endpoint_is_blamed_once(faults: Faults) -> None:
    endpoint = {"name": "openhands-openai", "base_url": "nowhere"}
    assert set(faults(document(endpoints=[endpoint]))) == {"endpoints[0].base_url"}


@pytest.mark.parametrize("change", [{"per_call": {"call": "0.1"}}, {"batch_input_price_per_mtok": "1"}])
def test_free_model_with_any_price_is_refused(faults: Faults, change: dict[str, object]) -> None:
    unpriced = {key: None for key in model() if key.endswith("_per_mtok")}
    assert "models[0].free" in faults(document(models=[model(free=True, **(unpriced | change))]))


def test_files_served_together_agree_on_what_they_share(faults: Faults) -> None:
    found = faults(document(name="chat", data_dir="a"), document(name="chat", data_dir="b"))
    assert set(found) == {"data_dir", "name", "port"}


def test_no_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        load([])


def warnings(tmp_path: Path, **changes: object) -> dict[str, str]:
    """Path -> message of the warnings a model entry causes."""
    settings = load([write(tmp_path, "config.json", document(models=[model(**changes)]))])
    found: tuple[Problem, ...] = settings.warnings
    return {problem.path: problem.message for problem in found}


def test_missing_wallet_is_ohmygpt_with_a_warning(tmp_path: Path) -> None:
    assert "'ohmygpt'" in warnings(tmp_path, billing_upstream=None)["models[0].billing_upstream"]


def test_unpriced_cache_costs_the_input_price_where_it_is_part_of_the_input(tmp_path: Path) -> None:
    entry = model(
        wire_formats=["chat"],
        cache_hit_price_per_mtok=None,
        cache_write_price_per_mtok=None,
        cache_write_1h_price_per_mtok=None,
        service_tiers={"priority": {"input_price_per_mtok": "6", "output_price_per_mtok": "30"}},
    )
    settings = load([write(tmp_path, "config.json", document(models=[entry]))])
    price = settings.services[0].models.rows[0].price
    assert price["lines"]["cache_read"] == price["lines"]["cache_write_5m"] == "3"
    assert price["variants"]["priority"]["cache_read"] == "6"
    assert "cost the input price 3" in settings.warnings[0].message


def test_unpriced_one_hour_writes_are_announced_not_filled_in(tmp_path: Path) -> None:
    found = warnings(tmp_path, cache_write_1h_price_per_mtok=None)
    assert "quarantined" in found["models[0].cache_write_1h_price_per_mtok"]


def test_zero_cache_price_and_odd_multiplier_are_announced(tmp_path: Path) -> None:
    found = warnings(tmp_path, cache_hit_price_per_mtok=0, billing_multiplier=105)
    assert set(found) == {"models[0].cache_hit_price_per_mtok", "models[0].billing_multiplier"}


def test_same_upstream_model_at_two_prices_is_announced(tmp_path: Path) -> None:
    entries = [
        model(id="a", upstream_model_id="m"),
        model(id="b", upstream_model_id="m", billing_multiplier=2),
    ]
    settings = load([write(tmp_path, "config.json", document(models=entries))])
    assert "same upstream model" in settings.warnings[0].message


def test_variant_tier_the_model_does_not_have(faults: Faults) -> None:
    prices = {key: "1" for key in model() if key.endswith("_per_mtok")}
    tiers = {"priority": {**prices, "context_tiers": [{"above": 5, **prices}]}}
    found = faults(document(models=[model(service_tiers=tiers)]))
    assert "no such context tier at 5" in found["models[0].service_tiers.priority.context_tiers"]
