"""Secrets that cannot be printed by accident, and a filter that keeps key-like text out of logs (M11)."""

import logging
import re

_KEY_LIKE = re.compile(
    r"(?i)\b(sk-[a-z0-9_-]{8,}|bearer\s+[^\s\"']+)|(mongodb(?:\+srv)?://[^:/\s]+:)[^@\s]+@"
)


class Secret:
    """A credential: `reveal()` gives it, every other way of looking gives a fixed text."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The credential itself; call it only where the bytes leave for their owner."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__


def redacted(text: str) -> str:
    """`text` with everything that looks like a key or password replaced by a fixed mark."""
    return _KEY_LIKE.sub(lambda found: f"{found.group(2)}[secret]@" if found.group(2) else "[secret]", text)


class RedactingFilter(logging.Filter):
    """Logging filter that renders a record once and redacts it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = redacted(record.getMessage())
        record.args = ()
        return True
