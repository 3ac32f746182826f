"""A pytest plugin: Farebox compiled as `python -O` compiles it, under tests whose own assertions still bite.

    PYTHONPATH=python:tests python -m pytest -p optimised tests/store

`make test-optimised` runs it. `python -O -m pytest` would strip the tests' assertions too, and with them
whatever they check; so only modules of Farebox lose theirs. Processes that a test starts are not touched: the
demonstration runs under `python -O` as a whole.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType

import pytest

PACKAGE = "farebox"


class Optimised(importlib.machinery.SourceFileLoader):
    """Compiles a module without assertions, past the cache, whose files have them."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return compile(self.get_data(path), path, "exec", dont_inherit=True, optimize=1)


class Finder(importlib.abc.MetaPathFinder):
    """Finds Farebox's modules as usual, and gives them the loader above."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Optimised(fullname, spec.loader.path)
        return spec


def early() -> list[str]:
    """Modules of Farebox that were loaded with their assertions."""
    return sorted(
        name
        for name, module in sys.modules.items()
        if name.partition(".")[0] == PACKAGE
        and isinstance(getattr(module, "__loader__", None), importlib.machinery.SourceFileLoader)
        and not isinstance(module.__loader__, Optimised)
    )


sys.meta_path.insert(0, Finder())


def pytest_report_header() -> str:
    return "farebox is compiled without assertions, as by python -O"


def pytest_collection_finish(session: pytest.Session) -> None:
    if early():
        raise pytest.UsageError(f"loaded before this plugin: {', '.join(early())}")
