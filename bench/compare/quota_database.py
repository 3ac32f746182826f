"""The SQLite tables one-api and new-api have in common: channels, users, tokens with a quota, charges.

What their web pages would write is written to the tables, as the pages are in no registry's package.
A user and his token get the same quota; both limits bind, and both are read back.
"""

import json
import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import rig
from compare.peer import (
    COMPLETION_TOKENS,
    INPUT_USD_PER_MTOK,
    OUTPUT_USD_PER_MTOK,
    PROMPT_TOKENS,
    Books,
)

OPENAI_CHANNEL = 1
CONSUMED = 2
"""The log's type of a charge."""
USD_PER_MTOK_AT_RATIO_1 = 2
MODEL_RATIO = INPUT_USD_PER_MTOK / USD_PER_MTOK_AT_RATIO_1
COMPLETION_RATIO = OUTPUT_USD_PER_MTOK / INPUT_USD_PER_MTOK
QUOTA_PER_REQUEST = ceil((PROMPT_TOKENS + COMPLETION_TOKENS * COMPLETION_RATIO) * MODEL_RATIO)
PLENTY = 10**12
"""Quota units: 2 million USD."""
LOCKED_WAIT_S = 30


class QuotaDatabase:
    """One such database, also while its gateway runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def configure(self, upstream_port: int, more: Mapping[str, str], **channel: Any) -> None:
        """Prices of the model and `more` options, and the scripted upstream as the one channel."""
        options = {
            **more,
            "ModelRatio": json.dumps({rig.MODEL: float(MODEL_RATIO)}),
            "CompletionRatio": json.dumps({rig.MODEL: float(COMPLETION_RATIO)}),
        }
        for key, value in options.items():
            self._insert("options", key=key, value=value)
        self._insert(
            "channels",
            id=1,
            type=OPENAI_CHANNEL,
            key="sk-bench",
            status=1,
            name="scripted",
            base_url=f"http://127.0.0.1:{upstream_port}",
            models=rig.MODEL,
            group="default",
            **channel,
        )
        self._insert("abilities", group="default", model=rig.MODEL, channel_id=1, enabled=1, priority=0)

    def new_key(self, quota: int) -> str:
        """A token of a new user, both with `quota` units."""
        key = secrets.token_hex(24)
        user = self._insert(
            "users",
            username=key[:12],
            password="none",
            display_name="bench",
            role=1,
            status=1,
            quota=quota,
            group="default",
            access_token=key[:32],
            aff_code=key[:16],
        )
        self._insert("tokens", user_id=user, key=key, status=1, name=key, expired_time=-1, remain_quota=quota)
        return f"sk-{key}"

    def books(self, key: str) -> Books:
        """Charges in the log, and the smaller of what token and user have left."""
        name = key.removeprefix("sk-")
        [billed] = self._row("SELECT count(*) FROM logs WHERE type = ? AND token_name = ?", CONSUMED, name)
        left = self._row(
            "SELECT tokens.remain_quota, users.quota FROM tokens JOIN users ON users.id = tokens.user_id"
            " WHERE tokens.key = ?",
            name,
        )
        return Books(billed, Fraction(min(left), QUOTA_PER_REQUEST))

    def _insert(self, table: str, **values: Any) -> int:
        columns = ", ".join(f"`{column}`" for column in values)
        marks = ", ".join("?" * len(values))
        with closing(sqlite3.connect(self.path, timeout=LOCKED_WAIT_S)) as database, database:
            done = database.execute(
                f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", tuple(values.values())
            )
            return done.lastrowid or 0

    def _row(self, question: str, *values: Any) -> tuple[int, ...]:
        with closing(sqlite3.connect(self.path, timeout=LOCKED_WAIT_S)) as database:
            found: tuple[int, ...] = database.execute(question, values).fetchone()
            return found
