"""Response heads: the same answer however the bytes arrive; ambiguity is refused (U22, H08-H12)."""

import pytest

from farebox.meter import CHUNKED, UNTIL_CLOSE, HeadError, parse_head

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Twice: a\r\nx-twice:  b \r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def test_a_head_is_read() -> None:
    head = parse_head(HEAD + b"5\r\nhello", False, 65536, 256)
    assert head is not None
    assert (head.status, head.minor_version, head.framing, head.keep_alive) == (200, 1, CHUNKED, True)
    assert head.length == len(HEAD)
    assert head.headers == [
        (b"content-type", b"text/event-stream"),
        (b"x-twice", b"a"),
        (b"x-twice", b"b"),
        (b"transfer-encoding", b"chunked"),
    ]


def test_every_prefix_is_incomplete() -> None:
    assert all(parse_head(HEAD[:end], False, 65536, 256) is None for end in range(len(HEAD)))


@pytest.mark.parametrize(
    ("head", "framing", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", 7, True),
        (b"HTTP/1.1 200 OK\r\n\r\n", UNTIL_CLOSE, False),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 0, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 0, True),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 7\r\n\r\n", 7, False),
    ],
)
def test_framing(head: bytes, framing: int, keep_alive: bool) -> None:
    parsed = parse_head(head, False, 65536, 256)
    assert parsed is not None
    assert (parsed.framing, parsed.keep_alive) == (framing, keep_alive)


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: gzip, chunked",
        b"X: a\r\n folded",
        b"X: a\nY: b",
        b"X: a\rb",
        b"X: \x00",
    ],
)
def test_U22_ambiguous_heads_are_refused(lines: bytes) -> None:
    with pytest.raises(HeadError):
        parse_head(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n", False, 65536, 256)


def test_U22_bounds() -> None:
    with pytest.raises(HeadError, match="too many headers"):
        parse_head(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 257 + b"\r\n", False, 65536, 256)
    with pytest.raises(HeadError, match="too long"):
        parse_head(b"HTTP/1.1 200 OK\r\na: " + b"b" * 65536, False, 65536, 256)
