"""A whole recorded body reads the same here as on its way through the proxy: both go through one `Pipe`."""

import gzip
import json

import pytest

from farebox.meter import UNTIL_CLOSE, Pipe, read_body

BODY = json.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "model": "gpt-5",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
    }
).encode()


def test_a_body_is_read_whole() -> None:
    reading = read_body(BODY, "chat")
    assert reading.counts == {"input": 10, "output": 4}
    assert (reading.input_total, reading.complete, reading.final) == (10, True, True)


def test_it_agrees_with_a_pipe_fed_byte_by_byte() -> None:
    pipe = Pipe("chat", UNTIL_CLOSE)
    for at in range(len(BODY)):
        pipe.feed(BODY[at : at + 1])
    pipe.finish()
    assert pipe.reading().usage == read_body(BODY, "chat").usage


def test_compressed_bodies_are_inflated_for_reading() -> None:
    reading = read_body(gzip.compress(BODY), "chat", content_encoding="gzip")
    assert reading.counts == {"input": 10, "output": 4}


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        read_body(BODY, "telepathy")
