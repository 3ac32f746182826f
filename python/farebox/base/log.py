"""Logging set-up: one line per event on standard error, redacted, the same in every process."""

import logging
import sys

from farebox.base.redaction import RedactingFilter

FORMAT = "%(asctime)s %(levelname).1s %(name)s %(message)s"


def set_up_logging(level: str = "INFO") -> None:
    """Install the one handler on the root logger; call once per process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(RedactingFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
