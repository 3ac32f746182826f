"""Changes and looks from outside Farebox, as an operator with a database shell makes them; one per store."""

import sqlite3
from pathlib import Path
from typing import Any, Protocol

import orjson
from bson import Decimal128

from farebox.store.mongo.values import pico, usd


class Outside(Protocol):
    """What the contract suite does behind a store's back."""

    def park(self, user: str, reason: str | None) -> None: ...

    def write_balance(self, user: str, pool: str, pico: int) -> None: ...

    def remove_balance(self, user: str, pool: str) -> None: ...

    def add_claim(self, user: str, reference: str, pool: str, lot: str | None, pico: int) -> None: ...

    def audit_rows(self) -> list[tuple[str, str, str, dict[str, Any]]]: ...

    def dates(self, user: str) -> tuple[int | None, ...]: ...

    def rollups(self) -> list[tuple[int, ...]]: ...


class OutsideSQLite:
    """Statements on the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, statement: str, *values: object) -> list[Any]:
        with sqlite3.connect(self._path) as connection:
            found = connection.execute(statement, values).fetchall()
        connection.close()
        return found

    def park(self, user: str, reason: str | None) -> None:
        self.run("UPDATE users SET parked = ? WHERE user = ?", reason, user)

    def write_balance(self, user: str, pool: str, pico: int) -> None:
        self.run("UPDATE pools SET balance_pico = ? WHERE user = ? AND pool = ?", pico, user, pool)

    def remove_balance(self, user: str, pool: str) -> None:
        self.run("DELETE FROM pools WHERE user = ? AND pool = ?", user, pool)

    def add_claim(self, user: str, reference: str, pool: str, lot: str | None, pico: int) -> None:
        self.run("DELETE FROM claims WHERE user = ? AND reference = ?", user, reference)
        self.run(
            "INSERT INTO claims (user, reference, pool, lot, amount_pico) VALUES (?, ?, ?, ?, ?)",
            *(user, reference, pool, lot, pico),
        )

    def audit_rows(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        rows = self.run("SELECT actor, action, subject, details FROM audit_log ORDER BY sequence")
        return [(actor, action, subject, orjson.loads(details)) for actor, action, subject, details in rows]

    def dates(self, user: str) -> tuple[int | None, ...]:
        return self.run(
            """SELECT purchased_at_ms, expires_at_ms, purchased_at_new_ms, expires_at_new_ms FROM users
               WHERE user = ?""",
            user,
        )[0]

    def rollups(self) -> list[tuple[int, ...]]:
        return self.run(
            """SELECT requests, failures, input_tokens, output_tokens, charge_pico FROM rollups
               WHERE series = 'models/quarter' ORDER BY start_ms"""
        )


class OutsideMongoDB:
    """Updates of the database's documents."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def change(self, user: str, update: dict[str, Any]) -> None:
        changed = self._database.usersNew.update_one({"_id": user}, update)
        assert changed.matched_count == 1

    def park(self, user: str, reason: str | None) -> None:
        self.change(user, {"$set": {"parked": reason}})

    def write_balance(self, user: str, pool: str, pico: int) -> None:
        self.change(user, {"$set": {pool: usd(pico)}})

    def remove_balance(self, user: str, pool: str) -> None:
        self.change(user, {"$unset": {pool: ""}})

    def add_claim(self, user: str, reference: str, pool: str, lot: str | None, pico: int) -> None:
        claim = {"reference": reference, "pool": pool, "lot": lot, "amount": usd(pico)}
        self.change(user, {"$set": {f"claims.{reference}": claim, "claiming": True}})

    def audit_rows(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        found = self._database.audit_log.find().sort("sequence", 1)
        return [(one["actor"], one["action"], one["subject"], one["details"]) for one in found]

    def dates(self, user: str) -> tuple[int | None, ...]:
        names = ("purchasedAt", "expiresAt", "purchasedAtNew", "expiresAtNew")
        found = self._database.usersNew.find_one({"_id": user})
        moments = [found.get(name) for name in names]
        return tuple(None if at is None else round(at.timestamp() * 1000) for at in moments)

    def rollups(self) -> list[tuple[int, ...]]:
        names = ("requests", "failures", "inputTokens", "outputTokens", "charge")
        return [
            tuple(pico(row[name]) if isinstance(row[name], Decimal128) else row[name] for name in names)
            for row in self._database.rollups.find({"series": "models/quarter"}).sort("start", 1)
        ]
