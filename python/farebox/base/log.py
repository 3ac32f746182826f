"""Logging set-up: one line per event on standard error, redacted, the same in every process.

Text for people, or, with FAREBOX_LOG_FORMAT=json, one JSON object a line for programs: time, level, logger,
message, and the id of the exchange it is about.
"""

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Final

from farebox.base.redaction import RedactingFilter

FORMAT = "%(asctime)s %(levelname).1s %(name)s %(message)s"
_EXCHANGE: Final = re.compile(r"\b[0-9a-f]{32}\b")
_SETTLED: Final = re.compile(
    r"settled (?P<exchange>[0-9a-f]{32}) user=(?P<user>\S*) model=(?P<model>.*?) "
    r"(?P<evidence>exact|partial|estimated|none) (?P<outcome>\S+) .*? amount=(?P<amount>\S+) "
)


def wants_json() -> bool:
    """Whether the operator wants JSON lines."""
    return os.environ.get("FAREBOX_LOG_FORMAT", "text").lower() == "json"


def set_up_logging(level: str = "INFO") -> None:
    """Install the one handler on the root logger; call once per process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if wants_json() else logging.Formatter(FORMAT))
    handler.addFilter(RedactingFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; `exchange` only where the message names one."""
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        members: dict[str, object] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        found = _EXCHANGE.search(message)
        if found is not None:
            members["exchange"] = found.group()
        return json.dumps(members)


def settlement_as_json(line: str, now_s: float) -> str:
    """A settlement's line of text as one of JSON; its amounts stay strings."""
    text = line.rstrip("\n")
    found = _SETTLED.match(text)
    members = found.groupdict() if found is not None else {}
    document = {"time": _time(now_s), "level": "info", "logger": "farebox.settlement", "message": text}
    return json.dumps({**document, **members}) + "\n"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
