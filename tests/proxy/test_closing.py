"""Promise M3: a worker that ends settles what is open, and begins nothing after."""

import asyncio
from pathlib import Path
from typing import Any

from farebox.base.counters import INDEX


async def test_M3_a_request_whose_body_comes_too_late_is_refused_and_its_hold_given_back(
    socketless: Any, tmp_path: Path
) -> None:
    worker, server, pool, key = await socketless.make_worker(tmp_path)
    connections = socketless.Connections(server, pool, key, 1)
    (client,), (upstream,) = connections.clients, connections.upstreams
    written: list[bytes] = []
    connections.client_transport.write = written.append
    connections.client_transport.write_eof = lambda: None
    request = connections.plain[0]
    client.data_received(request[:-1])
    while not client.body_since_s:
        await asyncio.sleep(0.001)
    await worker.settle_all()
    client.data_received(request[-1:])
    while client.current is not None:
        await asyncio.sleep(0.001)
    (answer,) = written
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"This server is shutting down." in answer
    assert b"Connection: close\r\n" in answer
    assert upstream.receiver is None
    assert worker.exchanges == {}
    assert worker.counters[INDEX["voided_total"]] == 1
    await worker.close()
