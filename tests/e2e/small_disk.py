"""A disk that a test can fill: a file system of its own, or, where none may be mounted, calls that say full.

The second kind reaches the processes of a deployment through Python's `sitecustomize`: the journal's
`os.pwrite` and `os.statvfs` then answer as a full disk does, while a file says so.
"""

import os
import shutil
import subprocess
from pathlib import Path

from farebox.base import limits

_BYTES = limits.journal_disk_free_bytes_min + 24 * 2**20
_BALLAST_PIECE = 2**20
_PRETENCE = """
import os, pathlib
_full, _pwrite, _statvfs = pathlib.Path({full!r}), os.pwrite, os.statvfs
def pwrite(descriptor, data, offset):
    if _full.exists() and not int(_full.read_text()):
        raise OSError(28, "No space left on device")
    return _pwrite(descriptor, data, offset)
class _Space:
    f_frsize = 1
def statvfs(path):
    if not _full.exists():
        return _statvfs(path)
    space = _Space()
    space.f_bavail = int(_full.read_text())
    return space
os.pwrite, os.statvfs = pwrite, statvfs
"""


class SmallDisk:
    """A folder whose disk can be filled; call `remove` at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self.folder.mkdir()
        self._aside = folder / "aside"
        self._aside.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={_BYTES}", "tmpfs", str(self.folder)]
        mount = shutil.which("mount")
        self.mounted = bool(mount) and not subprocess.run([str(mount), *options], check=False).returncode

    def environment(self) -> dict[str, str]:
        """What processes that use the disk need in their environment."""
        if self.mounted:
            return {}
        (self._aside / "sitecustomize.py").write_text(_PRETENCE.format(full=str(self._aside / "full")))
        return {"PYTHONPATH": f"{self._aside}:{os.environ.get('PYTHONPATH', '')}"}

    def fill(self, left_bytes: int) -> None:
        """Leave so much free space."""
        if not self.mounted:
            (self._aside / "new").write_text(str(left_bytes))
            (self._aside / "new").replace(self._aside / "full")
            return
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while (free_bytes := shutil.disk_usage(self.folder).free) > left_bytes:
                    ballast.write(bytes(min(free_bytes - left_bytes, _BALLAST_PIECE)))
            except OSError:
                return

    def free(self) -> None:
        """Make room again."""
        (self.folder / "ballast" if self.mounted else self._aside / "full").unlink()

    def remove(self) -> None:
        """Give the file system back."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)
