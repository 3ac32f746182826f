"""Documents in the replaced system's shape, as a dump that `mongorestore` reads: a file per collection.

Promises: a dump is written beside its place and moved there when it is whole.
"""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import bson

from farebox.base.errors import UsageError


class DumpWriter:
    """A dump folder that does not exist yet; it is there when the `with` block has ended well."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError where the folder exists."""
        if folder.exists():
            raise UsageError(f"{folder} exists; name a new folder")
        self._folder = folder
        self._unfinished = folder.with_name(f"{folder.name}.unfinished")
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._unfinished.mkdir(parents=True)
        return self

    def write(self, collection: str, document: dict[str, Any]) -> None:
        """Append a document; a float becomes a BSON double, an integer a 32 or 64 bit one."""
        file = self._files.get(collection)
        if file is None:
            file = self._files[collection] = (self._unfinished / f"{collection}.bson").open("wb")
        file.write(bson.encode(document))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if kind is None:
            self._unfinished.rename(self._folder)
