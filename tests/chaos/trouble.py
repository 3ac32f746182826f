"""What befalls the hosts of the bank test: kills, stops, restarts and a failing network, drawn from a seed.

The order of what happens follows from the seed alone; the moments depend on the machine, as in life.
"""

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chaos.hosts import CONSOLE, WORKER, WRITER, Host, Machines, send

PAUSE_S = (0.2, 2.0)
SERVES_AGAIN_S = 60.0
"""How long the next trouble waits for a host that serves: on a slow machine a start takes long, and a system
that is never up shows nothing.
"""
STOPPED_S = (0.1, 3.0)
OFF_S = (0.1, 2.5)
KEEP_S = 0.3


@dataclass(slots=True)
class Trouble:
    """Makes trouble until told to stop; `made` counts it by kind. `more`: kinds of the store's own."""

    machines: Machines
    rng: random.Random
    made: Counter[str] = field(default_factory=Counter)
    more: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)

    async def run(self, duration_s: float, is_over: Callable[[], bool]) -> None:
        """Trouble after trouble, then good weather: everything runs and every network is whole."""
        keeping = asyncio.create_task(self._keep_hosts())
        try:
            ends_s = asyncio.get_running_loop().time() + duration_s
            while asyncio.get_running_loop().time() < ends_s and not is_over():
                await self._until_one_serves()
                await asyncio.sleep(self.rng.uniform(*PAUSE_S))
                await self._one()
            await self.good_weather()
        finally:
            keeping.cancel()

    async def _keep_hosts(self) -> None:
        while True:
            for host in self.machines.hosts:
                await asyncio.to_thread(host.keep)
            await asyncio.sleep(KEEP_S)

    async def _until_one_serves(self) -> None:
        """Wait until some host takes requests, or long enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVES_AGAIN_S):
                while not any([await asyncio.to_thread(host.is_ready) for host in self.machines.hosts]):
                    await asyncio.sleep(KEEP_S)

    async def _one(self) -> None:
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "worker killed": lambda: self._signal(WORKER, signal.SIGKILL),
            "workers killed": self._kill_workers,
            "writer killed": lambda: self._signal(WRITER, signal.SIGKILL),
            "console killed": lambda: self._signal(CONSOLE, signal.SIGKILL),
            "worker stopped": lambda: self._stop_for_a_while(WORKER),
            "writer stopped": lambda: self._stop_for_a_while(WRITER),
            "host killed": self._kill_host,
            "supervisor killed": self._kill_supervisor,
            "host restarted": self._restart_host,
            "network cut": lambda: self._network("cut"),
            "network reset": lambda: self._network("reset"),
            "network silent": lambda: self._network("blackhole"),
            **self.more,
        }
        weights = [1 if "host" in kind or "supervisor" in kind or "console" in kind else 3 for kind in kinds]
        kind = self.rng.choices(list(kinds), weights)[0]
        await kinds[kind]()
        self.made[kind] += 1

    def _host(self) -> Host:
        return self.rng.choice(self.machines.hosts)

    async def _signal(self, module: str, number: signal.Signals) -> None:
        victims = await asyncio.to_thread(self._host().processes, module)
        if victims:
            send(self.rng.choice(victims), number)

    async def _kill_workers(self) -> None:
        for process in await asyncio.to_thread(self._host().processes, WORKER):
            send(process, signal.SIGKILL)

    async def _stop_for_a_while(self, module: str) -> None:
        victims = await asyncio.to_thread(self._host().processes, module)
        for process in victims[:1]:
            send(process, signal.SIGSTOP)
            try:
                await asyncio.sleep(self.rng.uniform(*STOPPED_S))
            finally:
                send(process, signal.SIGCONT)

    async def _kill_host(self) -> None:
        host = self._host()
        await asyncio.to_thread(host.kill_all)
        await asyncio.sleep(self.rng.uniform(*OFF_S))
        await asyncio.to_thread(host.start)

    async def _kill_supervisor(self) -> None:
        host = self._host()
        await asyncio.to_thread(host.kill_supervisor)
        await asyncio.sleep(self.rng.uniform(*OFF_S))
        await asyncio.to_thread(host.start)

    async def _restart_host(self) -> None:
        host = self._host()
        await asyncio.to_thread(host.stop)
        await asyncio.to_thread(host.start)

    async def _network(self, trouble: str) -> None:
        network = self.rng.choice(self.machines.networks)
        getattr(network, trouble)()
        try:
            await asyncio.sleep(self.rng.uniform(*OFF_S))
        finally:
            network.heal()

    async def good_weather(self) -> None:
        """Heal what is broken, wait until every host is up again and takes requests."""
        for network in self.machines.networks:
            network.heal()
        for host in self.machines.hosts:
            assert await asyncio.to_thread(host.wait_ready), f"{host.folder.name} does not come back"
