"""What every store says alike about an exchange in its request log and its rollups.

Pure; the names are those of the replaced system first, then ours.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from farebox.base.records import Settlement
from farebox.store.booking_rules import output_tokens

HOUR_MS: Final = 3_600_000

Cell = tuple[int, str, str, str]
"""Start of the hour, user, model, wallet."""


def cells(records: Iterable[Settlement]) -> dict[Cell, list[int]]:
    """Per hour, user, model and wallet: requests, failures, input tokens, output tokens, charge in
    pico-USD.
    """
    sums: dict[Cell, list[int]] = {}
    for record in records:
        where = (record.ended_ms - record.ended_ms % HOUR_MS, record.user, record.model, record.wallet)
        cell = sums.get(where)
        if cell is None:
            cell = sums[where] = [0] * 5
        cell[0] += 1
        cell[1] += not 200 <= record.status < 300
        cell[2] += record.input_total
        cell[3] += output_tokens(record)
        cell[4] += 0 if record.quarantine else record.amount_pico
    return sums


def detail(record: Settlement) -> dict[str, object]:
    """The rare members of a log row, empty ones left out."""
    members: Mapping[str, object] = {
        "flags": record.flags,
        "others": record.others,
        "variant": record.variant,
        "quarantine": record.quarantine,
        "free": record.free,
        "startedMs": record.started_ms,
    }
    return {name: value for name, value in members.items() if value}


def date(milliseconds: int) -> datetime:
    """A moment in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
