"""Everything that is known of one charge: what was used, the price lines, the amount, and which money paid.

Pure reading: the command line, the operator's pages and a user's own show the same of it.
"""

from collections.abc import Mapping
from typing import Any

from farebox.base.errors import UsageError
from farebox.base.records import Transaction
from farebox.base.units import moment, usd_from_pico
from farebox.credits.accounts import unknown_user
from farebox.meter import Charge, from_plain
from farebox.store.base import Store
from farebox.writer.audit import input_tokens, recomputed_pico

_PAGE_ROWS = 500


async def explained(store: Store, exchange: str, user: str = "") -> dict[str, Any]:
    """Everything that is known of an exchange's charge. Raises UsageError when it is not known."""
    log = await store.request_log(exchange)
    owner = user or str((log or {}).get("userId", ""))
    if not owner:
        raise UsageError(f"no exchange {exchange!r} in the request log; name its owner with --user")
    if await store.account(owner) is None:
        raise UsageError(unknown_user(owner))
    rows = await _rows_of(store, owner, exchange)
    charge = next((row.charge for row in rows if row.charge), None)
    if charge is None:
        raise UsageError(
            f"exchange {exchange!r} of {owner} has no ledger row (yet); was it refused, or is it parked?"
        )
    lines, recomputed = await _recomputed(store, charge)
    return {
        "exchange": exchange,
        "user": owner,
        **{
            name: charge[name]
            for name in ("model", "wire_format", "evidence", "flags", "counts", "multiplier")
        },
        "price_version": charge["price_version"],
        "amount": usd_from_pico(_int(charge["amount_pico"])),
        "lines": lines,
        "recomputed": recomputed,
        "transactions": [row_document(row) for row in rows],
        "log": dict(log) if log else None,
    }


async def _rows_of(store: Store, user: str, exchange: str) -> list[Transaction]:
    """The ledger rows of an exchange: they are booked together, so they are neighbours."""
    before, found = "", []
    while page := await store.transactions(user, _PAGE_ROWS, before):
        rows = [row for row in page if row.reference == exchange]
        found += rows
        if found and page[-1].reference != exchange:
            break
        before = page[-1].id
    return found


async def _recomputed(store: Store, charge: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The charge's price lines, and its amount computed anew ("" where its price book is gone)."""
    stored = await store.price_book(charge["price_version"])
    if stored is None:
        return [], ""
    book = from_plain(stored)
    main = {charge["model"]: charge["counts"]} if charge["counts"] else {}
    lines: list[dict[str, Any]] = []
    for model, counts in {**main, **charge["others"]}.items():
        total = charge["input_total"] if model == charge["model"] else input_tokens(counts)
        lines += charge_lines(book.models[model].price.charge(dict(counts), total, charge["variant"] or None))
    return lines, usd_from_pico(recomputed_pico(charge, book))


def row_document(row: Transaction) -> dict[str, Any]:
    """A ledger row for programs; amounts are decimal strings of USD."""
    return {
        "id": row.id,
        "type": row.type,
        "pool": row.pool,
        "amount": usd_from_pico(row.amount_pico),
        "reference": row.reference,
        "cause": row.cause,
        "lots": [{"lot": part.lot, "amount": usd_from_pico(part.amount_pico)} for part in row.lots],
        "created_at": moment(row.created_ms),
    }


def charge_lines(charge: Charge) -> list[dict[str, Any]]:
    """The price lines of a charge: exact USD per line, before the multiplier."""
    return [
        {"kind": kind, "count": count, "price": price, "amount": amount}
        for kind, count, price, amount in charge.lines
    ]


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
