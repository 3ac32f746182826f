"""Compiles the path of an exchange ahead of time: `MODULES` become machine code, by mypyc.

    python compile_hot_path.py [--needs-headers]

They are ordinary typed Python and run as such where they are not compiled: on another interpreter, or without
its C headers. Compiled, an exchange costs the worker about a third fewer instructions (docs/DECISIONS.md).

The compiled modules lie beside their sources, which Python then no longer reads. So whoever changes one of
them builds again (`make build`, which compiles only when a source is newer), and the tests refuse to run on a
compiled module that is older than its source. `--needs-headers` compiles nothing: its status is 1 where this
interpreter's C headers are missing.
"""

import os
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "python"
BUILD = ROOT / "build" / "hot_path"
GROUP = "farebox.hot_path"
MODULES = (
    "farebox/base/clock.py",
    "farebox/base/ids.py",
    "farebox/journal/appender.py",
    "farebox/journal/journal.py",
    "farebox/journal/payloads.py",
    "farebox/journal/tail.py",
    "farebox/ledger/user_lease.py",
    "farebox/proxy/access.py",
    "farebox/proxy/accounts.py",
    "farebox/proxy/admission.py",
    "farebox/proxy/attempts.py",
    "farebox/proxy/books.py",
    "farebox/proxy/exchange.py",
    "farebox/proxy/leases.py",
    "farebox/proxy/offer.py",
    "farebox/proxy/plain.py",
    "farebox/proxy/rates.py",
    "farebox/proxy/refusals.py",
    "farebox/proxy/relayed.py",
    "farebox/proxy/scanning.py",
    "farebox/proxy/sending.py",
    "farebox/proxy/service.py",
    "farebox/proxy/settle.py",
    "farebox/proxy/settlement_log.py",
    "farebox/proxy/streams.py",
    "farebox/proxy/user_money.py",
    "farebox/proxy/verdict.py",
    "farebox/proxy/worker.py",
    "farebox/wire/endpoint.py",
    "farebox/wire/incoming.py",
    "farebox/wire/parsed_request.py",
    "farebox/wire/plain_request.py",
    "farebox/wire/relay.py",
    "farebox/wire/routes.py",
    "farebox/wire/upstream.py",
    "farebox/wire/watch.py",
)
"""What every exchange runs through, by what a profile shows. Together: calls among them are direct."""


def compiled(module: str) -> Path:
    """Where a module's machine code lies for this interpreter."""
    return (SOURCES / module).with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))


def is_compiled() -> bool:
    """Whether any of them is compiled."""
    return any(compiled(module).exists() for module in MODULES)


def is_fresh() -> bool:
    """Whether all of them are compiled, and since their sources and this list changed."""
    changed_s = max((SOURCES / module).stat().st_mtime for module in MODULES)
    changed_s = max(changed_s, Path(__file__).stat().st_mtime)
    return all(
        compiled(module).exists() and compiled(module).stat().st_mtime >= changed_s for module in MODULES
    )


def remove() -> None:
    """Take away every compiled module: the sources run again."""
    for path in SOURCES.rglob("*" + sysconfig.get_config_var("EXT_SUFFIX")):
        path.unlink()


def has_headers() -> bool:
    """Whether C programs can be compiled against this interpreter."""
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").exists()


def compile_modules() -> None:
    """Compile them all, in place."""
    from mypyc.build import mypycify  # noqa: PLC0415 - heavy, and absent where nothing is compiled
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    BUILD.mkdir(parents=True, exist_ok=True)
    os.chdir(SOURCES)  # modules are named by their paths below it
    options = ["--strict", "--config-file=", f"--cache-dir={BUILD / 'mypy'}"]
    extensions = mypycify(
        [*options, *MODULES],
        group_name=GROUP,
        target_dir=str(BUILD),
        opt_level="2",
        debug_level="0",
    )
    command = build_ext(Distribution({"name": GROUP, "packages": [], "ext_modules": extensions}))
    command.inplace = True
    command.build_temp = str(BUILD / "objects")
    command.build_lib = str(BUILD / "modules")
    command.ensure_finalized()
    command.run()
    for module in MODULES:
        compiled(module).touch()  # what was found unchanged keeps its old time, and would look stale


def main() -> int:
    """The command line."""
    if "--needs-headers" in sys.argv[1:]:
        return 0 if has_headers() else 1
    if is_fresh():
        sys.stdout.write("== the path of an exchange is compiled\n")
        return 0
    remove()
    if not has_headers():
        sys.stdout.write(
            "== the path of an exchange stays interpreted, at two thirds of its speed: the C headers of "
            f"{sys.executable} are missing (Debian: python3-dev)\n"
        )
        return 0
    sys.stdout.write("== compiling the path of an exchange (about a minute)\n")
    sys.stdout.flush()
    compile_modules()
    return 0


if __name__ == "__main__":
    sys.exit(main())
