"""CPU per exchange of the bare wire: Server + Pool + relay, without key check, money or journal, next to
nginx.

Run: python bench/wire_micro.py [--seconds 4] [--stream]. Needs nginx and wrk. The proxy under test is
pinned to core 0; the load generator (wrk) and the upstream (nginx answering from its configuration) share
core 1. CPU is the operating system's account of the proxy's process, so idle waiting does not count.
`--profile` prints the hottest functions instead of comparing. With `--stream` the answer is relayed chunked
instead of being gathered.
"""

import argparse
import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "python"))

ANSWER = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    '{"role":"assistant","content":"Hello there, how can I help?"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}'
)
LUA = """
wrk.method = "POST"
wrk.body = '{"model":"m","messages":[{"role":"user","content":"Say hello to me, please."}]}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-trollllm-" .. string.rep("0", 64)
"""
NGINX = """
worker_processes 1; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.log crit;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/{name}_body;
proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
{body} }}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until something listens; half a minute at most."""
    for _ in range(300):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def start_nginx(folder: Path, name: str, body: str, core: int) -> subprocess.Popen[bytes]:
    path = folder / f"{name}.conf"
    path.write_text(NGINX.format(dir=folder, name=name, body=body))
    return subprocess.Popen(["taskset", "-c", str(core), "nginx", "-c", str(path), "-p", str(folder)])


def start_upstream(folder: Path, port: int) -> subprocess.Popen[bytes]:
    location = f"location / {{ default_type application/json; return 200 '{ANSWER}'; }}"
    return start_nginx(folder, "upstream", f"server {{ listen 127.0.0.1:{port}; {location} }}", 1)


def start_nginx_proxy(folder: Path, port: int, upstream_port: int) -> subprocess.Popen[bytes]:
    pass_on = (
        "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass http://u; proxy_buffering off;"
    )
    body = (
        f"upstream u {{ server 127.0.0.1:{upstream_port}; keepalive 128; keepalive_requests 100000000; }} "
        f"server {{ listen 127.0.0.1:{port}; location / {{ {pass_on} }} }}"
    )
    return start_nginx(folder, "proxy", body, 0)


def cpu_s(pid: int) -> tuple[float, float]:
    """CPU seconds of a process and its children, in user space and in the kernel."""
    user = system = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(entry.name) == pid or int(fields[1]) == pid:
            user += int(fields[11])
            system += int(fields[12])
    return user / os.sysconf("SC_CLK_TCK"), system / os.sysconf("SC_CLK_TCK")


def wrk(folder: Path, port: int, seconds: int) -> tuple[int, float]:
    script = folder / "post.lua"
    script.write_text(LUA)
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{seconds}s", "-s", str(script)]
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        print(done.stdout)
    requests = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if requests is None or rate is None:
        raise SystemExit(done.stdout)
    return int(requests.group(1)), float(rate.group(1))


def measure(name: str, folder: Path, pid: int, port: int, seconds: int) -> None:
    wrk(folder, port, 1)
    before_s = cpu_s(pid)
    requests, rate = wrk(folder, port, seconds)
    user_us, system_us = (
        (after - before) / requests * 1e6 for before, after in zip(before_s, cpu_s(pid), strict=True)
    )
    spent = f"{user_us + system_us:6.1f} us CPU/request (user {user_us:.1f}, system {system_us:.1f})"
    print(f"{name:10} {rate:8.0f} requests/s {spent}")


async def serve_proxy(port: int, upstream_port: int, stream: bool) -> None:  # noqa: C901 - one small proxy
    from farebox._meter import Head, Pipe  # noqa: PLC0415 - the parent process needs none of it
    from farebox.base.errors import UpstreamError  # noqa: PLC0415
    from farebox.base.redaction import Secret  # noqa: PLC0415
    from farebox.wire.endpoint import Endpoint, request_head  # noqa: PLC0415
    from farebox.wire.incoming import Incoming  # noqa: PLC0415
    from farebox.wire.relay import Collector, Relay  # noqa: PLC0415
    from farebox.wire.routes import match  # noqa: PLC0415
    from farebox.wire.server import Server  # noqa: PLC0415
    from farebox.wire.upstream import Connection, Pool  # noqa: PLC0415

    endpoint = Endpoint(
        name="bench", scheme="http", host="127.0.0.1", port=upstream_port, credential=Secret("sk-bench")
    )
    pool = Pool(endpoint, asyncio.get_running_loop())

    class Exchange:
        __slots__ = ("client", "head", "relay", "upstream")

        def __init__(self, client: Incoming, upstream: Connection) -> None:
            self.client = client
            self.upstream = upstream

        def on_head(self, head: Head, rest: bytes) -> None:
            self.head = head
            pipe = Pipe("chat", head.framing, chunked_out=stream)
            receiver: Relay | Collector
            if stream:
                self.client.start_stream(head.status, head.facts(128)[0])
                receiver = self.relay = Relay(self.client, self.upstream, pipe, self.hold_point)
            else:
                receiver = Collector(self.upstream, pipe, self.complete, lambda _: None)
            receiver.begin(head, rest)

        def hold_point(self, held: bytes, _: int) -> None:
            self.relay.send_held(held)
            self.relay.finish()

        def complete(self, body: bytes, _: int) -> None:
            self.client.answer(self.head.status, self.head.facts(128)[0], body)

        def on_data(self, data: bytes) -> None:
            raise NotImplementedError

        def on_closed(self, error: UpstreamError | None) -> None:
            self.client.answer(502, b"", str(error).encode())

    async def slowly(incoming: Incoming, body: bytes | None) -> None:
        if body is None:
            body = await incoming.body()
        forward(incoming, body, pool.take() or await pool.connect())

    def handle(incoming: Incoming) -> Awaitable[None] | None:
        match(incoming.method, incoming.path)
        incoming.api_key()
        incoming.require_json()
        body = incoming.body_now()
        connection = pool.take() if body is not None else None
        if body is None or connection is None:
            return slowly(incoming, body)
        forward(incoming, body, connection)
        return None

    def forward(incoming: Incoming, body: bytes, connection: Connection) -> None:
        head = request_head(endpoint, incoming.path, len(body), incoming.upstream_lines)
        connection.send(head, body, Exchange(incoming, connection))

    server = Server(handle)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    await server.start(sock)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.close()


def run_proxy(arguments: argparse.Namespace) -> None:
    import uvloop  # noqa: PLC0415

    main = serve_proxy(arguments.port, arguments.upstream_port, arguments.stream)
    if not arguments.profile:
        uvloop.run(main)
        return
    import cProfile  # noqa: PLC0415
    import pstats  # noqa: PLC0415

    profile = cProfile.Profile()
    profile.enable()
    uvloop.run(main)
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(35)


def compare(arguments: argparse.Namespace) -> None:
    for program in ("nginx", "wrk", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        upstream_port, nginx_port, port = free_port(), free_port(), free_port()
        started = [
            start_upstream(folder, upstream_port),
            start_nginx_proxy(folder, nginx_port, upstream_port),
        ]
        command = [sys.executable, __file__, "--port", str(port), "--upstream-port", str(upstream_port)]
        command += ["--stream"] if arguments.stream else []
        command += ["--profile"] if arguments.profile else []
        started.append(subprocess.Popen(["taskset", "-c", "0", *command]))
        try:
            for waited_for in (upstream_port, nginx_port, port):
                wait_for(waited_for)
            if not arguments.profile:
                measure("nginx", folder, started[1].pid, nginx_port, arguments.seconds)
            measure("farebox", folder, started[2].pid, port, arguments.seconds)
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--upstream-port", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.port:
        run_proxy(arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
