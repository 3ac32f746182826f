"""What `make locust` tests against: scripted upstream with a log, Farebox with customers and prices, nginx.

Not imported by scenarios: this is the side of Farebox. After the load every exchange of the upstream's log is
held against its charge, to the pico.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import rig
from farebox.base.clock import wall_ms
from farebox.base.units import PICO_PER_USD, pico_from_usd
from farebox.credits.accounts import create_key, create_user
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.run.demo.processes import free_port, packaged_config
from farebox.store import open_store
from farebox.store.base import Store

CUSTOMERS = 50
RICH_PICO = 10_000 * PICO_PER_USD
TINY_PICO = PICO_PER_USD // 10
SHEET = {
    "input": "input_price_per_mtok",
    "cache_read": "cache_hit_price_per_mtok",
    "cache_write_5m": "cache_write_price_per_mtok",
    "output": "output_price_per_mtok",
}
"""Kind of token in the upstream's log -> where a model of the configuration prices it."""


@dataclass(frozen=True, slots=True)
class Keys:
    """API keys of customers with credit, of one with a little, of one without."""

    rich: list[str]
    tiny: str
    empty: str


@dataclass(slots=True)
class Deployment:
    """Farebox under load, and everything around it."""

    the_rig: rig.Rig
    upstream_port: int
    upstream_log: Path
    farebox: rig.FareboxUnderTest
    keys: Keys

    def environment(self) -> dict[str, str]:
        """What the locust process needs."""
        keys_file = self.the_rig.folder / "keys"
        keys_file.write_text("\n".join(self.keys.rich) + "\n", encoding="utf-8")
        return {
            "FAREBOX_KEYS_FILE": str(keys_file),
            "FAREBOX_TINY_KEY": self.keys.tiny,
            "FAREBOX_EMPTY_KEY": self.keys.empty,
            "FAREBOX_MODELS": "gpt-5.1,gpt-5.1-mini",
            "FAREBOX_MESSAGES_MODELS": "claude-sonnet-4-5,claude-sonnet-4-5-mini",
            "FAREBOX_CONFIG": str(self.farebox.config),
            "FAREBOX_SCRIPTED_UPSTREAM": f"http://127.0.0.1:{self.upstream_port}",
            "BENCH_UPSTREAM_KEY": "sk-bench",
        }


def deploy(the_rig: rig.Rig) -> Deployment:
    """Start everything: the upstream on the load's core, Farebox on its own."""
    port, log = free_port(), the_rig.folder / "upstream-exchanges.log"
    command = [sys.executable, "-m", "farebox.run.demo.upstream", "--port", str(port), "--log", str(log)]
    upstream = the_rig.start("upstream-with-log", command, the_rig.load_core)
    the_rig.wait_ready(upstream, port, "/_log?lines=0")
    folder = the_rig.folder / "farebox"
    folder.mkdir()
    config = folder / "config.json"
    document = _configuration(folder, port)
    config.write_text(json.dumps(document), encoding="utf-8")
    keys = asyncio.run(_open_accounts(folder / "farebox.sqlite"))
    command = [sys.executable, "-m", "farebox.run.cli", "serve", "--config", str(config), "--workers", "1"]
    process = the_rig.start("farebox", command, the_rig.server_core, BENCH_UPSTREAM_KEY="sk-bench")
    the_rig.wait_ready(process, document["port"], "/readyz")
    farebox = rig.FareboxUnderTest(process, document["port"], "", config)
    return Deployment(the_rig, port, log, farebox, keys)


def _configuration(folder: Path, upstream_port: int) -> dict[str, Any]:
    """The demonstration's models and prices at this rig's addresses, each model also as a cheaper one."""
    document: dict[str, Any] = json.loads(packaged_config())
    document["models"] += [_cheaper(model) for model in document["models"]]
    document |= {"port": free_port(), "data_dir": str(folder), "store": {}, "workers": 1}
    document["console"]["port"] = free_port()
    document["limits"] = {"requests_per_minute": 10**9}
    for endpoint in document["endpoints"]:
        endpoint |= {"base_url": f"http://127.0.0.1:{upstream_port}", "api_key_env": "BENCH_UPSTREAM_KEY"}
    return document


def _cheaper(model: dict[str, Any]) -> dict[str, Any]:
    """The same model under another name, at a fifth of its prices."""
    prices = {name: value / 5 for name, value in model.items() if name.endswith("_per_mtok")}
    names = [f"{name}-mini" for name in model.get("id_aliases", ())]
    return {
        **model,
        **prices,
        "name": f"{model['name']} mini",
        "id": f"{model['id']}-mini",
        "id_aliases": names,
    }


async def _open_accounts(path: Path) -> Keys:
    store = open_store(f"sqlite:///{path}")
    await store.open()
    try:
        rich = [await _account(store, f"rich-{number}", RICH_PICO) for number in range(CUSTOMERS)]
        return Keys(rich, await _account(store, "tiny", TINY_PICO), await _account(store, "empty", 0))
    finally:
        await store.close()


async def _account(store: Store, user: str, credit_pico: int) -> str:
    """The key of a new user with so much credit in the wallet openhands."""
    now_ms = wall_ms()
    await create_user(store, user, "user", "bench", now_ms)
    if credit_pico:
        await perform(store, Move("grant", user, user, "creditsNew", credit_pico, "bench", "bench"), now_ms)
    return (await create_key(store, user, "bench", "bench", now_ms, requests_per_minute=10**9)).key


# -- the money -----------------------------------------------------------------------------------------------


def check_money(deployment: Deployment) -> str:
    """One line that says what was compared; ends the run where a charge is not what was served."""
    rows = asyncio.run(_request_logs(deployment.farebox.config.parent / "farebox.sqlite"))
    served = [json.loads(line) for line in deployment.upstream_log.read_text(encoding="utf-8").splitlines()]
    document = json.loads(deployment.farebox.config.read_text(encoding="utf-8"))
    wrong = differences(rows, served, document["models"])
    if wrong:
        rig.stop_with(f"void: {len(wrong)} differences, the first: {wrong[0]}")
    evidence = Counter(str(row["evidence"]) for row in rows)
    shown = ", ".join(f"{count} {name}" for name, count in evidence.most_common())
    return f"every exchange of the upstream's log is charged once, to the pico ({shown})"


def differences(
    rows: list[Mapping[str, Any]], served: list[dict[str, Any]], models: list[dict[str, Any]]
) -> list[str]:
    """What is charged and was not served, served and not charged, or charged otherwise than it was served."""
    by_name = {name: model for model in models for name in (model["id"], *model.get("id_aliases", ()))}
    lines = {line["id"]: line for line in served}
    charged = Counter(str(row["upstreamRequestId"]).removeprefix("req_") for row in rows)
    unnamed = charged.pop("", 0)
    wrong = [f"{one} is charged {count} times" for one, count in charged.items() if count > 1]
    wrong += [f"{one} is charged, the upstream never served it" for one in charged if one not in lines]
    uncharged = [one for one in lines if one not in charged]
    if len(uncharged) != unnamed:  # left before the answer's head came: charged without the upstream's id
        wrong.append(f"{len(uncharged)} exchanges stand for {unnamed} charges without an id: {uncharged[:3]}")
    for row in rows:
        line = lines.get(str(row["upstreamRequestId"]).removeprefix("req_"))
        if line is None or row["evidence"] != "exact":
            continue
        price_pico = price_of(line["usage"], by_name[line["model"]])
        if pico_from_usd(str(row["charge"])) != price_pico:
            wrong.append(f"{row['_id']}: charged {row['charge']} USD, served for {price_pico} pico")
    return wrong


def price_of(usage: Mapping[str, int], model: Mapping[str, Any]) -> int:
    """What counts cost at a model's prices (USD per million tokens), in pico-USD, rounded once."""
    million = sum(count * Decimal(str(model[SHEET[kind]])) for kind, count in usage.items())
    pico = million * Decimal(str(model.get("billing_multiplier", 1))) * 10**6
    return int(Decimal(pico).to_integral_value(ROUND_HALF_EVEN))


async def _request_logs(path: Path) -> list[Mapping[str, Any]]:
    """Every exchange that was not refused, of every user."""
    store = open_store(f"sqlite:///{path}")
    await store.open()
    try:
        accounts = [account.user async for account in store.accounts()]
        found = [row for user in accounts for row in await store.request_logs(user, 10**9)]
        return [row for row in found if row["outcome"] != "refused"]
    finally:
        await store.close()
