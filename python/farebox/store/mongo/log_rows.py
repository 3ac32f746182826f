"""A request-log document as it is shown: the same members for a row of ours and of the replaced system."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bson import Decimal128

from farebox.base.keys import key_digest
from farebox.base.units import usd_from_pico
from farebox.store.mongo.values import milliseconds, pico

_OURS: Mapping[str, object] = {"flags": [], "variant": "", "quarantine": "", "free": False}


def described(row: Mapping[str, Any]) -> Mapping[str, object]:
    """The replaced system's names first, then ours; money as exact USD strings, dates in UTC.

    Rows the replaced system left hold clients' keys: they are shown as digests (M11).
    """
    described = {**_OURS, **{name: _plain(value) for name, value in row.items()}}
    described["others"] = {other["model"]: other["counts"] for other in row.get("others", [])}
    described.setdefault("creditType", "ohmygpt")
    key = described.get("userKeyId")
    if isinstance(key, str) and key.startswith("sk-"):
        described["userKeyId"] = key_digest(key)
    for internal in ("sequence", "startedMs"):
        described.pop(internal, None)
    return described


def _plain(value: object) -> object:
    if isinstance(value, Decimal128):
        return usd_from_pico(pico(value))
    moment = milliseconds(value)
    return datetime.fromtimestamp(moment / 1000, UTC) if moment is not None else value
