"""The replaced system's MongoDB, read in place: nothing is written to it, and it should not be written to by
others meanwhile.
"""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from farebox.base import limits
from farebox.base.errors import StoreDownError, UsageError
from farebox.store.legacy.plain import from_bson
from farebox.store.legacy.source import Document, Unreadable

_OPTIONS: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
_BATCH: Final = 1000


class DatabaseSource:
    """One database of a MongoDB server."""

    def __init__(self, url: str) -> None:
        """Raises UsageError when the address names no database or is none."""
        try:
            database = parse_uri(url)["database"]
        except (PyMongoError, ValueError) as error:
            raise UsageError(f"no MongoDB address: {error}") from None
        if not database:
            raise UsageError("name the database of the replaced system: mongodb://HOST/DATABASE")
        parts = urlsplit(url)
        self.name = f"{parts.hostname}/{database}"
        self._client: MongoClient[dict[str, Any]] = MongoClient(
            url, serverSelectionTimeoutMS=int(limits.store_timeout_s * 1000)
        )
        self._database = self._client.get_database(database, codec_options=_OPTIONS)

    def size(self, collection: str) -> int:
        try:
            return self._database[collection].estimated_document_count()
        except PyMongoError as error:
            raise StoreDownError(f"{self.name}: {error}") from error

    def documents(self, collection: str) -> Iterator[tuple[Document | Unreadable, int]]:
        try:
            for number, document in enumerate(self._database[collection].find(batch_size=_BATCH), 1):
                yield from_bson(document), number
        except PyMongoError as error:
            raise StoreDownError(f"{self.name} {collection}: {error}") from error

    def close(self) -> None:
        self._client.close()
