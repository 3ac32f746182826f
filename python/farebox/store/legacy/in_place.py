"""The replaced system's database as a place to write back to, where the store lies in it.

For the way back alone, when nothing else runs. Promises: one document at a time, as its guard names it, and
acknowledged when a majority has it on disk.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from farebox.base.errors import StoreDownError
from farebox.store.legacy.database import DatabaseSource


class DatabaseInPlace(DatabaseSource):
    """A database that is read and changed."""

    def change(
        self,
        collection: str,
        guard: Mapping[str, Any],
        fields: Mapping[str, Any],
        without: Sequence[str] = (),
    ) -> bool:
        """Set fields of the document that the guard names, remove others; a float becomes a BSON double.

        False where there is no such document (any more). Raises StoreDownError.
        """
        update: dict[str, Any] = {"$set": dict(fields)} if fields else {}
        if "rev" in guard:
            update["$inc"] = {"rev": 1}
        if without:
            update["$unset"] = dict.fromkeys(without, "")
        durable = self._database.with_options(write_concern=WriteConcern("majority", j=True))
        try:
            return durable[collection].update_one(dict(guard), update).matched_count == 1
        except PyMongoError as error:
            raise StoreDownError(f"{self.name} {collection}: {error}") from error
