"""The end of a run: figures, thresholds, the upstream's count, verify's verdict, and the exit code.

Only the process that holds all figures does it: locust's master, or the one process there is. The report is a
few lines, printed last; locust's own --html and --csv go into detail. Exit 1 says that something in it is not
as it should be.
"""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import options as own
from locust.env import Environment
from thresholds import CHUNK_GAP, FIRST_TOKEN, MONEY_REFUSED, OWN_KINDS, Row, crossed

from locust import events

WAIT_S = 90
"""For the last exchanges and for their settlements: Farebox reads on for up to a minute where a client left.
"""


@dataclass(frozen=True, slots=True)
class Books:
    """How many exchanges the scripted upstream has had, and how many charges Farebox has."""

    served: int
    charges: int


class Run:
    """One run of this process: the books before it, and the report after it."""

    def __init__(self) -> None:
        self.before: Books | None = None
        self.text = ""

    def begin(self, environment: Environment, **_: object) -> None:
        """Take the books before anything is sent."""
        options = environment.parsed_options
        if options and not options.worker and options.scripted_upstream and options.farebox_config:
            self.before = books(options)

    def end(self, environment: Environment, **_: object) -> None:
        """Judge the run and set the exit code."""
        options = environment.parsed_options
        if not options or options.worker or environment.runner is None:
            return
        if environment.runner.user_count:
            environment.runner.stop()  # interrupted, or asked to end while its page was open
        rows = rows_of(environment)
        lines = [*figures(environment, rows)]
        wrong = crossed(rows, own.thresholds_of(options))
        if environment.runner.exceptions:
            wrong.append(f"{len(environment.runner.exceptions)} kinds of exceptions in scenarios")
        lines += [f"NOT MET: {one}" for one in wrong] or ["thresholds: all met"]
        is_agreed = True
        if self.before:
            is_agreed, line = agreement_in_time(self.before, options)
            lines.append(line)
        is_clean, verdict = verified(options)
        lines.append(verdict)
        environment.process_exit_code = 0 if is_clean and is_agreed and not wrong else 1
        self.text = "\n".join(lines) + "\n"
        if options.report:
            Path(options.report).write_text(self.text, encoding="utf-8")

    def show(self, **_: object) -> None:
        """Print the report after locust's own tables."""
        sys.stdout.write(self.text and f"\n{self.text}")
        sys.stdout.flush()


def watch() -> None:
    """Have the run reported."""
    run = Run()
    events.init.add_listener(run.begin)
    events.quitting.add_listener(run.end)
    events.quit.add_listener(run.show)


# -- figures -------------------------------------------------------------------------------------------------


def rows_of(environment: Environment) -> list[Row]:
    """Locust's table, own rows included."""
    return [
        Row(
            kind,
            name,
            entry.num_requests,
            entry.num_failures,
            entry.get_response_time_percentile(0.5),
            entry.get_response_time_percentile(0.95),
            entry.max_response_time,
        )
        for (name, kind), entry in sorted(environment.stats.entries.items())
        if entry.num_requests or entry.num_failures
    ]


def figures(environment: Environment, rows: list[Row]) -> list[str]:
    """What happened, as lines for people."""
    total = environment.stats.total
    head = f"{environment.host}: {total.num_requests} requests, {total.total_rps:.1f} a second"
    lines = [f"{head}, {total.num_failures} failures"]
    titles = {FIRST_TOKEN: "first token", CHUNK_GAP: "chunk gap", MONEY_REFUSED: "money refused"}
    for kind in sorted({row.kind for row in rows}, key=lambda one: one in OWN_KINDS):
        lines += [
            f"  {titles.get(kind, 'answer'):<13} {row.name:<44} {row.count:>8}  p50 {row.p50_ms:>5.0f} ms"
            f"  p95 {row.p95_ms:>5.0f} ms  max {row.max_ms:>6.0f} ms"
            for row in rows
            if row.kind == kind
        ]
    return lines


# -- the books -----------------------------------------------------------------------------------------------


def books(options: Namespace) -> Books:
    """The upstream's count and Farebox's charges now."""
    done = _farebox(options, "audit", "--json")
    if not done.stdout:
        sys.exit(f"farebox audit: {done.stderr.strip()}")
    return Books(_upstream(options)["received"], json.loads(done.stdout)["charges"])


def agreement_in_time(before: Books, options: Namespace) -> tuple[bool, str]:
    """The agreement as soon as there is one, or what is wrong when the time is up."""
    ends_s = time.monotonic() + WAIT_S
    while True:
        is_agreed, line = agreement(before, books(options))
        if is_agreed or time.monotonic() > ends_s:
            return is_agreed, line
        time.sleep(1.0)


def agreement(before: Books, after: Books) -> tuple[bool, str]:
    """Whether every exchange the upstream had is charged once, and a line that says so."""
    served, charges = after.served - before.served, after.charges - before.charges
    verdict = "agree" if served == charges else "DIFFER"
    return served == charges, f"upstream's log and charges {verdict}: {served} exchanges, {charges} charges"


def verified(options: Namespace) -> tuple[bool, str]:
    """Whether `farebox verify` is clean once what is settled is booked, and its verdict in its own words."""
    if not options.farebox_config:
        return True, "verify: not asked for (--farebox-config FILE)"
    done = _farebox(options, "verify", "--wait", str(WAIT_S))
    said = (done.stdout.strip() or done.stderr.strip() or "said nothing").splitlines()
    return done.returncode == 0, said[-1]


def _farebox(options: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A farebox command on the configuration under test; the program beside this Python comes first."""
    program = shutil.which("farebox", path=str(Path(sys.executable).parent)) or shutil.which("farebox")
    if program is None:
        return subprocess.CompletedProcess((), 1, "", "the farebox command is not installed here")
    command = [program, *arguments, "--config", options.farebox_config]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _upstream(options: Namespace) -> dict[str, Any]:
    """The scripted upstream's totals; ends the run where it cannot be asked."""
    address = f"{options.scripted_upstream.rstrip('/')}/_log?lines=0"
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return dict(json.loads(answer.read()))
    except OSError as error:
        sys.exit(f"{address} does not answer: {error}")
