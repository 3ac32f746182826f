"""The verdict of the bank test: what the store holds against what clients and upstream saw.

Every host is stopped in order first; journals that nobody took are brought to their end as an operator or the
writer would (`adopt`). Then nothing may be pending, leased or parked, and every cent must be explained.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.traffic import Bank
from farebox.base.units import pico_from_usd
from farebox.store.base import Store
from farebox.writer.adopt import adopt
from farebox.writer.journals import journal_paths
from farebox.writer.service import Writer
from farebox.writer.verify import verify

PICO_PER_TOKEN: Mapping[str, Mapping[str, int]] = {
    "/v1/chat/completions": {"input": 1_312_500, "output": 10_500_000, "cache_read": 131_250},
    "/v1/messages": {"input": 3_150_000, "output": 15_750_000, "cache_read": 315_000},
}
"""The demonstration's prices times its multiplier, in pico-USD a token."""


@dataclass(slots=True)
class Verdict:
    """`wrong` is empty when not a cent is lost, invented or unexplained; `figures` are for people."""

    wrong: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)

    def tell(self) -> int:
        """Print it for people; the exit status of a command."""
        for name, value in self.figures.items():
            sys.stdout.write(f"{name}: {value}\n")
        for wrong in self.wrong[:100]:
            sys.stdout.write(f"WRONG: {wrong}\n")
        sys.stdout.write(
            f"{len(self.wrong)} faults\n" if self.wrong else "not a cent lost, invented or unexplained\n"
        )
        return 1 if self.wrong else 0


async def bring_to_an_end(store: Store, roots: Iterable[Path]) -> list[str]:
    """Recover, apply and retire every journal; what could not be."""
    failed = []
    for root in roots:
        writer = Writer(store, root)
        running = asyncio.create_task(writer.run())
        done = {path: await adopt(path, store, "bank") for path in journal_paths(root)}
        failed += [f"journal {path} was not applied in time" for path, applied in done.items() if not applied]
        writer.stop()
        await running
    return failed


async def judge(bank: Bank, roots: Iterable[Path], upstream: list[dict[str, Any]]) -> Verdict:
    """Call with every process ended. `upstream`: the lines of its own log."""
    verdict = Verdict()
    roots = list(roots)
    verdict.wrong += await bring_to_an_end(bank.store, roots)
    for root in roots:
        report = await verify(bank.store, root)
        verdict.wrong += report.differences
        verdict.wrong += [f"pending: {one}" for one in report.pending.items()]
        verdict.wrong += [f"parked: {one}" for one in report.parked]
    verdict.wrong += bank.below_zero
    logs, spent = await _books(bank, verdict)
    _check_delivered(bank, logs, spent, upstream, verdict)
    _check_upstream(logs, upstream, verdict)
    evidence = Counter(str(log["evidence"]) for log in logs.values())
    verdict.figures |= {
        "charges": len(spent),
        "charged USD": sum(spent.values()) / 10**12,
        "evidence": dict(evidence),
        "delivered": len(bank.delivered),
        "upstream exchanges": len(upstream),
        "balances read": bank.balances_read,
    }
    return verdict


async def _books(bank: Bank, verdict: Verdict) -> tuple[dict[str, Mapping[str, object]], Counter[str]]:
    """Request-log rows and charges by exchange; every user's money adds up with what he was given."""
    logs: dict[str, Mapping[str, object]] = {}
    spent: Counter[str] = Counter()
    written_off = 0
    for user in bank.users:
        found = await bank.store.account_with_rows(user)
        assert found is not None
        account, rows = found
        credited = sum(row.amount_pico for row in rows if row.type == "earned_bonus")
        if credited != bank.credited[user]:
            verdict.wrong.append(f"{user} was credited {bank.credited[user]}, the store says {credited}")
        for row in rows:
            if row.type == "spent":
                spent[row.reference] -= row.amount_pico
        if any(lot.leased_pico for lot in account.lots):
            verdict.wrong.append(f"{user} has money leased to nobody: {account.lots}")
        written_off += account.written_off_pico
        for log in await bank.store.request_logs(user, 10**9):
            if log["outcome"] != "refused":
                logs[str(log["_id"])] = log
    verdict.figures["written off USD"] = written_off / 10**12
    if set(spent) != set(logs):
        difference = sorted(set(spent) ^ set(logs))[:5]
        verdict.wrong.append(f"charges and request logs differ: {difference}")
    return logs, spent


def _check_delivered(
    bank: Bank,
    logs: Mapping[str, Mapping[str, object]],
    spent: Counter[str],
    upstream: list[dict[str, Any]],
    verdict: Verdict,
) -> None:
    """Every answer that arrived whole is charged once, at the price of what the upstream says it served."""
    served = {line["id"]: line for line in upstream}
    twice = [one for one, count in Counter(d.exchange for d in bank.delivered).items() if count > 1]
    verdict.wrong += [f"two answers are exchange {one}" for one in twice]
    for one in bank.delivered:
        line = served.get(one.upstream)
        if line is None:
            verdict.wrong.append(f"{one.exchange}: the upstream does not know {one.upstream}")
        elif one.exchange not in spent:
            verdict.wrong.append(f"{one.exchange} was delivered and never charged")
        elif spent[one.exchange] != (price := _price_pico(line)):
            verdict.wrong.append(f"{one.exchange} cost {price}, {spent[one.exchange]} was charged")
        elif logs[one.exchange]["evidence"] != "exact":
            verdict.wrong.append(f"{one.exchange} was delivered, its evidence is not exact")


def _check_upstream(
    logs: Mapping[str, Mapping[str, object]], upstream: list[dict[str, Any]], verdict: Verdict
) -> None:
    """Whatever the upstream served is settled; what is charged as exact is what it served, once."""
    served = {line["id"]: line for line in upstream}
    if len(served) != len(upstream):
        verdict.wrong.append("the upstream's log names an exchange twice")
    known = Counter(str(log["upstreamRequestId"]).removeprefix("req_") for log in logs.values())
    unnamed = known.pop("", 0)
    verdict.wrong += [
        f"{count} charges for {one} of the upstream" for one, count in known.items() if count > 1
    ]
    verdict.wrong += [
        f"a charge for {one}, which the upstream never served" for one in known if one not in served
    ]
    unsettled = sum(one not in known for one in served)
    verdict.figures["settled without the upstream's id"] = unnamed
    if unsettled > unnamed:
        verdict.wrong.append(f"{unsettled - unnamed} exchanges of the upstream have no settlement")
    for exchange, log in logs.items():
        line = served.get(str(log["upstreamRequestId"]).removeprefix("req_"))
        if line is None or log["evidence"] != "exact":
            continue
        charged = pico_from_usd(str(log["charge"]))
        if charged != _price_pico(line):
            verdict.wrong.append(f"{exchange} is exact, costs {_price_pico(line)} and was charged {charged}")


def _price_pico(line: Mapping[str, Any]) -> int:
    prices = PICO_PER_TOKEN[line["route"]]
    return sum(prices[kind] * count for kind, count in line["usage"].items() if count)
