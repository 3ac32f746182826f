"""What every store decides alike about the records of an event: may they change, and what is written of them.

Pure. Promises: a record changes only from the revision its change was decided on; no float, no unknown kind
and no oversized document gets into a store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import orjson

from farebox.base import limits
from farebox.base.errors import InvariantBrokenError
from farebox.base.units import usd_from_pico
from farebox.store.base import RECORD_KINDS, Event, EventResult, Record, RecordChange

EXPIRING_KINDS: Final = frozenset({"session"})
"""Kinds of records that are removed once they are due; whatever money belongs to stays for ever."""


def check_expiring(kind: str) -> None:
    """Raise InvariantBrokenError on a kind whose records stay."""
    if kind not in EXPIRING_KINDS:
        raise InvariantBrokenError(f"records of the kind {kind} are kept for ever")


def check_changes(changes: Sequence[RecordChange]) -> None:
    """Raise InvariantBrokenError on changes no store can keep."""
    names = {(change.record.kind, change.record.id) for change in changes}
    if len(names) != len(changes):
        raise InvariantBrokenError("an event changes each of its records once")
    for change in changes:
        record = change.record
        if record.kind not in RECORD_KINDS or not record.id or record.revision != change.expected + 1:
            raise InvariantBrokenError(f"record {record.kind} {record.id!r}: no store keeps such a one")


def standing(changes: Sequence[RecordChange], found: Sequence[Record | None]) -> EventResult | None:
    """Whether changes may be made to the records found (in the same order).

    None: they may. DUPLICATE: they are made already. STALE: something else happened in between.
    """
    if changes and all(
        record is not None and _content(record) == _content(change.record)
        for change, record in zip(changes, found, strict=True)
    ):
        return EventResult.DUPLICATE
    for change, record in zip(changes, found, strict=True):
        if change.expected != (0 if record is None else record.revision):
            return EventResult.STALE
    return None


def document_text(record: Record) -> str:
    """The record's document as JSON. Raises InvariantBrokenError on a float (money!) or too large a one."""
    name = f"record {record.kind} {record.id!r}"
    if _holds_float(record.document):
        raise InvariantBrokenError(f"{name}: a float in a document; write money as a decimal string")
    try:
        text = orjson.dumps(record.document)
    except TypeError as error:
        raise InvariantBrokenError(f"{name}: {error}") from None
    if len(text) > limits.record_bytes_max:
        raise InvariantBrokenError(f"{name}: larger than {limits.record_bytes_max} bytes")
    return text.decode()


def with_balances(event: Event, after_pico: int) -> tuple[RecordChange, ...]:
    """The event's record changes; the first with the balance of `balance_of` as the event found and left it.

    `after_pico`: that balance of the first row's user, the event's rows included.
    """
    user = event.rows[0].user
    moved_pico = sum(
        row.amount_pico for row in event.rows if row.user == user and row.pool == event.balance_of
    )
    first = event.records[0]
    balances = {
        "creditsBefore": usd_from_pico(after_pico - moved_pico),
        "creditsAfter": usd_from_pico(after_pico),
    }
    record = replace(first.record, document={**first.record.document, **balances})
    return (replace(first, record=record), *event.records[1:])


def event_name(event: Event) -> str:
    """What an event is called in errors: its first row, or its first record."""
    if event.rows:
        return event.rows[0].id
    return f"{event.records[0].record.kind} {event.records[0].record.id}"


def audit_entry(event: Event) -> tuple[str, str, dict[str, object]]:
    """(action, subject, details) for the audit log."""
    details: dict[str, object] = {"rows": [row.id for row in event.rows], "source": event.source}
    states = {f"{c.record.kind}:{c.record.id}": c.record.status for c in event.records}
    if states:
        details["records"] = states
    if event.rows:
        return f"event.{event.rows[0].type}", event.rows[0].user, details
    record = event.records[0].record
    return f"{record.kind}.{record.status or 'change'}", record.user or record.id, details


def _content(record: Record) -> tuple[object, ...]:
    return (
        record.revision,
        record.user,
        record.status,
        record.reference,
        record.created_ms,
        record.due_ms,
        orjson.loads(document_text(record)),
    )


def _holds_float(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_float(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_float(part) for part in value)
    return isinstance(value, float)
