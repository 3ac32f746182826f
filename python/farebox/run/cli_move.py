"""`farebox wallet grant|adjust|transfer|undo`: credit that an operator moves.

Every move is one transaction of the store under a reference: a command repeated with the same reference
changes nothing, `--dry-run` shows the ledger rows, `undo` takes a move back, and running workers hear of all
of it at once.
"""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

import typer

from farebox.base.clock import wall_ms
from farebox.base.errors import UsageError
from farebox.base.ids import new_lot_id
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.credits.accounts import unknown_user
from farebox.credits.moves import Move
from farebox.credits.transfers import Outcome, perform, undo
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, actor, place_of, with_store
from farebox.run.durations import expiry_ms
from farebox.store.base import EventResult, Store

UserArgument = Annotated[str, typer.Argument(metavar="USER")]
PoolOption = Annotated[str, typer.Option(help="credits, refCredits, creditsNew, credits_permanent, ...")]
AmountOption = Annotated[str, typer.Option(help="USD as a decimal, at most 12 places.")]
ReferenceOption = Annotated[str, typer.Option(help="Makes a repeat harmless; default: a fresh one.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the ledger row.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the ledger rows, book nothing.")]
ExpiresOption = Annotated[str, typer.Option(help="When it ends: 7d, 12h, or a date; default: never.")]


def wallet_grant(
    user: UserArgument,
    pool: PoolOption,
    amount: AmountOption,
    expires: ExpiresOption = "",
    reference: ReferenceOption = "",
    reason: ReasonOption = "granted by an operator",
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give credit, as a lot of its own."""
    ends_ms = expiry_ms(expires, wall_ms())
    key = reference or new_lot_id()
    move = Move("grant", key, user, pool, _pico(amount), reason, actor(), expires_at_ms=ends_ms)
    _make(move, dry_run, config, store, as_json)


def wallet_adjust(
    user: UserArgument,
    pool: PoolOption,
    amount: AmountOption,
    reason: ReasonOption,
    reference: ReferenceOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct a balance, up (5) or down (--amount=-5)."""
    move = Move("correction", reference or new_lot_id(), user, pool, _pico(amount), reason, actor())
    _make(move, dry_run, config, store, as_json)


def wallet_transfer(
    user: UserArgument,
    receiver: Annotated[str, typer.Argument(metavar="TO-USER")],
    pool: PoolOption,
    amount: AmountOption,
    to_pool: Annotated[str, typer.Option(help="Default: the same pool.")] = "",
    rate: Annotated[str, typer.Option(help="What one USD taken becomes over there.")] = "1",
    reference: ReferenceOption = "",
    reason: ReasonOption = "transfer by an operator",
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move credit to another user or pool; it ends when the first of what was given would have."""
    move = Move(
        kind="transfer",
        key=reference or new_lot_id(),
        user=user,
        pool=pool,
        amount_pico=_pico(amount),
        reason=reason,
        actor=actor(),
        to_user=receiver,
        to_pool=to_pool or pool,
        rate=_rate(rate),
    )
    _make(move, dry_run, config, store, as_json)


def wallet_undo(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="Of a grant, correction, transfer.")],
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a move back by counter-transactions, as far as its money is still there."""
    place = place_of(config, store)

    async def take_back(s: Store) -> Outcome:
        return await undo(s, reference, reason, actor(), wall_ms(), dry_run=dry_run)

    outcome = with_store(place, take_back)
    if outcome.result in {EventResult.SHORT, EventResult.STALE, EventResult.PARKED}:
        raise UsageError(f"{reference}: its users' money is in use, or parked; try again in a moment")
    _show(outcome, {"reference": reference, "result": outcome.result.value}, dry_run, as_json)


MOVES: Final[dict[str, Callable[..., None]]] = {
    "grant": wallet_grant,
    "adjust": wallet_adjust,
    "transfer": wallet_transfer,
    "undo": wallet_undo,
}
"""Command of `farebox wallet` -> what it does."""


def _make(move: Move, dry_run: bool, config: ConfigOption, store: StoreOption, as_json: bool) -> None:
    place = place_of(config, store)
    outcome = with_store(place, lambda s: perform(s, move, wall_ms(), dry_run=dry_run))
    amount = usd_from_pico(move.amount_pico)
    if outcome.result is EventResult.UNKNOWN_USER:
        raise UsageError(unknown_user(move.user))
    if outcome.result is EventResult.PARKED:
        raise UsageError(f"{move.user} is parked: `farebox verify` says why")
    if outcome.result in {EventResult.SHORT, EventResult.STALE}:
        raise UsageError(
            f"{move.user} has less than {amount.lstrip('-')} USD that is neither leased nor expired"
        )
    document = {"user": move.user, "reference": move.key, "amount": amount, "result": outcome.result.value}
    _show(outcome, document, dry_run, as_json)


def _show(outcome: Outcome, document: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    rows = [(row.user, row.type, row.pool, usd_from_pico(row.amount_pico), row.cause) for row in outcome.rows]
    names = ("user", "type", "pool", "amount")
    listed = [dict(zip(names, row[:4], strict=True)) for row in rows]
    said = "booked" if outcome.result is EventResult.DONE else "booked already, nothing changed"
    title = "nothing was booked: these would be the ledger rows" if dry_run else said
    if "reference" in document:
        title += f"; reference {document['reference']}"
    shown = table("", (*names, "cause"), rows, right=("amount",))
    answer({**document, "dry_run": dry_run, "rows": listed}, as_json, title, shown)


def _rate(text: str) -> Decimal:
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal(0)
    if not rate.is_finite() or not 0 < rate <= 10**6:
        raise UsageError(f"{text!r} is no rate; write a decimal above 0")
    return rate


def _pico(amount: str) -> int:
    try:
        return pico_from_usd(amount)
    except ValueError as error:
        raise UsageError(str(error)) from None
