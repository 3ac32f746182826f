"""The configuration that is in force: a copy of the files that were found right, which all children read.

A file that is edited to nonsense after the start must not keep a worker that died from being started again.
So children read the copy; a reload first checks the files, then makes a new copy and tells the workers.
"""

import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from farebox.base.errors import UsageError
from farebox.config.certificates import check_certificates
from farebox.config.load import load
from farebox.config.secrets import credentials
from farebox.config.settings import Service, Settings
from farebox.run.paths import config_copies

_RELOADABLE = frozenset(("services", "warnings"))
"""What of the settings a reload may change; services only where no socket or name of theirs changes."""
_RESTART_KEYS = tuple(field.name for field in fields(Settings) if field.name not in _RELOADABLE)
_RESTART_SERVICE_KEYS = ("name", "host", "port", "worker_sockets")


class Snapshot:
    """The copies of one deployment's files; `files` are those in force."""

    def __init__(self, settings: Settings, paths: Sequence[Path]) -> None:
        """Copy what `settings` were loaded from. Raises OSError."""
        self._folder = config_copies(settings)
        self._paths = list(paths)
        self._generation = 0
        shutil.rmtree(self._folder, ignore_errors=True)
        self.files = self._previous = self._copied()

    def next(self, current: Settings) -> Settings:
        """Copy and check the files anew, put the copy in force and return its settings.

        Raises ConfigError for what is wrong in them, UsageError for a change that needs a restart; the old
        copy stays in force then.
        """
        load(self._paths)  # faults are told with the names the operator knows
        files = self._copied()
        try:
            settings = load(files)
            credentials(settings)
            check_certificates(settings)
            refuse_restart_changes(current, settings)
        except BaseException:
            self._remove(files)
            raise
        self._previous, self.files = self.files, files
        return settings

    def keep(self) -> None:
        """The new copy serves: the one before it may go."""
        self._remove(self._previous)

    def go_back(self) -> None:
        """The new copy does not serve: the one before it is in force again."""
        self._remove(self.files)
        self.files = self._previous

    def _copied(self) -> list[Path]:
        self._generation += 1
        copies = []
        for number, path in enumerate(self._paths):
            folder = self._folder / str(self._generation) / str(number)
            folder.mkdir(parents=True)
            copies.append(Path(shutil.copyfile(path, folder / path.name)))
        return copies

    def _remove(self, files: Sequence[Path]) -> None:
        shutil.rmtree(files[0].parent.parent, ignore_errors=True)


def refuse_restart_changes(old: Settings, new: Settings) -> None:
    """Raise UsageError naming every changed key that only a restart can put in force."""
    changed = [key for key in _RESTART_KEYS if getattr(old, key) != getattr(new, key)]
    if len(old.services) != len(new.services):
        changed.append("the number of files")
    for before, after in zip(old.services, new.services, strict=False):
        changed += _changed_of_service(before, after)
    if changed:
        raise UsageError(f"needs a restart: {', '.join(changed)}; nothing was changed")


def _changed_of_service(old: Service, new: Service) -> list[str]:
    return [f"{key} of {old.name}" for key in _RESTART_SERVICE_KEYS if getattr(old, key) != getattr(new, key)]
