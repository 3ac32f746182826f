"""Streams that run for a quarter of an hour through nginx, while the workers behind it are replaced.

    python tests/e2e/long_streams.py --seconds 900 --replace-every 60

`make long-streams` runs it; `test_domains.py` runs a short form. One stream of each wire format on
each domain says a word a second; beside them a client asks for short answers. Promise: every stream arrives
whole and as it is written, no request is refused, and each exchange is charged once and exactly.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from e2e.deployment import Customer
from e2e.domains import CHAT, CHAT2, Domains, request_head
from farebox.run.demo.processes import wait_until

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
MODELS = {"chat": "gpt-5.1", "messages": "claude-haiku-4-5"}
ENDS = {"chat": b"data: [DONE]", "messages": b"event: message_stop"}
REPLACED = "all workers are replaced"


@dataclass
class Stream:
    """One stream, read by a thread of its own."""

    domains: Domains
    domain: str
    wire_format: str
    key: str
    words: int
    interval_s: float
    received: bytes = b""
    gap_s: float = 0.0
    """The longest time between two pieces."""
    thread: threading.Thread = field(default_factory=threading.Thread)

    def start(self) -> None:
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        script = {"prompt": 10, "completion": self.words, "chunks": self.words}
        script["delay_ms"] = int(1000 * self.interval_s)
        body = json.dumps(asked(self.wire_format, script, stream=True, tokens_max=self.words + 1)).encode()
        head = request_head(self.domain, "POST", PATHS[self.wire_format], len(body), self.key)
        with self.domains.open(self.domain) as connection:
            connection.settimeout(60.0 + 10 * self.interval_s)
            connection.sendall(head + body)
            latest_s = 0.0
            while data := connection.recv(65536):
                now_s = time.monotonic()
                self.gap_s = max(self.gap_s, now_s - latest_s if latest_s else 0.0)
                latest_s = now_s
                self.received += data

    def is_whole(self) -> bool:
        """Whether every word and the end have come."""
        return self.received.count(b"word") >= self.words and ENDS[self.wire_format] in self.received


@dataclass
class Report:
    """What happened, and every way in which it was not as promised."""

    figures: dict[str, object] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def asked(wire_format: str, script: dict[str, int], *, stream: bool, tokens_max: int) -> dict[str, object]:
    messages = [{"role": "user", "content": f"script: {json.dumps(script)}"}]
    return {
        "model": MODELS[wire_format],
        "max_tokens": tokens_max,
        "stream": stream,
        "messages": messages,
    }


def run(
    domains: Domains, customer: Customer, *, words: int, interval_s: float, replace_every_s: float
) -> Report:
    """Streams of so many words; `customer` pays for everything, and for nothing else before or after."""
    report = Report()
    streams = [
        Stream(domains, domain, wire_format, customer.key, words, interval_s)
        for domain in (CHAT, CHAT2)
        for wire_format in PATHS
    ]
    for stream in streams:
        stream.start()
    statuses, replacements = _meanwhile(domains, customer, streams, replace_every_s)
    for stream in streams:
        stream.thread.join()
        if not stream.is_whole():
            count = stream.received.count(b"word")
            report.wrong.append(f"{stream.domain} {stream.wire_format}: {count} of {words} words came")
    if set(statuses) != {200}:
        report.wrong.append(f"short requests were answered {dict(statuses)}")
    expected = len(streams) + statuses.total()
    wait_until(lambda: len(domains.logs(customer.user)) >= expected, 30.0)
    rows = domains.logs(customer.user)
    outcomes = Counter((row["outcome"], row["evidence"]) for row in rows)
    if outcomes != Counter({("ok", "exact"): expected}):
        report.wrong.append(f"{expected} exchanges were settled as {dict(outcomes)}")
    charged = {row.reference for row in domains.spent_rows(customer.user)}
    if charged != {str(row["_id"]) for row in rows}:
        report.wrong.append("charges and log rows are not of the same exchanges")
    domains.settled([customer.user], 60.0)
    report.wrong += domains.verified().differences
    report.figures = {
        "streams": len(streams),
        "words each": words,
        "longest gap between two pieces, s": round(max(stream.gap_s for stream in streams), 3),
        "replacements of all workers": replacements,
        "short requests": dict(statuses),
        "charges": len(charged),
    }
    return report


def _meanwhile(
    domains: Domains, customer: Customer, streams: list[Stream], replace_every_s: float
) -> tuple[Counter[int], int]:
    """Short requests and replaced workers until the streams are over; statuses and replacements."""
    statuses: Counter[int] = Counter()
    replacements, next_s = 0, time.monotonic() + replace_every_s
    log = domains.folder / "farebox.log"
    body = asked("chat", {"prompt": 10, "completion": 5}, stream=False, tokens_max=10)
    while any(stream.thread.is_alive() for stream in streams):
        for domain in (CHAT, CHAT2):
            statuses[domains.ask(domain, "POST", PATHS["chat"], body, customer.key)[0]] += 1
        if time.monotonic() >= next_s and log.read_text().count(REPLACED) == replacements:
            replacements += 1
            domains.farebox.send_signal(signal.SIGUSR2)
            next_s = time.monotonic() + replace_every_s
        time.sleep(0.2)
    wait_until(lambda: log.read_text().count(REPLACED) >= replacements, 60.0)
    return statuses, log.read_text().count(REPLACED)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Long streams through nginx while workers are replaced.")
    parser.add_argument("--seconds", type=int, default=900)
    parser.add_argument("--replace-every", type=float, default=60.0, help="seconds")
    options = parser.parse_args()
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin")
    if nginx is None:
        sys.exit("nginx is not installed; `make system-deps` installs it")
    with tempfile.TemporaryDirectory(prefix="f-") as folder, Domains(Path(folder), nginx) as domains:
        customer = domains.customer("long", 1000 * 10**12)
        domains.top_up("long", 1000 * 10**12, "credits", "long")
        report = run(
            domains,
            customer,
            words=options.seconds,
            interval_s=1.0,
            replace_every_s=options.replace_every,
        )
    for name, value in report.figures.items():
        sys.stdout.write(f"{name}: {value}\n")
    for wrong in report.wrong:
        sys.stdout.write(f"WRONG: {wrong}\n")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
