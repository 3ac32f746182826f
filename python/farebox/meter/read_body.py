"""Read the usage of a whole response body: for `farebox meter` and for anyone with a recorded body in hand.

It goes through the same `Pipe` as live traffic, so both always agree.
"""

from farebox._meter import UNTIL_CLOSE, Pipe, Reading


def read_body(data: bytes, wire_format: str, *, content_encoding: str = "") -> Reading:
    """What `data`, a complete response body, says about its usage. Raises ValueError on an unknown format."""
    pipe = Pipe(wire_format, UNTIL_CLOSE, content_encoding=content_encoding)
    pipe.feed(data)
    pipe.finish()
    return pipe.reading()
