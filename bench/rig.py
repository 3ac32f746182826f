"""The rig of the benchmarks: scripted upstream, nginx and Farebox as processes on chosen cores, and their CPU
time.

Everything runs on this machine in one temporary folder: the generator and the upstream on one core, what is
measured on another. Farebox runs as in production: key check, hold, journal, settlement, SQLite store and
counters are on.
"""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

from farebox.base.clock import wall_ms
from farebox.base.units import PICO_PER_USD
from farebox.credits.accounts import create_key, create_user
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.run.demo.processes import free_port
from farebox.store import open_store

HERE = Path(__file__).resolve().parent
MODEL = "gpt-5.1"
PATH = "/v1/chat/completions"
PRICE = "input=1.25,output=10"
"""USD per million tokens of the configured model, for recomputing what the upstream's log must have cost."""

PLAIN_BODY = json.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "Say hello to the world."}]}
)
STREAM_SCRIPT = 'script: {"chunks": 100, "delay_ms": 2, "prompt": 40, "completion": 100}'
STREAM_BODY = json.dumps(
    {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": STREAM_SCRIPT}]}
)

TICKS = os.sysconf("SC_CLK_TCK")
_READY_S = 30.0


def stop_with(message: str) -> NoReturn:
    """End the benchmark with one clear line; status 1."""
    raise SystemExit(f"bench: {message}")


def program(name: str) -> str:
    """The path of a system program; ends the benchmark where it is missing."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        stop_with(f"{name} is not installed; `make system-deps` installs it")
    return path


def two_cores() -> tuple[int, int]:
    """The core of generator and upstream, and the core of what is measured."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        stop_with("two cores are needed: one for generator and upstream, one for what is measured")
    return cores[0], cores[1]


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started within runs on this core, for children inherit it; None: on any."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowed if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@dataclass(slots=True)
class Process:
    """A child on one core, with its whole tree."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    def tree(self) -> list[int]:
        """The process and its descendants, as /proc tells now."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                stat = _stat(int(entry.name))
                if stat:
                    children.setdefault(int(stat[1]), []).append(int(entry.name))
        found, waiting = [], [self.child.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting += children.get(pid, [])
        return found

    def cpu_s(self) -> float:
        """CPU seconds of the tree so far, user and system, ended children included."""
        ticks = 0
        for pid in self.tree():
            stat = _stat(pid)
            if stat:
                ticks += int(stat[11]) + int(stat[12]) + int(stat[13]) + int(stat[14])
        return ticks / TICKS

    def cpu_by_name(self) -> dict[str, float]:
        """CPU seconds by command line, for the table."""
        found: dict[str, float] = {}
        for pid in self.tree():
            stat = _stat(pid)
            if stat:
                name = role_of(pid)
                found[name] = found.get(name, 0.0) + (int(stat[11]) + int(stat[12])) / TICKS
        return found

    def rss_bytes(self) -> int:
        """Resident memory of the tree; what processes share counts for each."""
        return sum(rss_of(pid) for pid in self.tree())

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not listen."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(60)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def rss_of(pid: int) -> int:
    """Resident bytes of one process; 0 when it is gone."""
    stat = _stat(pid)
    return int(stat[21]) * os.sysconf("SC_PAGE_SIZE") if stat else 0


def role_of(pid: int) -> str:
    """What a process of Farebox is, by its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return "gone"
    return next(
        (role for role in ("writer", "worker", "console") if f"{role}_process" in words), "supervisor"
    )


@dataclass(slots=True)
class Rig:
    """One temporary folder with everything in it; a context manager."""

    load_core: int
    server_core: int
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="farebox-bench-")))
    upstream: Process | None = None
    upstream_port: int = 0
    _running: list[Process] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.upstream_port = free_port()
        command = [sys.executable, "-m", "farebox.run.demo.upstream", "--port", str(self.upstream_port)]
        self.upstream = self.start("upstream", command, self.load_core)
        self.wait_ready(self.upstream, self.upstream_port, "/_log?lines=0")
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str, command: list[str], core: int | None, **environment: str) -> Process:
        """Start a child on a core; None: on any."""
        log = self.folder / f"{name}.log"
        with on_core(core), log.open("wb") as out:
            child = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environment}
            )
        process = Process(name, child, log)
        self._running.append(process)
        return process

    def stop(self, process: Process) -> None:
        """Stop a child now; one that was stopped before stays so."""
        process.stop()
        if process in self._running:
            self._running.remove(process)

    def stop_all(self) -> None:
        """Stop every child but the upstream."""
        for process in reversed(self._running[1:]):
            self.stop(process)

    def wait_ready(self, process: Process, port: int, path: str, limit_s: float = _READY_S) -> None:
        """Until a GET answers 200; ends the benchmark with the child's log otherwise."""
        ends_s = time.monotonic() + limit_s
        while get(port, path)[0] != 200:
            if process.child.poll() is not None or time.monotonic() > ends_s:
                stop_with(f"{process.name} is not ready:\n{process.tail()}")
            time.sleep(0.05)

    def served(self) -> dict[str, Any]:
        """The upstream's totals."""
        return dict(json.loads(get(self.upstream_port, "/_log?lines=0")[1]))

    def start_nginx(
        self, name: str = "nginx", upstream_port: int = 0, ready_path: str = "/_log?lines=0", more: str = ""
    ) -> tuple[Process, int]:
        """Nginx as a plain reverse proxy (of the scripted upstream unless told otherwise): one worker,
        keep-alive upstream, no access log, no response buffering; `more` goes into its `location`.
        """
        port = free_port()
        folder = self.folder / f"{name}-files"
        folder.mkdir(exist_ok=True)
        config = folder / "nginx.conf"
        upstream = upstream_port or self.upstream_port
        config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream, more=more))
        command = [program("nginx"), "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
        process = self.start(name, command, self.server_core)
        self.wait_ready(process, port, ready_path)
        return process, port

    def start_farebox(
        self, name: str, store_url: str = "", workers: int = 1, core: int | None = -1, **settings: Any
    ) -> "FareboxUnderTest":
        """Farebox with a data folder of its own, one user with credit, one key; SQLite unless told otherwise.

        `core`: None for any, -1 for the measured one. `settings` go over the configuration's.
        """
        folder = self.folder / name
        folder.mkdir()
        port = free_port()
        config = folder / "config.json"
        url = store_url or f"sqlite:///{folder / 'farebox.sqlite'}"
        members = farebox_config(port, folder, self.upstream_port)
        config.write_text(json.dumps({**members, "store": {"url": url}, "workers": workers, **settings}))
        key = asyncio.run(make_account(url))
        process = self.serve(name, config, self.server_core if core == -1 else core)
        self.wait_ready(process, port, "/readyz")
        return FareboxUnderTest(process, port, key, config)

    def serve(self, name: str, config: Path, core: int | None) -> Process:
        """`farebox serve` on a configuration; it may not be ready yet."""
        command = [sys.executable, "-m", "farebox.run.cli", "serve", "--config", str(config)]
        return self.start(name, command, core, BENCH_UPSTREAM_KEY="sk-bench")


@dataclass(slots=True)
class FareboxUnderTest:
    """A running Farebox and what a client needs."""

    process: Process
    port: int
    key: str
    config: Path

    def move_writer(self, core: int) -> None:
        """Put the writer, with all its threads, on another core."""
        writers = [pid for pid in self.process.tree() if role_of(pid) == "writer"]
        if not writers:
            stop_with("no writer process was found under farebox serve")
        for pid in writers:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})

    def command(self, *arguments: str) -> dict[str, Any]:
        """A farebox command's JSON document; a failed check is a document too."""
        done = subprocess.run(
            [sys.executable, "-m", "farebox.run.cli", *arguments, "--config", str(self.config), "--json"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "BENCH_UPSTREAM_KEY": "sk-bench"},
        )
        if not done.stdout:
            stop_with(f"farebox {' '.join(arguments)}: {done.stderr.strip()}\n{self.process.tail()}")
        return dict(json.loads(done.stdout))


def settle(process: Process, limit_s: float = 60.0) -> float:
    """Wait until the tree is idle (its writer has caught up); how long that took."""
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        before = process.cpu_s()
        time.sleep(0.3)
        if process.cpu_s() - before < 0.03:
            break
    return max(0.0, time.monotonic() - started - 0.3)


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body; status 0 while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


async def make_account(store_url: str) -> str:
    """A user with credit and a key in a new store; the key."""
    store = open_store(store_url)
    await store.open()
    try:
        now_ms = wall_ms()
        await create_user(store, "bench", "user", "bench", now_ms)
        credit = Move("grant", "bench", "bench", "creditsNew", 10_000 * PICO_PER_USD, "bench", "bench")
        await perform(store, credit, now_ms)
        return (await create_key(store, "bench", "bench", "bench", now_ms, requests_per_minute=10**9)).key
    finally:
        await store.close()


def farebox_config(port: int, folder: Path, upstream_port: int) -> dict[str, Any]:
    """One service with one model at the scripted upstream."""
    endpoint = {
        "name": "bench-openai",
        "base_url": f"http://127.0.0.1:{upstream_port}",
        "api_key_env": "BENCH_UPSTREAM_KEY",
    }
    model = {
        "name": "GPT 5.1",
        "id": MODEL,
        "type": "openai",
        "upstream": "bench",
        "billing_upstream": "openhands",
        "input_price_per_mtok": 1.25,
        "output_price_per_mtok": 10,
        "cache_write_price_per_mtok": 1.25,
        "cache_hit_price_per_mtok": 0.125,
    }
    return {
        "name": "bench",
        "port": port,
        "data_dir": str(folder),
        "console": {"port": free_port()},
        "limits": {"requests_per_minute": 10**9},
        "endpoints": [endpoint],
        "models": [model],
    }


NGINX = """
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    upstream scripted {{
        server 127.0.0.1:{upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://scripted;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            {more}
        }}
    }}
}}
"""
