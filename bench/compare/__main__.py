"""`make bench-compare`: install the peers, put them under the loads of bench/ratio.py, try their money.

    PYTHONPATH=bench python -m compare [--peers farebox,one-api] [--seconds 5] [--rounds 3] [--reference]

Each peer takes turns with nginx on the measured core; generator and scripted upstream have the other. One
after the other: only the peer that is measured runs. `--reference` puts what was found into the committed
result, which keeps what it says of peers that were left out, and into docs/BENCH.md.
"""

import argparse
import http.client
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import machine
import ratio
import report
import results
import rig
from compare import comparison, money
from compare.farebox import Farebox
from compare.litellm import LiteLLM
from compare.new_api import NewApi
from compare.nginx import Nginx
from compare.one_api import OneApi
from compare.peer import MONEY_REQUEST, CannotRunError, MeteredPeer, Peer, Running, resident_bytes
from compare.portkey import Portkey

DOCUMENT = machine.REPOSITORY / "docs" / "BENCH.md"
REFERENCE = results.FOLDER / "compare.json"
CACHE = machine.REPOSITORY / "dist" / "compare"
PEERS: dict[str, Callable[[], Peer]] = {
    "nginx": Nginx,
    "farebox": Farebox,
    "litellm": LiteLLM,
    "one-api": OneApi,
    "one-api-batched": lambda: OneApi(batched=True),
    "new-api": NewApi,
    "portkey": Portkey,
}
METHOD = [
    "Generator and scripted upstream on one core, the gateway with all its processes on the other.",
    "Plain: wrk, 64 connections (LiteLLM 16), about 500 bytes of answer.",
    "Streamed: 50 at once, 100 chunks each, 2 ms apart.",
    "Medians of the rounds; each round follows one of nginx, and ratios are to those.",
    "CPU: user and system time of the whole process tree after its books have settled.",
    f"Money: quotas are counted in prices of this request: {MONEY_REQUEST}",
]


class Compared:
    """One peer in its turns with nginx."""

    def __init__(self, peer: Peer, the_rig: rig.Rig, seconds: float) -> None:
        self.peer = peer
        self.rig = the_rig
        self.seconds = seconds
        self.found = comparison.Measured(peer.name, switched_on=peer.switched_on)
        self.streams_fail = False
        self.served = 0
        """Requests of this peer that reached the upstream."""

    def measure(self, rounds: int) -> None:
        """Loads, then money."""
        running = None if isinstance(self.peer, Nginx) else self.peer.start(self.rig)
        if running is not None:
            self.served += answered(running)
        for number in range(1, rounds + 1):
            baseline = Nginx().start(self.rig)
            subject = comparison.BASELINE if running is None else comparison.baseline_of(self.peer.name)
            self._loads(number, subject, baseline, Nginx.connections)
            self.rig.stop(baseline.process)
            if running is not None:
                before = self.rig.served()["received"]
                self._loads(number, self.peer.name, running, self.peer.connections)
                self.served += self.rig.served()["received"] - before
        if running is not None:
            self.found.resident_bytes = resident_bytes(running.process)
            self._money(running)

    def _loads(self, number: int, name: str, running: Running, connections: int) -> None:
        turn = (running.process, running.port, running.key, self.seconds, self.rig.load_core)
        headers = [f"{header}: {value}" for header, value in running.headers.items()]
        plain = ratio.measured_plain(*turn, connections, headers)
        self._add(name, comparison.PLAIN, connections, plain, cpu_us=plain.cpu_us)
        print(
            f"  round {number} {name:<26}{plain.per_s:>8.0f} requests/s{plain.cpu_us:>10.1f} µs CPU each",
            flush=True,
        )
        if self.streams_fail:
            return
        try:
            streamed = ratio.measured_streams(*turn, headers)
        except SystemExit as failed:
            self.streams_fail = True
            self.found.missing = f"streams: {comparison.reason(str(failed))}"
            return
        self._add(name, comparison.STREAMED, ratio.STREAMS, streamed, chunk_cpu_us=streamed.cpu_us)
        print(f"  round {number} {name:<26}{streamed.cpu_us:>31.1f} µs CPU a chunk", flush=True)

    def _add(self, name: str, load: str, at_once: int, found: ratio.Round, **cpu_us: float) -> None:
        cell = results.Cell(name, load, at_once, seconds=self.seconds, per_s=found.per_s, busy=found.busy)
        self.found.cells.append(replace(cell, **cpu_us))

    def _money(self, running: Running) -> None:
        if not isinstance(self.peer, MeteredPeer):
            return
        for experiment in money.EXPERIMENTS:
            outcome, running = money.perform(self.peer, running, self.rig, experiment)
            self.served += outcome.served
            self.found.outcomes.append(outcome)
            print(
                f"  {experiment.letter}: {experiment.affordable} paid for, {experiment.sent} sent:"
                f" answers by status {outcome.statuses}, {outcome.served} reached the upstream,"
                f" {outcome.books.billed} charged, balance {money.in_requests(outcome.books.balance)}",
                flush=True,
            )
        if isinstance(self.peer, Farebox):
            self.peer.prove(self.served)


def answered(running: Running) -> int:
    """Ask once before any load, 1 request served. Raises CannotRunError with what a refusal says."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {running.key}",
        **running.headers,
    }
    try:
        connection.request("POST", rig.PATH, MONEY_REQUEST, headers)
        answer = connection.getresponse()
        said = answer.read().decode(errors="replace")
    except OSError as error:
        raise CannotRunError(f"does not answer: {error}\n{running.process.tail()}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise CannotRunError(f"answers {answer.status}: {said[:300]}\n{running.process.tail()}")
    return 1


def compare(peer: Peer, rounds: int, seconds: float) -> comparison.Measured:
    """Measure one peer; what went wrong is part of what was found."""
    print(f"{peer.name}: installing", flush=True)
    compared = None
    try:
        version = peer.install(CACHE)
        load_core, server_core = rig.two_cores()
        with rig.Rig(load_core, server_core) as the_rig:
            compared = Compared(peer, the_rig, seconds)
            compared.found.version = version
            print(f"{peer.name} {version}: {peer.switched_on}", flush=True)
            compared.measure(rounds)
    except (CannotRunError, SystemExit) as stopped:
        print(f"  {peer.name}: {stopped}", file=sys.stderr, flush=True)
        found = compared.found if compared is not None else comparison.Measured(peer.name)
        found.missing = comparison.reason(str(stopped))
        return found
    return compared.found


def main() -> int:
    parser = argparse.ArgumentParser(description="Farebox, nginx and other gateways.")
    parser.add_argument("--peers", default=",".join(PEERS), help="names, with commas between them")
    parser.add_argument("--seconds", type=float, default=5.0, help="of every measured stretch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference", action="store_true", help="add to the committed result, rewrite docs")
    options = parser.parse_args()
    names = options.peers.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        parser.error(f"unknown peer {unknown[0]!r}; known: {', '.join(PEERS)}")
    started_s = time.monotonic()
    result = results.Result("compare", machine=machine.facts(), versions=machine.versions(), method=METHOD)
    found = [compare(PEERS[name](), options.rounds, options.seconds) for name in names]
    result.cells = [cell for one in found for cell in one.cells]
    result.tables = comparison.tables(found)
    result.versions |= {one.name: one.version for one in found if one.version}
    result.took_s = round(time.monotonic() - started_s, 1)
    if options.reference and REFERENCE.exists():
        result = comparison.merged(results.read(REFERENCE), result)
    print(comparison.markdown(result))
    path = result.write(REFERENCE if options.reference else result.default_path())
    print(f"written: {path}, {report.write_page(result, path.with_suffix('.html'))}")
    if options.reference:
        page = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(comparison.with_tables(page, result), encoding="utf-8")
    return 1 if any(one.name == Farebox.name and one.missing for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
