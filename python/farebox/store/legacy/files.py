"""A folder with one file per collection: `NAME.bson[.gz]` as mongodump writes, `NAME.json[.gz]` or
`NAME.ndjson` as mongoexport does (one document a line, or one array).

A damaged JSON line is reported and the reading goes on; in BSON nothing after a damaged length can be found,
so there the reading ends with an error that names file and byte.
"""

import contextlib
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import bson
import orjson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import InvalidBSON

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.store.legacy.plain import from_bson, from_json
from farebox.store.legacy.source import Document, Unreadable

_ENDINGS: Final = (".bson", ".bson.gz", ".ndjson", ".json", ".ndjson.gz", ".json.gz")
_OPTIONS: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
_SMALLEST_BSON: Final = 5

Documents = Iterator[tuple[Document | Unreadable, int]]
Stream = IO[bytes] | gzip.GzipFile


class FileSource:
    """A dump folder, or a folder with one dump folder (mongodump makes one per database)."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._files = _files(folder) or _files(_only_subfolder(folder))
        if not self._files:
            raise UsageError(f"{folder} holds no collection: files are named usersNew.bson or usersNew.json")

    def size(self, collection: str) -> int:
        path = self._files.get(collection)
        return 0 if path is None else path.stat().st_size

    def documents(self, collection: str) -> Documents:
        path = self._files.get(collection)
        if path is None:
            return
        with path.open("rb") as raw, _unpacked(raw, path) as stream:
            reader = _bson if ".bson" in path.name else _json
            try:
                for found in reader(stream, path):
                    yield found, raw.tell()
            except (EOFError, gzip.BadGzipFile) as error:
                raise UsageError(f"{path}: damaged: {error}; take the dump again") from None

    def close(self) -> None:
        """Nothing stays open between calls."""


def _files(folder: Path) -> dict[str, Path]:
    """Collection -> its file; where there are two, the first in `_ENDINGS`."""
    found: dict[str, Path] = {}
    for ending in reversed(_ENDINGS):
        for path in folder.glob(f"*{ending}"):
            name = path.name.removesuffix(ending)
            if path.is_file() and not name.endswith(".metadata"):
                found[name] = path
    return found


def _only_subfolder(folder: Path) -> Path:
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(inside) > 1:
        names = ", ".join(path.name for path in inside)
        raise UsageError(f"{folder} holds several databases ({names}); name the folder of one")
    return inside[0] if inside else folder


@contextlib.contextmanager
def _unpacked(raw: IO[bytes], path: Path) -> Iterator[Stream]:
    if path.suffix != ".gz":
        yield raw
        return
    with gzip.open(raw) as unpacked:
        yield unpacked


def _bson(stream: Stream, path: Path) -> Iterator[Document | Unreadable]:
    at = 0
    while head := stream.read(4):
        length = int.from_bytes(head, "little", signed=True)
        if len(head) < 4 or not _SMALLEST_BSON <= length <= limits.legacy_document_bytes_max:
            raise UsageError(f"{path}: damaged at byte {at}; take the dump again")
        body = stream.read(length - 4)
        if len(body) < length - 4:
            raise UsageError(f"{path}: ends in the middle of a document at byte {at}; take the dump again")
        try:
            yield from_bson(bson.decode(head + body, _OPTIONS))
        except (InvalidBSON, ValueError) as error:
            yield Unreadable(f"{path.name} byte {at}", str(error))
        at += length


def _json(stream: Stream, path: Path) -> Iterator[Document | Unreadable]:
    number = 0
    while line := stream.readline(limits.legacy_document_bytes_max):
        number += 1
        text = line.strip()
        if text.startswith(b"[") and number == 1:
            yield from _json_array(text, stream, path)
            return
        if text:
            yield _json_document(text, f"{path.name} line {number}")


def _json_array(first: bytes, stream: Stream, path: Path) -> Iterator[Document | Unreadable]:
    """A file that is one array: it is read whole, so it has a bound."""
    text = first + stream.read(limits.legacy_array_bytes_max + 1)
    if len(text) > limits.legacy_array_bytes_max:
        raise UsageError(f"{path}: too large for one array; export it with one document a line")
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: no JSON: {error}") from None
    for number, value in enumerate(values, 1):
        yield _checked(value, f"{path.name} entry {number}")


def _json_document(text: bytes, place: str) -> Document | Unreadable:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(text)  # NaN and Infinity, which some exporters write bare
        except ValueError as error:
            return Unreadable(place, str(error))
    return _checked(value, place)


def _checked(value: Any, place: str) -> Document | Unreadable:
    try:
        document = from_json(value)
    except (ArithmeticError, TypeError, ValueError) as error:
        return Unreadable(place, str(error))
    return document if isinstance(document, dict) else Unreadable(place, "no document")
