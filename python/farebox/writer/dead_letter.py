"""The file beside a journal for what the store would not take: request-log rows, records nobody can read.

Promises: nothing that could not be written is dropped without a trace, and the trace is bounded (M10). One
JSON object a line: `reason`, `pos`, and the record as the journal has it. A replay may repeat a line. Money
never waits for it.
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import orjson

from farebox.base import limits
from farebox.writer.batch import Finished

_log = logging.getLogger(__name__)


class DeadLetters:
    """Appends to one journal's `dead_letter.jsonl`; created with its first line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def append(self, records: Iterable[Finished], reason: str) -> None:
        """Keep records with the reason why they are here. A file that cannot be written is an alarm, not a
        stop.
        """
        lines = [
            orjson.dumps(
                {"reason": reason, "pos": record.pos, "record": orjson.loads(record.settlement.encode())}
            )
            for record in records
        ]
        self.count += len(lines)
        _log.error("%s: %d records put into %s", reason, len(lines), self.path)
        try:
            self._write(b"".join(line + b"\n" for line in lines))
        except OSError as error:
            _log.error(
                "%s cannot be written (%s); %d records are only in this log's count",
                self.path,
                error,
                len(lines),
            )

    def _write(self, data: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size + len(data) > limits.dead_letter_bytes_max:
                raise OSError(f"it has reached {limits.dead_letter_bytes_max} bytes; move it away")
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
