"""File operations of the journal, and nothing else: one small class, so that tests can put a failing disk
in its place.

Errors are plain OSError; what they mean is decided by the callers.
"""

import fcntl
import os
from pathlib import Path


class Files:
    """The operating system's files. All descriptors are close-on-exec (Python's default)."""

    def open(self, path: Path, *, create: bool = False, write: bool = True) -> int:
        """A descriptor; `create` refuses a file that is already there."""
        flags = os.O_RDWR if write else os.O_RDONLY
        return os.open(path, flags | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Bytes written, possibly fewer than given."""
        return os.pwrite(descriptor, data, offset)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        return os.pread(descriptor, length, offset)

    def size(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    def file_size(self, path: Path) -> int:
        """Size by name; 0 for a file that is gone."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def modified_ns(self, path: Path) -> int:
        """When a file was last written; 0 for a file that is gone."""
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def truncate(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)

    def fdatasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make creations, renames and removals in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: Path) -> bytes:
        """A whole file."""
        return path.read_bytes()

    def names(self, directory: Path) -> list[str]:
        """Names in a directory, sorted."""
        return sorted(os.listdir(directory))  # noqa: PTH208 - names only, no stat per entry

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def free_bytes(self, directory: Path) -> int:
        """Free space an ordinary process may use."""
        status = os.statvfs(directory)
        return status.f_bavail * status.f_frsize

    def lock(self, path: Path) -> int | None:
        """A descriptor that holds the exclusive lock of a file, or None when another process has it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor
