"""one-api: a Go gateway with users, tokens and quotas, from the Go module proxy; SQLite.

As installed, every request reads and writes the database. `batched`: its documented faster set-up, with a
memory cache and updates written every five seconds.
"""

import shutil
from pathlib import Path
from typing import Any, ClassVar

import rig
from compare import installing
from compare.peer import Books, Running
from compare.quota_database import PLENTY, QUOTA_PER_REQUEST, QuotaDatabase
from farebox.run.demo.processes import free_port

MODULE = "github.com/songquanpeng/one-api"
VERSION = "v0.6.10"
TOKENIZER_MODULE = "github.com/pkoukk/tiktoken-go-loader"
TOKENIZER_VERSION = "v0.0.2"
TOKENIZER_FILES = {
    "cl100k_base.tiktoken": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base.tiktoken": "fb374d419588a4632f3f557e76b4b70aebbca790",
}
"""Vocabularies it would fetch at its start, and the names its cache gives them."""


class OneApi:
    """One set-up of one-api."""

    connections = 64
    channel: ClassVar[dict[str, Any]] = {}
    """More columns of its row in `channels`."""
    options: ClassVar[dict[str, str]] = {}
    """More of its settings."""
    database_options = ""

    def __init__(self, *, batched: bool = False) -> None:
        self.name = "one-api, batched" if batched else "one-api"
        self.switched_on = "token, user and token quota, a log row each; SQLite"
        self.books_lag_s = 1.0
        self.environment = {"SESSION_SECRET": "bench"}
        if batched:
            self.switched_on += "; memory cache, updates every 5 s"
            self.books_lag_s = 7.0
            self.environment |= {"MEMORY_CACHE_ENABLED": "true", "BATCH_UPDATE_ENABLED": "true"}
        self.program = Path()
        self._database: QuotaDatabase | None = None
        self._port = 0
        self._key = ""

    def install(self, cache: Path) -> str:
        self.program = installing.go_program(
            cache, "one-api", MODULE, VERSION, "web/build/default/index.html"
        )
        tokenizers = cache / "one-api" / "tokenizers"
        if not tokenizers.exists():
            assets = installing.go_module(cache, TOKENIZER_MODULE, TOKENIZER_VERSION) / "assets"
            tokenizers.mkdir()
            for name, cached_as in TOKENIZER_FILES.items():
                shutil.copyfile(assets / name, tokenizers / cached_as)
        self.environment["TIKTOKEN_CACHE_DIR"] = str(tokenizers)
        return VERSION

    def start(self, the_rig: rig.Rig) -> Running:
        folder = the_rig.folder / self.name.replace(", ", "-")
        if self._database is None:
            folder.mkdir()
            self._port = free_port()
            self._database = QuotaDatabase(folder / "gateway.db")
            the_rig.stop(self._run(the_rig, folder))  # it makes its tables
            self._database.configure(the_rig.upstream_port, self.options, **self.channel)
            self._key = self._database.new_key(PLENTY)
        return Running(self._run(the_rig, folder), self._port, self._key)

    def _run(self, the_rig: rig.Rig, folder: Path) -> rig.Process:
        command = [str(self.program), "--port", str(self._port), "--log-dir", str(folder / "logs")]
        database = f"{folder / 'gateway.db'}{self.database_options}"
        process = the_rig.start(
            self.name, command, the_rig.server_core, SQLITE_PATH=database, **self.environment
        )
        the_rig.wait_ready(process, self._port, "/api/status")
        return process

    def new_key(self, affordable: int) -> str:
        return self._tables().new_key(affordable * QUOTA_PER_REQUEST)

    def books(self, key: str) -> Books:
        return self._tables().books(key)

    def _tables(self) -> QuotaDatabase:
        if self._database is None:
            raise RuntimeError("start it first")
        return self._database
