"""Reading JSON without losing a digit: number literals with a fraction become Decimal, never float.

Also refuses what the standard parser lets pass: doubled keys, NaN and Infinity. Keys that begin with
`_comment` are dropped at every level, so the rest of the room never sees them.
"""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from farebox.config.problems import Problems

COMMENT_PREFIX = "_comment"
_PLAIN = re.compile(r"\d{1,12}(\.\d{1,15})?")


def read_document(path: Path, problems: Problems) -> dict[str, Any] | None:
    """The JSON object in `path` without comments; None after reporting why there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problems.error("", f"cannot be read: {error.strerror}")
        return None
    except UnicodeDecodeError as error:
        problems.error("", f"is not UTF-8 (byte {error.start})")
        return None
    try:
        document = json.loads(
            text,
            parse_float=Decimal,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object_without_comments,
        )
    except json.JSONDecodeError as error:
        problems.error("", f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}")
        return None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        problems.error("", f"is not usable JSON: {reason}")
        return None
    if not isinstance(document, dict):
        problems.error("", "must hold one JSON object")
        return None
    return document


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _object_without_comments(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in pairs:
        if key.startswith(COMMENT_PREFIX):
            continue
        if key in kept:
            raise ValueError(f"the key {key!r} appears twice in one object")
        kept[key] = value
    return kept


def decimal_text(value: object) -> str:
    """Plain decimal text of a JSON string or number, digits as written. ValueError on anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("must be a decimal number or a string that holds one")
    text = str(value)
    if text.startswith("-"):
        raise ValueError("must not be negative")
    if _PLAIN.fullmatch(text):
        return text
    if not isinstance(value, Decimal):
        raise ValueError(
            f"{text!r} is not a plain decimal number of at most 12 digits before and 15 after the point"
        )
    plain = format(value, "f")
    if not _PLAIN.fullmatch(plain):
        raise ValueError(f"{text} has more than 12 digits before or 15 after the point")
    return plain


def _float_from_exact(value: object) -> object:
    return float(value) if isinstance(value, Decimal) or type(value) is int else value


_DECIMAL_SCHEMA = {"anyOf": [{"type": "string", "pattern": r"^\d{1,12}(\.\d{1,15})?$"}, {"type": "number"}]}

ExactDecimal = Annotated[str, BeforeValidator(decimal_text), WithJsonSchema(_DECIMAL_SCHEMA)]
"""A decimal kept as text: prices, multipliers, amounts of USD."""

Seconds = Annotated[float, BeforeValidator(_float_from_exact)]
"""A duration; never money, so a float will do."""
