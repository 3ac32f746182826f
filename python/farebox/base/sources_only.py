"""Runs the sources where compiled modules lie beside them (compile_hot_path.py): to debug, to see coverage.

`FAREBOX_INTERPRETED=1` asks for it, and so does a folder of failpoints: those are woven around functions,
which compiled modules call without looking them up. The meter is not concerned, as it has no other form.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType

VARIABLES = ("FAREBOX_INTERPRETED", "FAREBOX_FAILPOINTS")


class _Sources(MetaPathFinder):
    """Finds modules of this package by their sources alone."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 - the protocol's
    ) -> ModuleSpec | None:
        if not fullname.startswith("farebox."):
            return None
        for folder in path or ():
            found = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)
            if found is not None:
                return found
        return None


def use_sources(environment: Mapping[str, str]) -> None:
    """Do so from here on if the environment asks for it."""
    if any(environment.get(name) for name in VARIABLES):
        sys.meta_path.insert(0, _Sources())
