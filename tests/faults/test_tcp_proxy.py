"""The bad network does what it says: each trouble is seen from both ends, and ends when healed."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from faults.tcp_proxy import TcpProxy


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it hears; `endings`: how each connection ended for the server."""

    endings: list[str]

    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
            self.endings.append("end")
        except OSError:
            self.endings.append("reset")


@pytest.fixture
def endings() -> list[str]:
    Echo.endings = []
    return Echo.endings


@pytest.fixture
def proxy(endings: list[str]) -> Iterator[TcpProxy]:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    with TcpProxy(server.server_address[1]) as proxy:
        yield proxy
    server.shutdown()
    server.server_close()
    thread.join()


@contextlib.contextmanager
def connected(proxy: TcpProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as client:
        yield client


def said(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    back = b""
    while len(back) < len(data):
        piece = client.recv(65536)
        if not piece:
            break
        back += piece
    return back


def test_what_is_sent_arrives_both_ways(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        assert said(client, b"x" * 300_000) == b"x" * 300_000
    assert proxy.connections == 1


def test_cut_ends_connections_and_refuses_new_ones_until_healed(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        said(client, b"a")
        proxy.cut()
        assert client.recv(10) == b""
    with connected(proxy) as client, contextlib.suppress(ConnectionResetError):
        assert client.recv(10) == b""
    proxy.heal()
    with connected(proxy) as client:
        assert said(client, b"b") == b"b"


def test_reset_is_an_error_at_both_ends(proxy: TcpProxy, endings: list[str]) -> None:
    with connected(proxy) as client:
        said(client, b"a")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with connected(proxy) as client:
        assert said(client, b"b") == b"b"
    ends_s = time.monotonic() + 20
    while "reset" not in endings and time.monotonic() < ends_s:
        time.sleep(0.01)  # the first connection's thread may tell its end after the second's
    assert "reset" in endings


def test_a_blackhole_lets_nothing_through_and_loses_nothing(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        said(client, b"a")
        proxy.blackhole()
        client.sendall(b"b")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(10)
        client.settimeout(20)
        proxy.heal()
        assert client.recv(10) == b"b"


def test_half_close_tells_the_client_only(proxy: TcpProxy, endings: list[str]) -> None:
    with connected(proxy) as client:
        said(client, b"a")
        proxy.half_close()
        assert client.recv(10) == b""
        assert endings == []


def test_slow_and_narrow_networks_pass_everything(proxy: TcpProxy) -> None:
    proxy.delay(0.01)
    proxy.throttle(1_000_000)
    with connected(proxy) as client:
        assert said(client, b"y" * 20_000) == b"y" * 20_000
