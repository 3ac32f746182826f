"""The checks of M1 and M2 on one user, for verify and for tests.

Written apart from the code that moves money and sharing nothing with it: sums over plain values, so that a
mistake there cannot excuse itself here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from farebox.base.records import Account, Transaction


class Finding(NamedTuple):
    """One thing that does not add up.

    `kind` names it for whoever mends it, `delta_pico` is how much money is in question (not negative),
    `values` are the names and amounts in `text`.
    """

    kind: str
    text: str
    delta_pico: int
    values: Mapping[str, object]


def differences(account: Account, rows: Iterable[Transaction]) -> list[str]:
    """Every way in which one snapshot of a user and his ledger rows does not add up; empty when all is
    well.
    """
    rows = list(rows)
    sums: dict[str, int] = {}
    for row in rows:
        sums[row.pool] = sums.get(row.pool, 0) + row.amount_pico
    return [*_rows_twice(account, rows), *(finding.text for finding in findings(account, sums))]


def findings(account: Account, row_sums: Mapping[str, int]) -> Iterator[Finding]:
    """The same with his ledger rows summed by pool, where there are too many of them to hold."""
    yield from _balances(account, row_sums)
    yield from _leased(account)
    yield from _negatives(account)


def _rows_twice(account: Account, rows: list[Transaction]) -> list[str]:
    counts = Counter(row.id for row in rows)
    found = [f"M4 row {one} is there {count} times" for one, count in sorted(counts.items()) if count > 1]
    return found + [f"M1 row {row.id} belongs to another user" for row in rows if row.user != account.user]


def _balances(account: Account, row_sums: Mapping[str, int]) -> Iterator[Finding]:
    user = account.user
    pools = {*account.balances, *account.seen, *(lot.pool for lot in account.lots), *row_sums}
    for pool in sorted(pools):
        balance = account.balances.get(pool, 0)
        for kind, name, other in (
            ("rows", "sum of rows", row_sums.get(pool, 0)),
            ("lots", "sum of lots", sum(lot.left_pico for lot in account.lots if lot.pool == pool)),
            ("shadow", "shadow", account.seen.get(pool, 0)),
        ):
            if balance != other:
                outside = ": written from outside" if kind == "shadow" else ""
                yield Finding(
                    kind,
                    f"M1 {user} {pool}: balance {balance}, {name} {other}{outside}",
                    abs(balance - other),
                    {"user": user, "pool": pool, "balance": balance, "other": other},
                )


def _leased(account: Account) -> Iterator[Finding]:
    user = account.user
    outside: dict[str, int] = {}
    for amounts in (*(entry.lots for entry in account.leases.values()), *account.reserved.values()):
        for lot, amount in amounts.items():
            outside[lot] = outside.get(lot, 0) + amount
    for one in account.lots:
        held = outside.pop(one.lot, 0)
        if one.leased_pico != held:
            yield Finding(
                "leased",
                f"M2 {user} lot {one.lot}: leased {one.leased_pico}, in leases and reserved {held}",
                abs(one.leased_pico - held),
                {"user": user, "lot": one.lot, "leased": one.leased_pico, "held": held},
            )
    for lot, amount in sorted(outside.items()):
        if amount:
            text = f"M2 {user} lot {lot}: {amount} leased of a lot that does not exist"
            yield Finding("no lot", text, abs(amount), {"user": user, "lot": lot})


def _negatives(account: Account) -> Iterator[Finding]:
    user = account.user
    for pool, balance in account.balances.items():
        if balance < 0:
            text = f"M2 {user} {pool}: balance {balance}"
            yield Finding("below zero", text, -balance, {"user": user})
    for lot in account.lots:
        if not 0 <= lot.leased_pico <= lot.left_pico:
            text = f"M2 {user} lot {lot.lot}: left {lot.left_pico}, leased {lot.leased_pico}"
            beyond_pico = max(-lot.leased_pico, lot.leased_pico - lot.left_pico)
            yield Finding("below zero", text, beyond_pico, {"user": user})
    for name, amounts in (
        *((f"lease of {journal}", entry.lots) for journal, entry in account.leases.items()),
        *((f"reserved by {exchange}", lots) for exchange, lots in account.reserved.items()),
    ):
        for one, amount in amounts.items():
            if amount < 0:
                yield Finding("below zero", f"M2 {user} {name}: lot {one} {amount}", -amount, {"user": user})
