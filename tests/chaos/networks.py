"""Where the hosts of a test are: each in a network namespace of its own, or behind a proxy that can fail.

A namespace has two links to this one: its clients and the upstream come over the first, the database over the
second, which can be taken down like a cable that is pulled. Where namespaces are not permitted (they need
root) every host is on loopback, and the proxy before its database lets nothing through instead.
"""

import contextlib
import itertools
import os
import subprocess
from types import TracebackType
from typing import Protocol, Self

from faults.tcp_proxy import TcpProxy

_NUMBERS = itertools.count()
_OCTET = 20 + os.getpid() % 200


class Network(Protocol):
    """One host's network; a context manager. `upstream` and `database` are what it reaches them by."""

    address: str
    inside: tuple[str, ...]
    upstream: TcpProxy
    database: TcpProxy

    def cut_off(self) -> None:
        """The database cannot be reached; nothing is told of it."""

    def heal(self) -> None:
        """It can be reached again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Loopback:
    """On this machine's loopback."""

    address = "127.0.0.1"
    inside: tuple[str, ...] = ()

    def __init__(self, upstream_port: int, database_port: int) -> None:
        self.upstream, self.database = TcpProxy(upstream_port), TcpProxy(database_port)

    def cut_off(self) -> None:
        self.database.blackhole()

    def heal(self) -> None:
        self.database.heal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.upstream.close()
        self.database.close()


class Namespace:
    """In a network namespace of its own."""

    def __init__(self, upstream_port: int, database_port: int) -> None:
        self._name = f"farebox-{os.getpid()}-{next(_NUMBERS)}"
        self._links: list[str] = []
        _ip("netns", "add", self._name)
        try:
            _ip("-n", self._name, "link", "set", "lo", "up")
            here, self.address = self._link()
            self.upstream = TcpProxy(upstream_port, host=here)
            here, _ = self._link()
            self.database = TcpProxy(database_port, host=here)
        except BaseException:
            _ip("netns", "delete", self._name)
            raise
        self.inside = ("ip", "netns", "exec", self._name)

    def _link(self) -> tuple[str, str]:
        """A pair of interfaces; their addresses here and there."""
        number = next(_NUMBERS)
        here, there = (f"fb{os.getpid() % 10**6}-{number}{end}" for end in "ab")
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self._name)
        self._links.append(here)
        addresses = tuple(f"10.{_OCTET}.{number % 250}.{end}" for end in (1, 2))
        _ip("address", "add", f"{addresses[0]}/30", "dev", here)
        _ip("-n", self._name, "address", "add", f"{addresses[1]}/30", "dev", there)
        _ip("link", "set", here, "up")
        _ip("-n", self._name, "link", "set", there, "up")
        return addresses[0], addresses[1]

    def cut_off(self) -> None:
        _ip("link", "set", self._links[1], "down")

    def heal(self) -> None:
        _ip("link", "set", self._links[1], "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.upstream.close()
        self.database.close()
        _ip("netns", "delete", self._name)


def networks() -> type[Namespace] | type[Loopback]:
    """The best that is permitted here."""
    probe = f"farebox-probe-{os.getpid()}"
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        _ip("netns", "add", probe)
        try:
            _ip("-n", probe, "link", "add", "probe0", "type", "veth", "peer", "name", "probe1")
        finally:
            _ip("netns", "delete", probe)
        return Namespace
    return Loopback


def _ip(*arguments: str) -> None:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    subprocess.run(["ip", *arguments], check=True, capture_output=True, env=environment)
