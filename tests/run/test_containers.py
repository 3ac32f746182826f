"""Promise: the container files fit each other, the configurations and nginx.conf, and give nothing away.

`make check-containers` runs hadolint and `docker compose config` on them; here their facts are compared.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from farebox.base import limits
from needs import REPOSITORY

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.prod.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FAREBOX = {"chat": "openhands", "chat2": "ohmygpt"}
OPERATORS = {"./tls", "./farebox.environment", "./grafana.password"}
"""What the operator brings along; the head of the file says how."""
_KEYS = """
    build cap_drop command configs depends_on env_file environment healthcheck image init logging mem_limit
    networks ports read_only restart secrets security_opt stop_grace_period tmpfs ulimits volumes
"""
SERVICE_KEYS = set(_KEYS.split())
"""Of the compose specification's service keys, those that are used."""


def steps(word: str) -> list[str]:
    """The Dockerfile's instructions of one kind, continued lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    return re.findall(rf"^{word} (.+)$", joined, re.MULTILINE)


def config(service: str) -> dict[str, Any]:
    path = REPOSITORY / "configs" / f"config-{FAREBOX[service]}-prod.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def mounts(service: str) -> dict[str, str]:
    """Where what is mounted."""
    return {each.split(":")[1]: each.split(":")[0] for each in SERVICES[service].get("volumes", [])}


@pytest.mark.parametrize("name", SERVICES)
def test_every_name_a_service_uses_is_there(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= SERVICE_KEYS
    assert re.fullmatch(r"[a-z/]+:(v?\d+\.\d+(\.\d+)?|local)", service["image"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert set(service.get("depends_on", ())) <= set(SERVICES)
    assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
    assert {each["source"] for each in service.get("configs", ())} <= set(COMPOSE["configs"])
    for source in mounts(name).values():
        if source.startswith("."):
            assert source in OPERATORS or (REPOSITORY / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", FAREBOX)
def test_a_farebox_service_serves_its_configuration_where_nginx_looks(name: str) -> None:
    service, served = SERVICES[name], config(name)
    assert service["command"] == ["serve", "--config", f"/etc/farebox/config-{FAREBOX[name]}-prod.json"]
    assert service["environment"]["FAREBOX_HEALTH_PORT"] == str(served["port"])
    assert (served["name"], mounts(name)["/etc/farebox"]) == (name, "./configs")
    assert mounts(name)[served["worker_sockets"]] == mounts("nginx")[served["worker_sockets"]] == "sockets"
    assert mounts(name)[served["data_dir"]] == f"{name}-data"
    targets = re.findall(r'"([^"]+):(\d+)"', COMPOSE["configs"]["prometheus"]["content"])
    assert (name, str(served["console"]["port"])) in targets
    credentials = {endpoint["api_key_env"] for endpoint in served["endpoints"]}
    assert not credentials & set(service["environment"])


@pytest.mark.parametrize("name", FAREBOX)
def test_a_farebox_service_can_write_nowhere_else_and_has_time_to_drain(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in service
    minutes = re.fullmatch(r"(\d+)m", service["stop_grace_period"])
    assert minutes is not None
    assert 60 * int(minutes[1]) > limits.shutdown_drain_s + limits.shutdown_drain_s + 15


def test_store_and_consoles_are_on_networks_that_lead_nowhere() -> None:
    assert SERVICES["mongodb"]["networks"] == ["store"]
    assert [COMPOSE["networks"][name]["internal"] for name in ("store", "watch")] == [True, True]
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"nginx", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in published["grafana"])
    stores = {SERVICES[name]["environment"]["FAREBOX_STORE_URL"] for name in FAREBOX}
    assert stores == {"mongodb://mongodb:27017/farebox?replicaSet=rs0"}


def test_prometheus_reads_the_shipped_rules() -> None:
    folder = REPOSITORY / "configs" / "prometheus"
    rules = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])["rule_files"]
    assert mounts("prometheus")["/etc/prometheus/farebox"] == "./configs/prometheus"
    on_a_host = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))["rule_files"]
    assert [Path(rule).name for rule in rules] == on_a_host
    assert all((folder / rule).exists() for rule in on_a_host)
    assert list((REPOSITORY / "configs" / "grafana").glob("*.json"))


def test_the_image_runs_unprivileged_and_is_made_of_what_the_context_holds() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [source for step in steps("COPY") if "--from" not in step for source in step.split()[:-1]]
    assert copied
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source}" in ignored
    assert steps("USER") == ["10001:10001"]
    assert len(steps("FROM")) == 2
    assert all(step.startswith("debian:bookworm-slim") for step in steps("FROM"))
    assert steps("HEALTHCHECK")
    assert "--require-hashes" in " ".join(steps("RUN"))
