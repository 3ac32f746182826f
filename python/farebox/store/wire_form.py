"""How calls to the writer look as bytes: frames of JSON, and records back from it.

Promises: what `encode` writes, the `*_from` functions read back equal; a frame above the limit is an error on
the side that would send it, never a memory problem of the side that reads it.
"""

import asyncio
import contextlib
from typing import Any, Final

import orjson

from farebox.base import limits
from farebox.base.records import Account, Claim, Fenced, Grant, KeyRecord, LeaseEntry, Lot, LotAmount
from farebox.store.base import JournalState

LENGTH_BYTES: Final = 4


class FrameTooLongError(ValueError):
    """A message is above `limits.rpc_message_bytes_max`."""


def encode(message: list[Any]) -> bytes:
    """A frame: 4 bytes of length, big-endian, and the message as JSON. Raises FrameTooLongError."""
    payload = orjson.dumps(message, default=_plain)
    if len(payload) > limits.rpc_message_bytes_max:
        raise FrameTooLongError(f"a message of {len(payload)} bytes is above {limits.rpc_message_bytes_max}")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


async def read(reader: asyncio.StreamReader) -> list[Any]:
    """The next message. Raises asyncio.IncompleteReadError or OSError at the end, ValueError on junk."""
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > limits.rpc_message_bytes_max:
        raise FrameTooLongError(f"a message of {length} bytes is above {limits.rpc_message_bytes_max}")
    message = orjson.loads(await reader.readexactly(length))
    if not isinstance(message, list) or len(message) < 2 or not isinstance(message[0], int):
        raise ValueError("a message is an array that begins with a number")
    return message


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection and wait until it is gone; how the other side ended it does not matter any more."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"no wire form for {type(value).__name__}")


def lot_amounts_from(rows: list[list[Any]]) -> tuple[LotAmount, ...]:
    """Amounts of lots."""
    return tuple(LotAmount(*row) for row in rows)


def _with_expiry(rows: list[list[Any]]) -> tuple[tuple[LotAmount, int | None], ...]:
    return tuple((LotAmount(*part), expires_at_ms) for part, expires_at_ms in rows)


def grant_from(form: dict[str, Any]) -> Grant:
    """The answer to a grant."""
    return Grant(**{**form, "added": _with_expiry(form["added"])})


def fenced_from(form: dict[str, Any] | None) -> Fenced | None:
    """The answer to a fence."""
    if form is None:
        return None
    return Fenced(**{**form, "lots": _with_expiry(form["lots"]), "booked": frozenset(form["booked"])})


def account_from(form: dict[str, Any] | None) -> Account | None:
    """One user's money."""
    if form is None:
        return None
    return Account(
        **{
            **form,
            "lots": tuple(Lot(**lot) for lot in form["lots"]),
            "leases": {journal: LeaseEntry(**entry) for journal, entry in form["leases"].items()},
            "claims": tuple(Claim(**claim) for claim in form["claims"]),
            "wants": frozenset(form["wants"]),
        }
    )


def key_from(form: dict[str, Any] | None) -> KeyRecord | None:
    """A key joined with its owner."""
    if form is None:
        return None
    models = form["allowed_models"]
    return KeyRecord(**{**form, "allowed_models": None if models is None else tuple(models)})


def journal_from(form: dict[str, Any]) -> JournalState:
    """A journal's row."""
    return JournalState(**form)
