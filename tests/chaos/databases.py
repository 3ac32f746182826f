"""The bank's database: an SQLite file, or a MongoDB-wire server that is killed, stopped and cut off too."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from faults.tcp_proxy import TcpProxy
from mongodb import MongoDBServer

Kinds = Mapping[str, Callable[[], Awaitable[None]]]

OFF_S = (0.1, 2.5)


class Database(Protocol):
    """Where balances are kept; a context manager. `url` is for the bank itself, `urls` for each host."""

    url: str
    urls: list[str]

    def trouble(self, rng: random.Random) -> Kinds:
        """What befalls the database, by name."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SQLiteFile:
    """One file for all hosts; it has no process that could die."""

    def __init__(self, folder: Path, hosts: int) -> None:
        self.url = f"sqlite:///{folder / 'farebox.sqlite'}"
        self.urls = [self.url] * hosts

    def trouble(self, rng: random.Random) -> Kinds:
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class MongoDB:
    """A server of its own, reached by each host over a network of its own.

    It syncs at each commit: SecantusDB otherwise loses transactions it has acknowledged when it is killed,
    whatever write concern they ask for.
    """

    def __init__(self, folder: Path, hosts: int) -> None:
        place = folder / "mongodb"
        place.mkdir()
        self._server = MongoDBServer(place, "--sync-on-commit")
        self._networks = [TcpProxy(self._server.port) for _ in range(hosts)]
        self.url = f"{self._server.url}/bank"
        # Direct, or the driver would go to the address that the server names, round the network that fails.
        self.urls = [
            f"mongodb://127.0.0.1:{network.port}/bank?directConnection=true" for network in self._networks
        ]

    def trouble(self, rng: random.Random) -> Kinds:
        async def pause() -> None:
            await asyncio.sleep(rng.uniform(*OFF_S))

        async def killed() -> None:
            await asyncio.to_thread(self._server.kill)
            await pause()
            await asyncio.to_thread(self._server.start)

        async def stopped() -> None:
            process = self._server.process
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            try:
                await pause()
            finally:
                process.send_signal(signal.SIGCONT)

        def failing(trouble: str) -> Callable[[], Awaitable[None]]:
            async def fail() -> None:
                network = rng.choice(self._networks)
                getattr(network, trouble)()
                try:
                    await pause()
                finally:
                    network.heal()

            return fail

        return {
            "database killed": killed,
            "database stopped": stopped,
            "database cut off": failing("cut"),
            "database reset": failing("reset"),
            "database silent": failing("blackhole"),
        }

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for network in self._networks:
            network.close()
        self._server.kill()


DATABASES: Mapping[str, Callable[[Path, int], Database]] = {"sqlite": SQLiteFile, "mongodb": MongoDB}
