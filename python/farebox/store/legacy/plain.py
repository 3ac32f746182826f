"""BSON and MongoDB's Extended JSON as plain values, so that nothing above knows where a document came from.

Source of the JSON form: MongoDB Extended JSON (v2), canonical and relaxed; also the shell's `$date` numbers.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from bson import Decimal128, ObjectId
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_MS: Final = 253_402_300_799_999  # the end of the year 9999


def from_bson(document: dict[str, Any]) -> dict[str, Any]:
    """A decoded BSON document with its driver types replaced, in place."""
    for name, value in document.items():
        convert = _BSON.get(type(value))
        if convert is not None:
            document[name] = convert(value)
    return document


def from_json(value: Any) -> Any:
    """An Extended JSON value. Raises ValueError on a wrapper that holds nonsense."""
    if isinstance(value, dict):
        if len(value) == 1:
            ((name, inner),) = value.items()
            convert = _WRAPPERS.get(name)
            if convert is not None:
                return convert(inner)
        return {name: from_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [from_json(inner) for inner in value]
    return value


def moment(at_ms: int) -> datetime | None:
    """An aware datetime of milliseconds since the epoch; None outside of what a calendar holds."""
    if not 0 <= at_ms <= _LONGEST_MS:
        return None
    return _EPOCH + timedelta(milliseconds=at_ms)


def _date(value: Any) -> datetime | None:
    if isinstance(value, str):
        at = datetime.fromisoformat(value)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return moment(int(from_json(value)))


_BSON: Final[Mapping[type, Callable[[Any], Any]]] = {
    ObjectId: str,
    Decimal128: lambda value: value.to_decimal(),
    DatetimeMS: lambda value: moment(int(value)),
    Int64: int,
    dict: from_bson,
    list: lambda values: [_BSON[type(v)](v) if type(v) in _BSON else v for v in values],
}

_WRAPPERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$oid": str,
    "$numberDouble": float,
    "$numberInt": int,
    "$numberLong": int,
    "$numberDecimal": Decimal,
    "$date": _date,
}
