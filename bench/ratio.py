"""`make bench-ratio`: what Farebox costs beside a bare nginx proxy, from one run on this machine.
 Generator and upstream share one core, what is measured has another. nginx and Farebox take turns; every
figure is the median of its rounds. A Farebox round counts only if afterwards verify is clean, every charge
recomputes, and the charges are those of the exchanges the upstream served. The last line is one JSON object.
Method: docs/BENCH.md.

    python bench/ratio.py [--seconds 5] [--rounds 3] [--quick]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import rig
from farebox.base.units import usd_from_pico

CONNECTIONS = 64
STREAMS = 50
ANSWER_MAX_S = 10
"""An answer that takes longer is missing, to wrk; some gateways need more than its own two seconds."""
WARM_UP_S = 1.0
FULL_CORE = 0.95
"""A core busier than this is the limit itself; below it, generator, upstream or others on this machine were.
"""

PICO_INPUT = 1_250_000
PICO_OUTPUT = 10_000_000
"""Pico-USD per token of rig's model, multiplier 1."""


@dataclass(frozen=True, slots=True)
class Round:
    """One measured stretch: how much was done, at what CPU cost, and how busy the core was."""

    per_s: float
    cpu_us: float
    busy: float
    p50_us: float = 0
    p99_us: float = 0
    catch_up_s: float = 0

    @property
    def full_core_per_s(self) -> float:
        """What the rate comes to on a full core: who waits for the generator, or for others on this machine,
        is no slower for it.
        """
        return self.per_s if self.busy > FULL_CORE else self.per_s / self.busy


def plain_load(
    port: int,
    key: str,
    seconds: float,
    core: int,
    connections: int = CONNECTIONS,
    headers: Sequence[str] = (),
) -> dict[str, Any]:
    """Wrk with its script; requests, errors and latencies."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        f"--timeout={ANSWER_MAX_S}",
        "-s",
        str(rig.HERE / "post.lua"),
    ]
    command[0] = rig.program("wrk")
    environment = {**os.environ, "BENCH_BODY": rig.PLAIN_BODY, "BENCH_KEY": key}
    environment["BENCH_HEADERS"] = "\n".join(headers)
    result = _run_on(core, [*command, f"http://127.0.0.1:{port}{rig.PATH}"], environment)
    if result["errors"] or result["timeouts"] or not result["requests"]:
        rig.stop_with(
            f"void: {result['requests']} answers, {result['errors']} errors and {result['timeouts']} timeouts"
        )
    return result


def streamed_load(
    port: int, key: str, seconds: float, core: int, headers: Sequence[str] = ()
) -> dict[str, Any]:
    """The streamed generator; streams, events and failures."""
    command = [sys.executable, str(rig.HERE / "stream_load.py"), "--port", str(port), "--key", key]
    command += ["--streams", str(STREAMS), "--seconds", str(seconds), "--body", rig.STREAM_BODY]
    command += [word for header in headers for word in ("--header", header)]
    result = _run_on(core, command, dict(os.environ))
    if result["failed"] or result["done"] != result["asked"]:
        rig.stop_with(f"void: {result['asked'] - result['done']} of {result['asked']} streams failed")
    return result


def _run_on(core: int, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    with rig.on_core(core):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        rig.stop_with(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured_plain(
    process: rig.Process,
    port: int,
    key: str,
    seconds: float,
    core: int,
    connections: int = CONNECTIONS,
    headers: Sequence[str] = (),
) -> Round:
    """Small chat exchanges: rate, CPU µs a request (settling included), how busy the core was.

    `headers`: more of them, as `name: value`.
    """
    plain_load(port, key, WARM_UP_S, core, connections, headers)
    rig.settle(process)
    before_s = process.cpu_s()
    result = plain_load(port, key, seconds, core, connections, headers)
    loaded_s = process.cpu_s() - before_s
    catch_up_s = rig.settle(process)
    took_s = result["duration_us"] / 1e6
    cpu_us = (process.cpu_s() - before_s) / result["requests"] * 1e6
    per_s = result["requests"] / took_s
    return Round(per_s, cpu_us, loaded_s / took_s, result["p50_us"], result["p99_us"], catch_up_s)


def measured_streams(
    process: rig.Process, port: int, key: str, seconds: float, core: int, headers: Sequence[str] = ()
) -> Round:
    """Streams at a fixed pace: events a second, CPU µs an event (opening and settling included)."""
    streamed_load(port, key, WARM_UP_S, core, headers)
    rig.settle(process)
    before_s = process.cpu_s()
    result = streamed_load(port, key, seconds, core, headers)
    loaded_s = process.cpu_s() - before_s
    catch_up_s = rig.settle(process)
    cpu_us = (process.cpu_s() - before_s) / result["events"] * 1e6
    return Round(
        result["events"] / result["seconds"], cpu_us, loaded_s / result["seconds"], catch_up_s=catch_up_s
    )


class Bench:
    """The rounds of one run, by what was measured."""

    def __init__(self, the_rig: rig.Rig, seconds: float) -> None:
        self.rig = the_rig
        self.seconds = seconds
        self.rounds: dict[str, list[Round]] = {}

    def nginx(self, number: int) -> None:
        """One nginx turn: plain, then streamed."""
        process, port = self.rig.start_nginx()
        self._measure("nginx plain", number, measured_plain, process, port, "none")
        self._measure("nginx streamed", number, measured_streams, process, port, "none")
        self.rig.stop(process)

    def farebox(self, number: int) -> None:
        """One Farebox turn: plain and streamed on one core, then plain with the writer on the other core."""
        for is_apart in (False, True):
            served_before = self.rig.served()
            farebox = self.rig.start_farebox(f"farebox-{number}-{'apart' if is_apart else 'together'}")
            process, port, key = farebox.process, farebox.port, farebox.key
            if is_apart:
                farebox.move_writer(self.rig.load_core)
                self._measure("worker plain", number, measured_plain, process, port, key)
            else:
                self._measure("farebox plain", number, measured_plain, process, port, key)
                self._measure("farebox streamed", number, measured_streams, process, port, key)
            check_books(farebox, served_before, self.rig.served())
            print(f"    CPU s by process: {_shares(process)}; verify clean, charges agree with the upstream")
            self.rig.stop(process)

    def _measure(
        self, name: str, number: int, measure: Callable[..., Round], process: rig.Process, port: int, key: str
    ) -> None:
        found = measure(process, port, key, self.seconds, self.rig.load_core)
        self.rounds.setdefault(name, []).append(found)
        what = "requests/s" if "plain" in name else "chunks/s"
        print(
            f"  round {number} {name:<17}{found.per_s:>9.0f} {what:<11}"
            f"{found.cpu_us:>7.1f} µs CPU each, core {found.busy:>4.0%} busy",
            flush=True,
        )

    def median(self, name: str, figure: str) -> float:
        """The median of one figure over the rounds."""
        return statistics.median(getattr(found, figure) for found in self.rounds[name])


def _shares(process: rig.Process) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(process.cpu_by_name().items()))


def check_books(farebox: rig.FareboxUnderTest, before: dict[str, Any], after: dict[str, Any]) -> None:
    """End the benchmark unless what was served is what was charged, and everything adds up."""
    verified = farebox.command("verify", "--wait", "60")
    audited = farebox.command("audit")
    if not verified["clean"] or verified["pending"] or verified["parked_total"]:
        rig.stop_with(f"void: verify found differences: {json.dumps(verified)[:2000]}")
    if not audited["clean"]:
        rig.stop_with(f"void: charges do not recompute: {audited['mismatches'][:5]}")
    served = after["received"] - before["received"]
    used = {kind: count - before["usage"].get(kind, 0) for kind, count in after["usage"].items()}
    cost_pico = used.get("input", 0) * PICO_INPUT + used.get("output", 0) * PICO_OUTPUT
    if audited["charges"] != served or audited["charged"] != usd_from_pico(cost_pico):
        rig.stop_with(
            f"void: the upstream served {served} exchanges worth {usd_from_pico(cost_pico)} USD,"
            f" {audited['charges']} worth {audited['charged']} USD were charged"
        )


def figures(bench: Bench) -> dict[str, float]:
    """Everything the last line tells; ratios are Farebox / nginx."""
    nginx, one_core, apart = (f"{name} plain" for name in ("nginx", "farebox", "worker"))
    ratios = {
        "plain_rps_ratio": bench.median(one_core, "per_s") / bench.median(nginx, "per_s"),
        "worker_rps_ratio": bench.median(apart, "per_s") / bench.median(nginx, "per_s"),
        "plain_full_core_ratio": bench.median(one_core, "full_core_per_s")
        / bench.median(nginx, "full_core_per_s"),
        "worker_full_core_ratio": bench.median(apart, "full_core_per_s")
        / bench.median(nginx, "full_core_per_s"),
        "chunk_cpu_ratio": bench.median("farebox streamed", "cpu_us")
        / bench.median("nginx streamed", "cpu_us"),
        "plain_cpu_ratio": bench.median(one_core, "cpu_us") / bench.median(nginx, "cpu_us"),
    }
    found = {name: round(value, 3) for name, value in ratios.items()}
    for name in (nginx, one_core, apart):
        key = name.replace(" ", "_")
        found[f"{key}_rps"] = round(bench.median(name, "per_s"))
        found[f"{key}_cpu_us"] = round(bench.median(name, "cpu_us"), 1)
        found[f"{key}_full_core_rps"] = round(bench.median(name, "full_core_per_s"))
        found[f"{key}_busy"] = round(bench.median(name, "busy"), 3)
        found[f"{key}_p50_us"] = round(bench.median(name, "p50_us"))
        found[f"{key}_p99_us"] = round(bench.median(name, "p99_us"))
    for name in ("nginx streamed", "farebox streamed"):
        found[f"{name.replace(' ', '_')}_chunk_cpu_us"] = round(bench.median(name, "cpu_us"), 2)
    found["writer_catch_up_s"] = round(bench.median(one_core, "catch_up_s"), 2)
    return found


def show(bench: Bench) -> None:
    """The table for people."""
    heads = ("each second", "full core", "CPU µs each", "core busy", "p50 ms", "p99 ms")
    print(f"\n{'median':<18}{''.join(f'{head:>13}' for head in heads)}")
    for name in bench.rounds:
        figures_of = ("per_s", "full_core_per_s", "cpu_us", "busy", "p50_us", "p99_us")
        per_s, full, cpu_us, busy, p50, p99 = (bench.median(name, figure) for figure in figures_of)
        times = f"{p50 / 1000:>13.2f}{p99 / 1000:>13.2f}" if p50 else ""
        rate = f"{full:>13.0f}" if p50 else f"{'':>13}"
        print(f"{name:<18}{per_s:>13.0f}{rate}{cpu_us:>13.1f}{busy:>13.0%}{times}")
    print("`full core`: the rate scaled up where generator, upstream or others were the limit, not the core")


def main() -> int:
    parser = argparse.ArgumentParser(description="Farebox beside nginx.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of every measured stretch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of 2 s each")
    options = parser.parse_args()
    rounds, seconds = (1, 2.0) if options.quick else (options.rounds, options.seconds)
    rig.program("nginx")
    rig.program("wrk")
    load_core, server_core = rig.two_cores()
    started_s = time.monotonic()
    with rig.Rig(load_core, server_core) as the_rig:
        print(
            f"core {load_core}: generator, upstream; core {server_core}: nginx, then Farebox; {rounds} rounds"
        )
        bench = Bench(the_rig, seconds)
        for number in range(1, rounds + 1):
            bench.nginx(number)
            bench.farebox(number)
        show(bench)
        print(f"took {time.monotonic() - started_s:.0f} s")
        print(json.dumps(figures(bench)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
