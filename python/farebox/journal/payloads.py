"""Payloads of the frames whose meaning is the journal's own: progress, prices.

`open`, `settle` and `void` hold the records of base/records.py. Every payload but prices is a JSON array
that begins with the exchange id, so that the journal can follow an exchange without understanding the
record.
"""

import orjson

from farebox.base.errors import InvariantBrokenError


def exchange_of(payload: bytes) -> bytes:
    """The exchange a payload belongs to, as bytes. Raises InvariantBrokenError when it names none."""
    end = payload.find(b'"', 2)
    if end < 3:
        raise InvariantBrokenError("a journal payload must begin with its exchange id")
    return payload[2:end]


def progress_payload(exchange: str, output_count: int) -> bytes:
    """How much output of `exchange` has been seen so far, in the unit its settlement estimates from."""
    return b'["%b",%d]' % (exchange.encode(), output_count)


def progress_count(payload: bytes) -> int:
    """The output count of a progress payload."""
    return int(orjson.loads(payload)[1])


def prices_payload(version: int, book: bytes) -> bytes:
    """A price book (JSON bytes) under its version."""
    return b"[%d,%s]" % (version, book)


def prices_of(payload: bytes) -> tuple[int, bytes]:
    """Version and JSON bytes of a prices payload."""
    version, _, book = payload[1:-1].partition(b",")
    return int(version), book
