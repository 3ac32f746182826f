"""Every recorded answer yields the usage the corpus states, however it is cut or packed (M8, M9, U12).

The relayed bytes are compared in every case: what goes to the client is what came from the upstream.
"""

import gzip
import json
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import needs
from farebox._meter import CHUNKED, END, REUSABLE, UNTIL_CLOSE, Pipe, Reading

SPLIT_TAIL_BYTES = 4096
Row = dict[str, Any]


@cache
def corpus() -> tuple[list[Row], Path]:
    folder = needs.shared_directory() / "corpus"
    rows = [json.loads(line) for line in (folder / "INDEX.jsonl").read_text().splitlines()]
    return rows, folder / "bodies"


@cache
def index_flags() -> frozenset[str]:
    return frozenset(flag for row in corpus()[0] for flag in row["flags"])


def body_of(row: Row) -> bytes:
    return (corpus()[1] / row["file"]).read_bytes()


def relay(pipe: Pipe, pieces: Iterable[bytes]) -> tuple[bytes, int]:
    """What reaches the client, and the states seen."""
    out, states = bytearray(), 0
    for piece in pieces:
        fed = pipe.feed(piece)
        if fed is None:
            out += piece
        elif isinstance(fed, bytes):
            out += fed
        else:
            out += fed[0] + fed[1]
            states |= fed[2]
    if not states & END:
        now, held, state = pipe.finish()
        out += now + held
        states |= state
    return bytes(out), states


def agrees(row: Row, reading: Reading) -> None:
    assert reading.usage == row["expected"]
    assert sorted(set(reading.flags) & index_flags()) == sorted(row["flags"])


def cases() -> list[Any]:
    return [pytest.param(row, id=row["file"]) for row in corpus()[0]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        metafunc.parametrize("row", cases())


def test_the_corpus_is_whole() -> None:
    assert len(corpus()[0]) == 197


def test_M9_whole_body_of_known_length(row: Row) -> None:
    body = body_of(row)
    pipe = Pipe(row["api"], len(body))
    out, states = relay(pipe, [body])
    assert out == body
    assert states & (END | REUSABLE) == END | REUSABLE
    agrees(row, pipe.reading())


def test_U12_byte_by_byte_until_close(row: Row) -> None:
    body = body_of(row)
    pipe = Pipe(row["api"], UNTIL_CLOSE)
    out, _ = relay(pipe, (body[at : at + 1] for at in range(len(body))))
    assert out == body
    agrees(row, pipe.reading())


def test_U12_split_at_every_offset_of_the_tail(row: Row) -> None:
    body = body_of(row)
    whole = Pipe(row["api"], len(body))
    relay(whole, [body])
    wanted = members(whole.reading())
    for at in range(max(0, len(body) - SPLIT_TAIL_BYTES), len(body) + 1):
        pipe = Pipe(row["api"], len(body))
        one, two = body[:at], body[at:]
        first, second = pipe.feed(one), pipe.feed(two)
        assert joined(first, one) + joined(second, two) == body, at
        assert members(pipe.reading()) == wanted, at


def joined(fed: bytes | tuple[bytes, bytes, int] | None, piece: bytes) -> bytes:
    if fed is None:
        return piece
    return fed if isinstance(fed, bytes) else fed[0] + fed[1]


def members(reading: Reading) -> tuple[object, ...]:
    return (
        reading.usage,
        reading.counts,
        reading.flags,
        reading.complete,
        reading.final,
        reading.failed,
        reading.raw,
        reading.output_bytes,
        reading.model,
        reading.response_id,
    )


@pytest.mark.parametrize("ending", [b"\r\n", b"\r"], ids=["crlf", "cr"])
def test_U11_other_line_endings(row: Row, ending: bytes) -> None:
    if row["framing"] != "sse":
        return
    body = body_of(row).replace(b"\r\n", b"\n").replace(b"\n", ending)
    for pieces in ([body], [body[at : at + 7] for at in range(0, len(body), 7)]):
        pipe = Pipe(row["api"], UNTIL_CLOSE)
        assert relay(pipe, pieces)[0] == body
        agrees(row, pipe.reading())


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "two gzip members"])
def test_U15_compressed_bodies_are_metered_and_relayed_as_they_are(row: Row, encoding: str) -> None:
    body = body_of(row)
    middle = len(body) // 2
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": lambda: gzip.compress(body),
        "deflate": lambda: zlib.compress(body),
        "raw deflate": lambda: raw.compress(body) + raw.flush(),
        "two gzip members": lambda: gzip.compress(body[:middle]) + gzip.compress(body[middle:]),
    }[encoding]()
    name = "gzip" if "gzip" in encoding else "deflate"
    for size in (len(packed), 1000, 1):
        pipe = Pipe(row["api"], len(packed), content_encoding=name)
        pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
        assert relay(pipe, pieces)[0] == packed
        agrees(row, pipe.reading())


@pytest.mark.parametrize("chunked_out", [True, False])
def test_M9_chunked_bodies(row: Row, chunked_out: bool) -> None:
    body = body_of(row)
    chunks = [body[at : at + 1237] for at in range(0, len(body), 1237)]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    for size in (len(wire), 4096, 3):
        pipe = Pipe(row["api"], CHUNKED, chunked_out=chunked_out)
        out, states = relay(pipe, [wire[at : at + size] for at in range(0, len(wire), size)])
        assert states & (END | REUSABLE) == END | REUSABLE
        assert (dechunked(out) if chunked_out else out) == body
        agrees(row, pipe.reading())


def dechunked(wire: bytes) -> bytes:
    out, at = bytearray(), 0
    while at < len(wire):
        line = wire.index(b"\r\n", at)
        size = int(wire[at:line], 16)
        assert size > 0
        out += wire[line + 2 : line + 2 + size]
        at = line + 2 + size
        assert wire[at : at + 2] == b"\r\n"
        at += 2
    return bytes(out)


def test_R8_clamped_where_the_upstream_is_set_to_inclusive(row: Row) -> None:
    wanted = row.get("expected_alt")
    if wanted is None or "clamp" not in wanted["policy"]:
        return
    body = body_of(row)
    pipe = Pipe(row["api"], len(body), cache_semantics="inclusive")
    relay(pipe, [body])
    usage = pipe.reading().usage
    assert usage is not None
    assert {key: usage[key] for key in wanted if key != "policy"} == {
        key: value for key, value in wanted.items() if key != "policy"
    }


def test_R10_kinds_are_disjoint_and_add_up(row: Row) -> None:
    body = body_of(row)
    pipe = Pipe(row["api"], len(body))
    relay(pipe, [body])
    reading = pipe.reading()
    if reading.usage is None:
        return
    counts = reading.counts
    inputs = ("input", "audio_input", "image_input")
    assert sum(counts.get(kind, 0) for kind in inputs) == reading.usage["uncached_input"]
    assert (
        sum(counts.get(kind, 0) for kind in ("output", "audio_output", "image_output"))
        == reading.usage["output"]
    )
    assert counts.get("cache_read", 0) == (reading.usage["cache_read"] or 0)
    written = counts.get("cache_write_5m", 0) + counts.get("cache_write_1h", 0)
    assert written == (reading.usage["cache_write"] or 0)
    assert all(count > 0 for count in counts.values())
