"""Routes of wallets: what a user has and what of it ends when, his ledger, and an operator's moves."""

from collections.abc import Mapping
from typing import cast

from farebox.base import limits
from farebox.base.errors import UsageError
from farebox.base.records import WALLETS, Account, Transaction
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.console.answers import Declined
from farebox.console.input import (
    ActiveInput,
    GrantInput,
    LedgerQuery,
    TransferInput,
)
from farebox.console.routes import ADMINS, READERS, SUPPORTERS, USERS, Call, Route
from farebox.credits.accounts import set_user_active
from farebox.credits.moves import Move
from farebox.credits.transfers import Outcome, perform
from farebox.ledger.lots import is_expired, spend_order
from farebox.store.base import EventResult

Document = Mapping[str, object]

_SAID: Mapping[EventResult, str] = {
    EventResult.SHORT: "there is less unleased money than that",
    EventResult.PARKED: "the account is on hold",
    EventResult.STALE: "something else changed it meanwhile; ask again with the same Idempotency-Key",
}


async def own_wallet(call: Call) -> Document:
    """The caller's balances and lots."""
    return await _wallet(call, call.caller.name)


async def user_wallet(call: Call) -> Document:
    """A user's balances and lots."""
    return await _wallet(call, call.path["user"])


async def own_transactions(call: Call) -> Document:
    """The caller's ledger rows, newest first."""
    return await _transactions(call, call.caller.name)


async def user_transactions(call: Call) -> Document:
    """A user's ledger rows, newest first."""
    return await _transactions(call, call.path["user"])


async def grant(call: Call) -> Document:
    """Give a user credit."""
    return await _granted(call, "grant")


async def adjust(call: Call) -> Document:
    """Correct a user's balance, up or down."""
    return await _granted(call, "correction")


async def transfer(call: Call) -> Document:
    """Move credit between users or pools."""
    body = cast("TransferInput", call.body)
    move = Move(
        kind="transfer",
        key=call.reference,
        user=body.user,
        pool=body.pool,
        amount_pico=pico_from_usd(body.amount),
        reason=body.reason,
        actor=call.caller.actor,
        to_user=body.to_user,
        to_pool=body.to_pool,
    )
    return moved(await perform(call.store, move, call.now_ms, dry_run=body.dry_run), body.dry_run)


async def set_active(call: Call) -> Document:
    """Accept or refuse a user's requests; his money stays."""
    body = cast("ActiveInput", call.body)
    user = call.path["user"]
    await set_user_active(call.store, user, body.active, call.caller.actor, call.now_ms)
    return {"user": user, "active": body.active}


def wallet_view(account: Account, now_ms: int) -> dict[str, object]:
    """Balances by pool and wallet, and every lot with its end, those first that are spent first."""
    return {
        "user": account.user,
        "active": account.is_active,
        "parked": account.parked,
        "pools": {pool: usd_from_pico(amount) for pool, amount in sorted(account.balances.items())},
        "wallets": {
            name: usd_from_pico(sum(account.balances.get(pool, 0) for pool in pools))
            for name, pools in WALLETS.items()
        },
        "lots": [
            {
                "lot": lot.lot,
                "pool": lot.pool,
                "left": usd_from_pico(lot.left_pico),
                "in_use": usd_from_pico(lot.leased_pico),
                "expires_ms": lot.expires_at_ms,
                "expired": is_expired(lot.expires_at_ms, now_ms),
                "source": lot.source,
            }
            for lot in spend_order(account.lots)
            if lot.left_pico
        ],
        "claims": [
            {"reference": claim.reference, "pool": claim.pool, "amount": usd_from_pico(claim.amount_pico)}
            for claim in account.claims
        ],
        "written_off": usd_from_pico(account.written_off_pico),
    }


def transaction_view(row: Transaction) -> dict[str, object]:
    """A ledger row."""
    return {
        "id": row.id,
        "type": row.type,
        "pool": row.pool,
        "amount": usd_from_pico(row.amount_pico),
        "reference": row.reference,
        "cause": row.cause,
        "created_ms": row.created_ms,
    }


ROUTES: tuple[Route, ...] = (
    Route("GET", "/api/wallet", USERS, own_wallet),
    Route("GET", "/api/transactions", USERS, own_transactions, query=LedgerQuery),
    Route("GET", "/api/admin/users/{user}/wallet", READERS, user_wallet),
    Route("GET", "/api/admin/users/{user}/transactions", READERS, user_transactions, query=LedgerQuery),
    Route("POST", "/api/admin/users/{user}/grants", ADMINS, grant, GrantInput),
    Route("POST", "/api/admin/users/{user}/adjustments", ADMINS, adjust, GrantInput),
    Route("POST", "/api/admin/users/{user}/active", SUPPORTERS, set_active, ActiveInput),
    Route("POST", "/api/admin/transfers", ADMINS, transfer, TransferInput),
)


async def _wallet(call: Call, user: str) -> Document:
    account = await call.store.account(user)
    if account is None:
        raise Declined(404, "unknown_user", "there is no such user")
    return wallet_view(account, call.now_ms)


async def _transactions(call: Call, user: str) -> Document:
    if await call.store.account(user) is None:
        raise Declined(404, "unknown_user", "there is no such user")
    limit = max(1, call.number("limit", 50, limits.console_page_max))
    rows = await call.store.transactions(user, limit, call.query.get("before", ""))
    return {"transactions": [transaction_view(row) for row in rows], "next": rows[-1].id if rows else None}


async def _granted(call: Call, kind: str) -> Document:
    body = cast("GrantInput", call.body)
    move = Move(
        kind=kind,
        key=call.reference,
        user=call.path["user"],
        pool=body.pool,
        amount_pico=pico_from_usd(body.amount),
        reason=body.reason,
        actor=call.caller.actor,
        expires_at_ms=body.expires_ms,
    )
    return moved(await perform(call.store, move, call.now_ms), dry_run=False)


def moved(outcome: Outcome, dry_run: bool) -> Document:
    """What became of a move. Raises UsageError where it was not made."""
    if outcome.result not in {EventResult.DONE, EventResult.DUPLICATE}:
        raise UsageError(_SAID.get(outcome.result, f"not booked: {outcome.result.value}"))
    return {
        "result": "dry_run" if dry_run else outcome.result.value,
        "key": outcome.record.id if outcome.record is not None else None,
        "transactions": [transaction_view(row) for row in outcome.rows],
    }
