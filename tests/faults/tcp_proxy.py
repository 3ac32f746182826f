"""A bad network: a TCP proxy that cuts, resets, silences, slows or half-closes what runs through it.

It stands before a database or an upstream and runs on a thread of its own, so that a test which waits, or a
process that is stopped, does not slow it down. All methods may be called from any thread and take effect at
once, for connections there are and for those to come; `heal` ends every trouble.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

_PIECE_BYTES = 64 * 2**10
_NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends a reset."""


class TcpProxy:
    """Forwards `host`:`port` to 127.0.0.1:`target_port`. A context manager; `connections` counts all."""

    def __init__(self, target_port: int, port: int = 0, host: str = "127.0.0.1") -> None:
        self.host = host
        self.target_port = target_port
        self.port = port
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._refusing = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self._thread.start()
        self._on_loop(self._start)

    # -- trouble ---------------------------------------------------------------------------------------------
    def cut(self) -> None:
        """End every connection in order (FIN), and refuse new ones."""
        self._on_loop(self._cut)

    def reset(self) -> None:
        """End every connection with a reset; new ones are taken."""
        self._on_loop(self._reset)

    def blackhole(self) -> None:
        """Let nothing through and end nothing, as a lost route does; new connections are not answered."""
        self._on_loop(self.flowing.clear)

    def delay(self, seconds: float) -> None:
        """Hold each piece back so long, in both directions."""
        self._on_loop(lambda: setattr(self, "delay_s", seconds))

    def throttle(self, bytes_per_s: int) -> None:
        """Let so much through, in each direction of each connection."""
        self._on_loop(lambda: setattr(self, "bytes_per_s", bytes_per_s))

    def half_close(self) -> None:
        """Tell every client that its server says no more (FIN), while the server still hears the client."""
        self._on_loop(lambda: [link.half_close() for link in self._links])

    def heal(self) -> None:
        """A good network again: connections that are left go on, new ones are taken."""
        self._on_loop(self._heal)

    # -- life ------------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- on the loop -----------------------------------------------------------------------------------------
    def _on_loop(self, work: Callable[[], object]) -> None:
        async def run() -> None:
            result = work()
            if asyncio.iscoroutine(result):
                await result

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10.0)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        for link in tuple(self._links):
            link.end()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut(self) -> None:
        self._refusing = True
        for link in tuple(self._links):
            link.end()

    def _reset(self) -> None:
        for link in tuple(self._links):
            link.reset()

    def _heal(self) -> None:
        self._refusing = False
        self.delay_s, self.bytes_per_s = 0.0, 0
        self.flowing.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            await self.flowing.wait()
            there = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        link = _Link(self, (reader, writer), there)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
            link.end()


class _Link:
    """One connection through the proxy: the client's end and the server's."""

    def __init__(
        self,
        proxy: TcpProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server

    async def run(self) -> None:
        """Forward both ways until both have ended, or one has failed."""
        await asyncio.gather(
            self._forward(self._client[0], self._server[1]), self._forward(self._server[0], self._client[1])
        )

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy = self._proxy
        try:
            while piece := await reader.read(_PIECE_BYTES):
                await proxy.flowing.wait()
                if proxy.delay_s:
                    await asyncio.sleep(proxy.delay_s)
                if proxy.bytes_per_s:
                    await asyncio.sleep(len(piece) / proxy.bytes_per_s)
                writer.write(piece)
                await writer.drain()
            await proxy.flowing.wait()
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()
        except OSError:
            self.reset()

    def half_close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._client[1].write_eof()

    def end(self) -> None:
        for _, writer in (self._client, self._server):
            writer.close()

    def reset(self) -> None:
        for _, writer in (self._client, self._server):
            end = writer.get_extra_info("socket")
            if end is not None:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            writer.transport.abort()
