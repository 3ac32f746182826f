"""Starts a child of the supervisor: `python -m farebox.run.start MODULE ARGUMENT...`.

A start is mostly imports, so what makes them dear without any use is kept away while they run.
"""

import contextlib
import gc
import ssl
import sys
from collections.abc import Iterator
from importlib import import_module


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Import within this what a process needs.

    The garbage collector rests, for what is imported stays; it never looks at that later either. TLS contexts
    trust nobody: aiohttp makes two for its client, which nobody here uses, and to read every authority of the
    system for them takes longer than all the rest of aiohttp.
    """
    ssl.SSLContext.set_default_verify_paths = _trust_nobody  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        del ssl.SSLContext.set_default_verify_paths  # that of its base counts again


def _trust_nobody(_: ssl.SSLContext) -> None:
    """Read no authorities."""


def main() -> int:
    """The exit status of the process."""
    name, *arguments = sys.argv[1:]
    with imports():
        module = import_module(name)
    status: int = module.begin(arguments)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
