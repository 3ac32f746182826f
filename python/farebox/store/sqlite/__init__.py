"""The embedded store: one SQLite file, WAL, every commit synced (`SQLiteStore`)."""

from farebox.store.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
