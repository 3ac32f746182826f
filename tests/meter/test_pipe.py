"""What the pipe does with a body: terminal events, removal of injected usage, strict chunks, bounds.

The usage itself is checked on recorded bodies in test_corpus; here stand the cases no recording shows.
"""

import gzip
from collections.abc import Iterable

import pytest

from farebox._meter import BROKEN, CHUNKED, END, OVERSIZE, REUSABLE, TERMINAL, UNTIL_CLOSE, Pipe, Reading
from farebox.base import limits

USAGE = b'{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}'
TEXT = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hi"}}],"usage":null}\n\n'
FINISH = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
INJECTED = b'data: {"id":"c1","choices":[],"usage":' + USAGE + b"}\n\n"
DONE = b"data: [DONE]\n\n"
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def send(pipe: Pipe, pieces: Iterable[bytes]) -> tuple[bytes, list[tuple[bytes, bytes, int]]]:
    out, told = bytearray(), []
    for piece in pieces:
        fed = pipe.feed(piece)
        if fed is None:
            out += piece
        elif isinstance(fed, bytes):
            out += fed
        else:
            out += fed[0] + fed[1]
            told.append(fed)
    return bytes(out), told


def bytewise(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


# ---- terminal events ---------------------------------------------------------------------------------------


def test_terminal_event_is_held_from_its_start() -> None:
    pipe = Pipe("chat", UNTIL_CLOSE)
    assert pipe.feed(TEXT) is None
    assert pipe.feed(INJECTED + DONE) == (INJECTED, DONE, TERMINAL)
    assert pipe.reading().final
    assert pipe.reading().complete
    assert pipe.feed(b"\n") is None
    assert pipe.finish() == (b"", b"", END)


def test_cut_done_line_counts_as_terminal_before_its_line_end() -> None:
    pipe = Pipe("chat", UNTIL_CLOSE)
    assert pipe.feed(TEXT + b"data: [DO") is None
    assert pipe.feed(b"NE]") == (b"", b"NE]", TERMINAL)


def test_usage_behind_the_terminal_event_is_in_the_reading_when_it_is_told() -> None:
    pipe = Pipe("chat", UNTIL_CLOSE)
    assert pipe.feed(TEXT + DONE + INJECTED) == (TEXT, DONE + INJECTED, TERMINAL)
    usage = pipe.reading().usage
    assert usage is not None
    assert usage["output"] == 7
    assert "events_after_terminal" in pipe.reading().flags


def test_message_stop_is_held_with_its_event_line() -> None:
    delta = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":3}}\n\n'
    pipe = Pipe("messages", UNTIL_CLOSE)
    assert pipe.feed(delta + STOP) == (delta, STOP, TERMINAL)


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
def test_responses_end_with_one_of_three_events(kind: str) -> None:
    event = f'data: {{"type":"{kind}","response":{{"usage":{{"input_tokens":1,"output_tokens":2}}}}}}\n\n'
    pipe = Pipe("responses", UNTIL_CLOSE)
    assert pipe.feed(event.encode()) == (b"", event.encode(), TERMINAL)
    assert pipe.reading().counts == {"input": 1, "output": 2}
    assert pipe.reading().failed == (kind == "response.failed")


def test_terminal_and_end_in_one_feed() -> None:
    body = TEXT + INJECTED + DONE
    pipe = Pipe("chat", len(body))
    assert pipe.feed(body) == (TEXT + INJECTED, DONE, TERMINAL | END | REUSABLE)


def test_json_body_is_held_whole_in_its_last_feed() -> None:
    body = b'{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    pipe = Pipe("chat", len(body))
    assert pipe.feed(body[:20]) is None
    assert pipe.feed(body[20:]) == (b"", body[20:], END | REUSABLE)


def test_empty_body() -> None:
    assert Pipe("chat", 0).feed(b"") == (b"", b"", END | REUSABLE)
    assert Pipe("chat", 0).finish() == (b"", b"", END)


# ---- removal of the injected usage event -------------------------------------------------------------------


def stripped(body: bytes, pieces: list[bytes], framing: int = UNTIL_CLOSE) -> tuple[bytes, Reading]:
    pipe = Pipe("chat", framing, strip_usage=True)
    out, told = send(pipe, pieces)
    if not told or not told[-1][2] & END:
        now, held, _ = pipe.finish()
        out += now + held
    return out, pipe.reading()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("tail", [DONE, b"", b": bye\n\n"])
def test_M9_only_the_injected_event_is_removed(ending: bytes, tail: bytes) -> None:
    kept_before, kept_behind = TEXT + b": note\n\n" + FINISH, tail
    before, injected, behind = (part.replace(b"\n", ending) for part in (kept_before, INJECTED, kept_behind))
    body = before + injected + behind
    cuts = [[body], bytewise(body)] + [[body[:at], body[at:]] for at in range(len(body))]
    for pieces in cuts:
        out, reading = stripped(body, pieces)
        assert out == before + behind
        assert reading.counts == {"input": 5, "output": 7}


def test_M9_usage_on_a_choice_stays() -> None:
    body = TEXT + FINISH.replace(b"]}", b'],"usage":' + USAGE + b"}") + DONE
    for pieces in ([body], bytewise(body)):
        assert stripped(body, pieces)[0] == body


def test_M9_empty_choices_without_usage_stay() -> None:
    body = b'data: {"choices":[],"prompt_filter_results":[]}\n\n' + TEXT + INJECTED + DONE
    assert stripped(body, [body])[0] == body.replace(INJECTED, b"")
    moderated = TEXT + INJECTED + b'data: {"choices":[],"moderation":{},"usage":null}\n\n' + DONE
    assert stripped(moderated, bytewise(moderated))[0] == moderated.replace(INJECTED, b"")


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_M9_injected_event_without_blank_line_at_the_end(end: bytes) -> None:
    body = TEXT + INJECTED.rstrip(b"\n") + end
    for pieces in ([body], bytewise(body)):
        assert stripped(body, pieces)[0] == TEXT
        assert stripped(body, pieces, len(body))[0] == TEXT


def test_M9_done_passes_at_once_although_its_event_is_open() -> None:
    pipe = Pipe("chat", UNTIL_CLOSE, strip_usage=True)
    assert pipe.feed(INJECTED + b"data: [DONE]") == (b"", b"data: [DONE]", TERMINAL)
    assert pipe.feed(b"\n\n") is None


def test_M10_a_long_event_is_not_withheld() -> None:
    pipe = Pipe("chat", UNTIL_CLOSE, strip_usage=True)
    head = b'data: {"choices":[{"delta":{"content":"'
    assert pipe.feed(head) == b""
    assert pipe.feed(b"x" * 60_000) == b""
    assert pipe.feed(b"y" * 10_000) == head + b"x" * 60_000 + b"y" * 10_000
    assert pipe.feed(b"z") is None
    assert pipe.feed(b'"}}]}\n\n') is None
    assert pipe.feed(INJECTED) == b""


def test_M10_an_endless_event_under_removal_breaks_the_body() -> None:
    pipe = Pipe("chat", UNTIL_CLOSE, strip_usage=True, event_bytes_max=1000)
    fed = pipe.feed(b'data: {"choices":[{"delta":{"content":"' + b"x" * 2000)
    assert isinstance(fed, tuple)
    assert fed[2] == BROKEN | OVERSIZE
    assert pipe.feed(TEXT) == (b"", b"", BROKEN | OVERSIZE)


def test_M9_json_answer_is_not_touched_by_removal() -> None:
    body = b'{"choices":[],"usage":' + USAGE + b"}"
    assert stripped(body, bytewise(body))[0] == body


def test_M9_chunked_in_and_out_with_removal() -> None:
    chunks = [TEXT, INJECTED, DONE]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    pipe = Pipe("chat", CHUNKED, chunked_out=True, strip_usage=True)
    framed = b"%x\r\n%b\r\n"
    assert pipe.feed(wire) == (
        framed % (len(TEXT), TEXT),
        framed % (len(DONE), DONE),
        TERMINAL | END | REUSABLE,
    )


def test_M10_a_quarter_million_removals_in_one_feed() -> None:
    """Removal once cost the square of their number; then this would not end within the suite's time limit."""
    wire = b"%x\r\n%b\r\n" % (len(INJECTED), INJECTED) * 250_000
    pipe = Pipe("chat", CHUNKED, chunked_out=True, strip_usage=True)
    assert pipe.feed(wire) == b""


# ---- transfer framing --------------------------------------------------------------------------------------


def test_whole_chunks_pass_as_they_are() -> None:
    wire = b"%X\r\n%b\r\n" % (len(TEXT), TEXT)
    pipe = Pipe("chat", CHUNKED, chunked_out=True)
    assert pipe.feed(wire + wire) is None


@pytest.mark.parametrize(
    "wire",
    [b"0x2\r\nab\r\n", b"+2\r\nab\r\n", b"-2\r\nab\r\n", b"0_2\r\nab\r\n", b" 2\r\nab\r\n", b"2 \r\nab\r\n",
     b"2 ;a\r\nab\r\n", b"\r\nab\r\n", b";a\r\nab\r\n", b"00000000000000002\r\nab\r\n", b"2\nab\r\n",
     b"2\r\nab\n", b"2\r\nabc\r\n", b"2;a\nb\r\nab\r\n", b"2;a\x00\r\nab\r\n", b"2\r\r\nab\r\n",
     b"2;" + b"a" * 2000 + b"\r\nab\r\n", b"0\r\nA: b\n\r\n", b"0\r\nA: b\rc\r\n\r\n",
     b"0\r\n" + b"A: b\r\n" * 3000 + b"\r\n", b"g\r\n"],
)  # fmt: skip
def test_H10_U09_bad_chunks_break_the_body(wire: bytes) -> None:
    good = b"3\r\nabc\r\n"
    for pieces in ([good + wire], bytewise(good + wire)):
        pipe = Pipe("", CHUNKED)
        out, told = send(pipe, pieces)
        assert told[-1][2] & BROKEN, wire
        assert not told[-1][2] & (END | REUSABLE)
        assert out in {b"abc", b"abcab"}


def test_chunk_extensions_and_trailers_are_dropped() -> None:
    wire = b'3;a="b c"\r\nabc\r\n0000;x\r\nTrailer: yes\r\nOther: x\r\n\r\n'
    for pieces in ([wire], bytewise(wire)):
        pipe = Pipe("", CHUNKED, chunked_out=True)
        out, told = send(pipe, pieces)
        assert told[-1][2] == END | REUSABLE
        assert out.replace(b"\r\n", b"") in {b"3abc", b"1a1b1c"}


def test_U08_U27_bytes_behind_the_end_are_dropped_and_said() -> None:
    pipe = Pipe("", 3)
    assert pipe.feed(b"abcd") == (b"", b"abc", END)
    assert pipe.feed(b"more") == (b"", b"", END)
    chunked = Pipe("", CHUNKED)
    assert chunked.feed(b"3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200") == (b"", b"abc", END)


def test_U05_a_cut_body_is_broken() -> None:
    pipe = Pipe("chat", 1000)
    assert pipe.feed(TEXT) is None
    assert pipe.finish() == (b"", b"", BROKEN)
    assert not pipe.reading().complete
    chunked = Pipe("chat", CHUNKED)
    assert chunked.feed(b"5\r\nab") == b"ab"
    assert chunked.finish() == (b"", b"", BROKEN)
    assert chunked.finish() == (b"", b"", BROKEN)


def test_length_in_chunks_out() -> None:
    pipe = Pipe("", 6, chunked_out=True)
    assert pipe.feed(b"abc") == b"3\r\nabc\r\n"
    assert pipe.feed(b"def") == (b"", b"3\r\ndef\r\n", END | REUSABLE)


def test_U16_a_decompression_bomb_is_cut() -> None:
    bomb = gzip.compress(b" " * 3_000_000)
    pipe = Pipe("chat", len(bomb) + 1, content_encoding="gzip", inflated_bytes_max=1_000_000)
    fed = pipe.feed(bomb)
    assert isinstance(fed, tuple)
    assert fed[2] == BROKEN | OVERSIZE


def test_U15_unknown_encodings_are_refused() -> None:
    with pytest.raises(ValueError, match="br"):
        Pipe("chat", CHUNKED, content_encoding="br")
    with pytest.raises(ValueError, match="wire_format"):
        Pipe("soap", CHUNKED)
    with pytest.raises(ValueError, match="framing"):
        Pipe("chat", -3)


def test_gzip_cut_or_damaged_keeps_what_was_decoded() -> None:
    packed = gzip.compress(TEXT + INJECTED + b"data: " + b"x" * 5000)
    pipe = Pipe("chat", UNTIL_CLOSE, content_encoding="gzip")
    send(pipe, [packed[:-20]])
    assert pipe.reading().counts == {"input": 5, "output": 7}
    damaged = Pipe("chat", UNTIL_CLOSE, content_encoding="gzip")
    assert send(damaged, [b"not gzip at all"])[0] == b"not gzip at all"
    assert "undecodable_encoding" in damaged.reading().flags


def test_M10_the_bounds_the_meter_has_by_itself_are_those_of_the_one_file() -> None:
    signature = Pipe.__text_signature__
    assert signature is not None
    for name in ("inflated_bytes_max", "event_bytes_max"):
        assert f"{name}={getattr(limits, name)}" in signature
