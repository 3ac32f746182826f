"""Farebox on MongoDB from end to end: charged exchanges, the database killed under load, clean books."""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mongodb
from e2e.deployment import Deployment
from e2e.load import Load, check_books, under_load
from needs import SEED

USD = 10**12


class OnMongoDB(Deployment):
    """The deployment with its balances in a MongoDB database."""

    def __init__(self, folder: Path, url: str) -> None:
        self._url = url
        folder.mkdir()
        super().__init__(folder, store={"url": url})

    def store_url(self) -> str:
        return self._url

    def command(self, *arguments: str) -> Any:
        """A command of the operator's, on this deployment's configuration; what it says as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "farebox.run.cli", *arguments, "--config", str(self.config), "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.mark.timeout(300)
def test_S02_the_database_killed_under_load_costs_no_exchange_and_no_cent(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    (tmp_path / "mongodb").mkdir()
    server = mongodb.MongoDBServer(tmp_path / "mongodb", "--sync-on-commit")
    server.start()
    try:
        with OnMongoDB(tmp_path / "farebox", f"{server.url}/farebox") as deployment:
            load = Load(deployment, [deployment.customer(name, 100 * USD) for name in ("alice", "bob")])

            async def disturb() -> None:
                for _ in range(2):
                    await asyncio.sleep(dice.uniform(0.3, 0.8))
                    server.kill()
                    await asyncio.sleep(dice.uniform(0.0, 0.8))
                    await asyncio.to_thread(server.start)
                await asyncio.sleep(1.0)

            asyncio.run(under_load(load, disturb(), at_once=4))  # type: ignore[arg-type]
            assert load.received
            assert set(load.statuses) <= {"200", "503"}, load.statuses
            check_books(deployment, load, deployment.upstream_count())

            assert deployment.command("verify")["differences"] == []
            shown = deployment.command("wallet", "show", "alice")
            assert shown["user"] == "alice"
            granted = deployment.command("wallet", "grant", "alice", "--amount", "5", "--pool", "creditsNew")
            assert granted
            assert deployment.command("quarantine", "list") == []
    finally:
        server.kill()
