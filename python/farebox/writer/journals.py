"""Where the writer meets the journal's files: which there are, reading one from a position, letting segments
go.

Promises: disk waits happen on a thread, so that workers asking for a grant never wait for a sync.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from farebox.base import limits
from farebox.base.errors import JournalError
from farebox.journal import Reader
from farebox.journal.files import Files
from farebox.journal.frames import Frame
from farebox.journal.segments import SEGMENT_SUFFIX, journal_directories


def journal_paths(root: Path) -> list[Path]:
    """The journal directories under a root, by id; none when there is no root."""
    return journal_directories(Files(), root)


def dead_letter_path(directory: Path) -> Path:
    """The dead letters of a journal: beside its directory, because they outlive it."""
    return directory.with_name(f"{directory.name}.dead_letters.jsonl")


class JournalSource:
    """One journal read in batches from behind `after_pos`; for one task."""

    def __init__(self, directory: Path, after_pos: int, *, whole: bool = False) -> None:
        """`whole`: it is damage when records right behind `after_pos` are not there."""
        self._reader = Reader(directory, whole=whole, only_ends=True)
        self._directory = directory
        self._pos = after_pos
        self._deleted_pos = 0
        self._end_seen: tuple[str, int, int] | None = None

    def is_quiet(self) -> bool:
        """Whether nothing was written since the last read that found nothing: cheap, for polling."""
        return self._end_seen is not None and self._end_seen == self._end()

    def _end(self) -> tuple[str, int, int]:
        """Name, length and time of the newest segment; a record may stand where a torn one did."""
        try:
            with os.scandir(self._directory) as entries:
                name, path = max(
                    (entry.name, entry.path) for entry in entries if entry.name.endswith(SEGMENT_SUFFIX)
                )
                state = Path(path).stat()
                return name, state.st_size, state.st_mtime_ns
        except (OSError, ValueError):
            return "", 0, 0

    async def read_synced(self) -> tuple[Sequence[Frame], bool]:
        """The next frames, all on disk, and whether there are more. Raises JournalError."""
        end = self._end()
        frames, has_more = await asyncio.to_thread(self._read_batch, end)
        self._end_seen = None if frames else end
        return frames, has_more

    def _read_batch(self, end: tuple[str, int, int]) -> tuple[list[Frame], bool]:
        """Read over segment ends up to a batch, or to `end`; what comes before damage is given before the
        damage is raised.

        What is written meanwhile waits: to follow a busy worker record by record would sync it each time.
        """
        batch: list[Frame] = []
        began = self._reader.bytes_read
        while self._reader.bytes_read - began < limits.batch_bytes:
            try:
                frames = self._reader.read(self._pos, limits.batch_bytes)
            except JournalError:
                if not batch:
                    raise
                return batch, True
            if not frames:
                return batch, False
            batch += frames
            self._pos = frames[-1].pos
            if self._reader.reached >= end[:2]:
                return batch, False
        return batch, True

    @property
    def place(self) -> int:
        """The position up to which the journal was read, by whatever its files say."""
        return self._reader.place

    async def delete_applied(self, applied_pos: int) -> None:
        """Remove segments that `applied` covers and no open exchange needs. Raises JournalError."""
        if applied_pos > self._deleted_pos:
            await asyncio.to_thread(self._reader.delete, applied_pos)
            self._deleted_pos = applied_pos

    def close(self) -> None:
        """Release the file."""
        self._reader.close()
