"""Whose key is this: a bounded cache of key records by SHA-256 digest, kept true by the change feed.

A known key costs one dictionary look-up; keys that are in use stand there in memory as they were sent,
nowhere else. Unknown digests are remembered briefly, so that guessing keys does not reach the store. A change
of a key or of its owner drops what is remembered (A04); when the feed may have been missed, everything is
dropped.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from farebox.base import limits
from farebox.base.keys import key_digest
from farebox.base.records import KeyRecord

LookUp = Callable[[str], Awaitable[KeyRecord | None]]


class Accounts:
    """Key records of one worker."""

    __slots__ = ("_by_digest", "_by_key", "_by_user", "_generation", "_look_up", "_pending", "_unknown")

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._by_digest: OrderedDict[str, KeyRecord] = OrderedDict()
        self._by_key: dict[str, KeyRecord] = {}
        self._by_user: dict[str, set[str]] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._pending: dict[str, asyncio.Task[KeyRecord | None]] = {}
        self._generation = 0

    def known(self, key: str) -> KeyRecord | None:
        """The record of a key as sent, if it is remembered; each key is digested once."""
        record = self._by_key.get(key)
        if record is None:
            record = self._by_digest.get(key_digest(key))
            if record is not None:
                if len(self._by_key) >= limits.account_cache_entries_max:
                    self._by_key.clear()
                self._by_key[key] = record
        return record

    def get(self, digest: str) -> KeyRecord | None:
        """The record if it is remembered."""
        return self._by_digest.get(digest)

    async def find(self, digest: str, now_s: float) -> KeyRecord | None:
        """The record, asked of the store if need be; callers that ask at once share one look-up.

        Raises the store's errors.
        """
        until_s = self._unknown.get(digest)
        if until_s is not None and until_s > now_s:
            return None
        task = self._pending.get(digest)
        if task is None:
            task = asyncio.create_task(self._fetch(digest, now_s))
            self._pending[digest] = task
            task.add_done_callback(lambda done: self._ended(digest, done))
        return await asyncio.shield(task)

    def _ended(self, digest: str, task: asyncio.Task[KeyRecord | None]) -> None:
        if self._pending.get(digest) is task:
            del self._pending[digest]

    async def _fetch(self, digest: str, now_s: float) -> KeyRecord | None:
        generation = self._generation
        record = await self._look_up(digest)
        if generation != self._generation:
            return record
        if record is None:
            self._unknown[digest] = now_s + limits.unknown_key_cache_s
            if len(self._unknown) > limits.unknown_key_cache_entries_max:
                self._unknown.popitem(last=False)
            return None
        self._by_digest[digest] = record
        self._by_user.setdefault(record.user, set()).add(digest)
        if len(self._by_digest) > limits.account_cache_entries_max:
            self._by_key.clear()
            self._drop(next(iter(self._by_digest)))
        return record

    def forget_key(self, digest: str) -> None:
        """A key changed."""
        self._doubt()
        self._by_key.clear()
        self._unknown.pop(digest, None)
        self._drop(digest)

    def _drop(self, digest: str) -> None:
        record = self._by_digest.pop(digest, None)
        if record is not None:
            digests = self._by_user.get(record.user, set())
            digests.discard(digest)
            if not digests:
                self._by_user.pop(record.user, None)

    def forget_user(self, user: str) -> None:
        """An owner changed: all his keys are asked again."""
        self._doubt()
        self._by_key.clear()
        for digest in self._by_user.pop(user, set()):
            self._by_digest.pop(digest, None)

    def forget_all(self) -> None:
        """Changes may have been missed."""
        self._doubt()
        self._by_key.clear()
        self._by_digest.clear()
        self._by_user.clear()
        self._unknown.clear()

    def _doubt(self) -> None:
        """What is being asked may be old: it is not remembered, and who comes now asks anew."""
        self._generation += 1
        self._pending.clear()
