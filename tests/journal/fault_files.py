"""A disk that fails on demand, under the journal's real file operations: short writes, EIO, ENOSPC, failed
syncs, torn sectors, a lost page cache, and any call by its number.

Writes go to real files (what the page cache shows) and are remembered as dirty until a sync succeeds. A
failed sync drops them for good although the files still show them, as kernels do. `crash` leaves of each file
what was synced, and of dirty data any 512-byte sectors, in any order; names that were never synced with their
directory may vanish.
"""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

from farebox.journal.files import Files

SECTOR = 512


class FaultFiles(Files):
    """`on_write` and `on_sync` decide each call's fate; by default all goes well.

    `fail_call` makes one call fail, whichever it is: the loop over all numbers is a test of every error path.
    """

    def __init__(self) -> None:
        self.paths: dict[int, Path] = {}
        self.durable: dict[Path, bytes] = {}
        self.dirty: dict[Path, list[tuple[int, bytes | None]]] = {}
        self.durable_names: set[Path] = set()
        self.on_write: Callable[[int], int | OSError] = lambda length: length
        self.on_sync: Callable[[Path], OSError | None] = lambda _path: None
        self.on_open: Callable[[Path], OSError | None] = lambda _path: None
        self.on_read: Callable[[Path], OSError | None] = lambda _path: None
        self.free = 1 << 40
        self.writes = 0
        self.syncs: list[Path] = []
        self.calls: list[str] = []
        self.failing: tuple[int, OSError | None] | None = None

    def fail_call(self, number: int, error: OSError | None) -> None:
        """Let the call after `number` more fail with `error`; None: a write is short, others do well."""
        self.failing = (len(self.calls) + number, error)

    def _is_short(self, operation: str) -> bool:
        """Count a call, and fail it if it is the one."""
        number = len(self.calls)
        self.calls.append(operation)
        if self.failing is None or self.failing[0] != number:
            return False
        error = self.failing[1]
        if error is not None:
            raise OSError(error.errno, f"{operation}: {os.strerror(error.errno or 0)}")
        return True

    def open(self, path: Path, *, create: bool = False, write: bool = True) -> int:
        self._is_short("open")
        error = self.on_open(path)
        if error is not None:
            raise error
        descriptor = super().open(path, create=create, write=write)
        self.paths[descriptor] = path
        return descriptor

    def close(self, descriptor: int) -> None:
        self.paths.pop(descriptor, None)
        super().close(descriptor)

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        self.writes += 1
        fate: int | OSError = len(data) // 2 if self._is_short("pwrite") else self.on_write(len(data))
        if isinstance(fate, OSError):
            raise fate
        kept = bytes(data[:fate])
        if kept:
            super().pwrite(descriptor, kept, offset)
            self.dirty.setdefault(self.paths[descriptor], []).append((offset, kept))
        return fate

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        self._is_short("pread")
        return super().pread(descriptor, length, offset)

    def unlink(self, path: Path) -> None:
        self._is_short("unlink")
        super().unlink(path)

    def truncate(self, descriptor: int, length: int) -> None:
        self._is_short("truncate")
        super().truncate(descriptor, length)
        self.dirty.setdefault(self.paths[descriptor], []).append((length, None))

    def fdatasync(self, descriptor: int) -> None:
        path = self.paths[descriptor]
        self.syncs.append(path)
        try:
            self._is_short("fdatasync")
            error = self.on_sync(path)
        except OSError as failure:
            error = failure
        changes = self.dirty.pop(path, [])
        if error is not None:
            raise error
        image = bytearray(self.durable.get(path, b""))
        for offset, data in changes:
            _apply(image, offset, data)
        self.durable[path] = bytes(image)

    def sync_directory(self, path: Path) -> None:
        self._is_short("sync_directory")
        self.durable_names = {one for one in self.durable_names if one.parent != path} | set(path.iterdir())

    def read(self, path: Path) -> bytes:
        self._is_short("read")
        error = self.on_read(path)
        if error is not None:
            raise error
        return super().read(path)

    def free_bytes(self, directory: Path) -> int:
        return self.free

    def crash(self, directory: Path, rng: random.Random) -> None:
        """The power fails: put the files into a state a disk may be found in."""
        for descriptor in list(self.paths):
            os.close(descriptor)
        self.paths.clear()
        for path in sorted(directory.glob("*.segment")):
            if path not in self.durable_names and rng.random() < 0.5:
                path.unlink()
                continue
            image = bytearray(self.durable.get(path, b""))
            for offset, data in self.dirty.get(path, []):
                _apply_sectors(image, offset, data, rng)
            path.write_bytes(bytes(image))
            self.durable[path] = bytes(image)
        self.dirty.clear()


def _apply(image: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del image[offset:]
        return
    image.extend(bytes(max(0, offset - len(image))))
    image[offset : offset + len(data)] = data


def _apply_sectors(image: bytearray, offset: int, data: bytes | None, rng: random.Random) -> None:
    if data is None:
        if rng.random() < 0.5:
            del image[offset:]
        return
    end = offset + len(data)
    start = offset
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if rng.random() < 0.6:
            _apply(image, start, data[start - offset : stop - offset])
        start = stop


def disk_error(code: int = errno.EIO) -> OSError:
    return OSError(code, os.strerror(code))
