"""Changes somebody makes to payments, rows and lots behind Farebox's back, on either store."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from farebox.store.mongo.values import usd


class TamperSQLite:
    """Statements on the file; each must meet one row."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _run(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self._path)) as connection:
            assert connection.execute(statement, values).rowcount == 1
            connection.commit()

    def park(self, user: str, reason: str | None) -> None:
        self._run("UPDATE users SET parked = ? WHERE user = ?", reason, user)

    def payment_document(self, payment: str, document: Mapping[str, Any]) -> None:
        text = orjson.dumps(document).decode()
        self._run("UPDATE records SET document = ? WHERE kind = 'payment' AND id = ?", text, payment)

    def payment_status(self, payment: str, status: str) -> None:
        self._run("UPDATE records SET status = ? WHERE kind = 'payment' AND id = ?", status, payment)

    def remove_payment(self, payment: str) -> None:
        self._run("DELETE FROM records WHERE kind = 'payment' AND id = ?", payment)

    def remove_row(self, kind: str, reference: str) -> None:
        self._run("DELETE FROM credit_transactions WHERE type = ? AND reference = ?", kind, reference)

    def raise_lot(self, user: str, lot: str) -> None:
        self._run("UPDATE lots SET left_pico = left_pico + 1 WHERE user = ? AND lot = ?", user, lot)


class TamperMongoDB:
    """Updates of the database's documents; each must meet one."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def park(self, user: str, reason: str | None) -> None:
        self._update("usersNew", user, {"$set": {"parked": reason}})

    def payment_document(self, payment: str, document: Mapping[str, Any]) -> None:
        self._update("payments", payment, {"$set": {"document": dict(document)}})

    def payment_status(self, payment: str, status: str) -> None:
        self._update("payments", payment, {"$set": {"status": status}})

    def remove_payment(self, payment: str) -> None:
        assert self._database.payments.delete_one({"_id": payment}).deleted_count == 1

    def remove_row(self, kind: str, reference: str) -> None:
        found = self._database.credit_transactions.delete_one({"type": kind, "reference": reference})
        assert found.deleted_count == 1

    def raise_lot(self, user: str, lot: str) -> None:
        self._update("usersNew", user, {"$inc": {f"lots.{lot}.left": usd(1)}})

    def _update(self, collection: str, id_: str, change: dict[str, Any]) -> None:
        assert self._database[collection].update_one({"_id": id_}, change).matched_count == 1
