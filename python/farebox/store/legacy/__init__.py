"""The replaced system's data as it lies: a running MongoDB, a mongodump, or a JSON export.

Promises: reads only, one document at a time, in one form whatever the source (`plain.py`); a document that
cannot be read is named by file and place, never guessed.
"""

from pathlib import Path

from farebox.base.errors import UsageError
from farebox.store.legacy.files import FileSource
from farebox.store.legacy.source import LegacySource


def open_source(place: str) -> LegacySource:
    """The source a place names: a folder, or `mongodb://HOST/DATABASE`. Raises UsageError."""
    if place.startswith(("mongodb://", "mongodb+srv://")):
        from farebox.store.legacy.database import DatabaseSource  # noqa: PLC0415 - the driver, only where it is used

        return DatabaseSource(place)
    folder = Path(place)
    if not folder.is_dir():
        raise UsageError(
            f"{place} is no folder; name a mongodump or export folder, or mongodb://HOST/DATABASE"
        )
    return FileSource(folder)
