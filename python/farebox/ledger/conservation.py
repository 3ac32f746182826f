"""The checks of M1 and M2 on one user, for verify and for tests.

Written apart from the code that moves money and sharing nothing with it: sums over plain values, so that a
mistake there cannot excuse itself here.
"""

from collections import Counter
from collections.abc import Iterable

from farebox.base.records import Account, Transaction


def differences(account: Account, rows: Iterable[Transaction]) -> list[str]:
    """Every way in which one snapshot of a user and his ledger rows does not add up; empty when all is
    well.
    """
    return [
        *_rows_twice(account, rows := list(rows)),
        *_balances(account, rows),
        *_leased(account),
        *_negatives(account),
    ]


def _rows_twice(account: Account, rows: list[Transaction]) -> list[str]:
    counts = Counter(row.id for row in rows)
    found = [f"M4 row {one} is there {count} times" for one, count in sorted(counts.items()) if count > 1]
    return found + [f"M1 row {row.id} belongs to another user" for row in rows if row.user != account.user]


def _balances(account: Account, rows: list[Transaction]) -> list[str]:
    pools = {
        *account.balances,
        *account.seen,
        *(lot.pool for lot in account.lots),
        *(row.pool for row in rows),
    }
    found = []
    for pool in sorted(pools):
        balance = account.balances.get(pool, 0)
        shadow = account.seen.get(pool, 0)
        row_sum = sum(row.amount_pico for row in rows if row.pool == pool)
        lot_sum = sum(lot.left_pico for lot in account.lots if lot.pool == pool)
        if balance != row_sum:
            found.append(f"M1 {account.user} {pool}: balance {balance}, sum of rows {row_sum}")
        if balance != lot_sum:
            found.append(f"M1 {account.user} {pool}: balance {balance}, sum of lots {lot_sum}")
        if balance != shadow:
            found.append(
                f"M1 {account.user} {pool}: balance {balance}, shadow {shadow}: written from outside"
            )
    return found


def _leased(account: Account) -> list[str]:
    outside: dict[str, int] = {}
    for amounts in (*(entry.lots for entry in account.leases.values()), *account.reserved.values()):
        for lot, amount in amounts.items():
            outside[lot] = outside.get(lot, 0) + amount
    found = [
        f"M2 {account.user} lot {lot.lot}: leased {lot.leased_pico}, in leases and reserved "
        f"{outside.get(lot.lot, 0)}"
        for lot in account.lots
        if lot.leased_pico != outside.get(lot.lot, 0)
    ]
    known = {lot.lot for lot in account.lots}
    return found + [
        f"M2 {account.user} lot {lot}: {amount} leased of a lot that does not exist"
        for lot, amount in sorted(outside.items())
        if amount and lot not in known
    ]


def _negatives(account: Account) -> list[str]:
    found = [f"M2 {account.user} {pool}: balance {b}" for pool, b in account.balances.items() if b < 0]
    found += [
        f"M2 {account.user} lot {lot.lot}: left {lot.left_pico}, leased {lot.leased_pico}"
        for lot in account.lots
        if not 0 <= lot.leased_pico <= lot.left_pico
    ]
    for name, amounts in (
        *((f"lease of {journal}", entry.lots) for journal, entry in account.leases.items()),
        *((f"reserved by {exchange}", lots) for exchange, lots in account.reserved.items()),
    ):
        found += [
            f"M2 {account.user} {name}: lot {lot} {amount}" for lot, amount in amounts.items() if amount < 0
        ]
    return found
