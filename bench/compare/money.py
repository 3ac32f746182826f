"""Does the money survive? Three experiments with a key and a quota, the same for every metered gateway.

A: a quota for 5 requests, 200 sent at once. B: a quota for 220, 2,000 sent, 500 at once. C: `kill -9` of
everything right after the 500th answer, start again: how many of the answered requests are charged. Right are
at most as many answers as the quota pays for, a charge for each answer, and a balance that is not below 0.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import aiohttp

import rig
from compare.peer import MONEY_REQUEST, Books, MeteredPeer, Running, kill_everything

ANSWER_LIMIT_S = 120
BOOKS_LIMIT_S = 60
OK = 200


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is asked of a key: how many requests its money pays for, how many are sent, how many at once."""

    letter: str
    affordable: int
    sent: int
    at_once: int
    is_killed: bool = False


A = Experiment("A", affordable=5, sent=200, at_once=200)
B = Experiment("B", affordable=220, sent=2000, at_once=500)
C = Experiment("C", affordable=5000, sent=500, at_once=50, is_killed=True)
EXPERIMENTS = (A, B, C)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one experiment."""

    experiment: Experiment
    answered: int
    served: int
    """Requests that reached the upstream: what the operator pays for."""
    statuses: dict[int, int]
    """By HTTP status; 0: no answer."""
    books: Books


def perform(
    peer: MeteredPeer, running: Running, the_rig: rig.Rig, asked: Experiment
) -> tuple[Outcome, Running]:
    """Make one experiment with a new key; the outcome, and the gateway as it runs now."""
    key = peer.new_key(asked.affordable)
    served_before = the_rig.served()["received"]
    headers = {**running.headers, "authorization": f"Bearer {key}"}
    with rig.on_core(the_rig.load_core):
        statuses = asyncio.run(burst(running.port, headers, asked.sent, asked.at_once))
    if asked.is_killed:
        kill_everything(the_rig, running.process)
        running = peer.start(the_rig)
    books = final_books(peer, key)
    served = the_rig.served()["received"] - served_before
    return Outcome(asked, statuses[OK], served, dict(statuses), books), running


async def burst(port: int, headers: dict[str, str], count: int, at_once: int) -> Counter[int]:
    """Send `count` requests, `at_once` of them in flight; how often each status came, 0 for none."""
    statuses: Counter[int] = Counter()
    left = iter(range(count))
    url = f"http://127.0.0.1:{port}{rig.PATH}"
    headers = {"content-type": "application/json", **headers}

    async def client(session: aiohttp.ClientSession) -> None:
        for _ in left:
            try:
                async with session.post(url, data=MONEY_REQUEST, headers=headers) as answer:
                    await answer.read()
                    statuses[answer.status] += 1
            except (aiohttp.ClientError, TimeoutError):
                statuses[0] += 1

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(client(session) for _ in range(at_once)))
    return statuses


def final_books(peer: MeteredPeer, key: str) -> Books:
    """The books once they have not changed for the peer's own lag."""
    books, same_since_s = peer.books(key), time.monotonic()
    ends_s = same_since_s + BOOKS_LIMIT_S
    while time.monotonic() < min(same_since_s + peer.books_lag_s, ends_s):
        time.sleep(0.3)
        found = peer.books(key)
        if found != books:
            books, same_since_s = found, time.monotonic()
    return books


def told(outcome: Outcome) -> str:
    """An outcome in a cell of the table, with what is wrong with it."""
    asked, books = outcome.experiment, outcome.books
    if asked.is_killed:
        missing = outcome.answered - books.billed
        return f"{books.billed} of {outcome.answered}" + (f" ({missing} lost)" if missing > 0 else "")
    unpaid = outcome.answered - asked.affordable
    words = [f"{outcome.answered} ({unpaid} unpaid)" if unpaid > 0 else f"{outcome.answered}"]
    if books.billed != outcome.answered:
        words.append(f"{books.billed} charged")
    if books.balance < 0:
        words.append(f"balance {in_requests(books.balance)}")
    return ", ".join(words)


def in_requests(amount: Fraction) -> str:
    """A balance in prices of one request, to a tenth."""
    return f"{float(amount):.1f}"
