"""The production store: MongoDB (a replica set of one node or more, or a sharded cluster), `MongoStore`."""

from farebox.store.mongo.store import MongoStore

__all__ = ["MongoStore"]
