"""`farebox wallet`: what a user has, and the money events an operator causes.
 Every change is one transaction of the store with a reference, so that a command repeated with the same
reference changes nothing, and running workers hear of it at once.
"""

from typing import Annotated, Any

import typer

from farebox.base.clock import wall_ms
from farebox.base.errors import InvariantBrokenError, UsageError
from farebox.base.ids import new_lot_id
from farebox.base.records import WALLETS, Account, Claim
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.credits.accounts import unknown_user
from farebox.credits.debits import debit
from farebox.credits.events import adjustment_event, grant_event, transfer_event
from farebox.run.cli_output import answer, moment, table
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, actor, place_of, with_store
from farebox.run.durations import expiry_ms
from farebox.store.base import Event, EventResult, Store

wallet_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

UserArgument = Annotated[str, typer.Argument(metavar="USER")]
PoolOption = Annotated[str, typer.Option(help="credits, refCredits, creditsNew, credits_permanent, ...")]
AmountOption = Annotated[str, typer.Option(help="USD as a decimal, at most 12 places.")]
ReferenceOption = Annotated[str, typer.Option(help="Makes a repeat harmless; default: a fresh one.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the ledger row.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(wallet_app, name="wallet", help="Balances, and money in and out of them.")


@wallet_app.command("show")
def wallet_show(
    user: UserArgument, config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """A user's pools, lots and leases."""
    account = with_store(place_of(config, store), lambda s: s.account(user))
    if account is None:
        raise UsageError(unknown_user(user))
    rows = [
        (
            lot.pool,
            usd_from_pico(lot.left_pico),
            usd_from_pico(lot.leased_pico),
            moment(lot.expires_at_ms),
            lot.source,
            lot.lot,
        )
        for lot in account.lots
    ]
    columns = ("pool", "left USD", "leased USD", "expires", "source", "lot")
    lots = table("", columns, rows, right=("left USD", "leased USD"))
    wallets = {name: sum(account.balances.get(pool, 0) for pool in pools) for name, pools in WALLETS.items()}
    line = "  ".join(f"{name} {usd_from_pico(amount)}" for name, amount in wallets.items())
    notes = [f"parked: {account.parked}"] if account.parked else []
    answer(wallet_document(account), as_json, f"{user}  {line} USD", lots, *notes)


@wallet_app.command("grant")
def wallet_grant(
    user: UserArgument,
    pool: PoolOption,
    amount: AmountOption,
    expires: Annotated[str, typer.Option(help="When it ends: 7d, 12h, or a date; default: never.")] = "",
    reference: ReferenceOption = "",
    reason: ReasonOption = "granted by an operator",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give credit, as a lot of its own."""
    now_ms = wall_ms()
    ends_ms = expiry_ms(expires, now_ms)
    named = reference or new_lot_id()
    event = grant_event(user, pool, _pico(amount), named, reason, ends_ms, actor(), now_ms)
    _book(place_of(config, store), event, named, as_json)


@wallet_app.command("adjust")
def wallet_adjust(
    user: UserArgument,
    pool: PoolOption,
    amount: AmountOption,
    reason: ReasonOption,
    reference: ReferenceOption = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct a balance, up (5) or down (--amount=-5)."""
    named = reference or new_lot_id()
    event = adjustment_event(user, pool, _pico(amount), named, reason, actor(), wall_ms())
    _book(place_of(config, store), event, named, as_json)


@wallet_app.command("transfer")
def wallet_transfer(
    user: UserArgument,
    receiver: Annotated[str, typer.Argument(metavar="TO-USER")],
    pool: PoolOption,
    amount: AmountOption,
    to_pool: Annotated[str, typer.Option(help="Default: the same pool.")] = "",
    reference: ReferenceOption = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move credit to another user or pool; it ends when the first of what was given would have."""
    amount_pico, named = _pico(amount), reference or new_lot_id()

    async def move(s: Store) -> EventResult:
        if reference and await _is_moved(s, user, pool, named, amount_pico):
            return EventResult.DUPLICATE
        to = to_pool or pool
        return await debit(
            s,
            user,
            Claim(named, pool, None, amount_pico),
            lambda: _transfer_once(s, user, receiver, pool, to, amount_pico, named),
        )

    result = with_store(place_of(config, store), move)
    _report(result, user, named, amount_pico, as_json)


@wallet_app.command("adopt")
def wallet_adopt(
    user: UserArgument, config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Accept what something other than Farebox wrote to a balance, as adjustments, and end the parking."""
    result, adopted = with_store(place_of(config, store), lambda s: _adopt(s, user))
    if result is EventResult.UNKNOWN_USER:
        raise UsageError(unknown_user(user))
    if result is EventResult.SHORT:
        raise UsageError(
            f"{user}: less is left than running exchanges have set aside; try again when they have ended"
        )
    amounts = {pool: usd_from_pico(amount_pico) for pool, amount_pico in adopted.items()}
    said = f"{user}: nothing to adopt, every balance is Farebox's own"
    if result is EventResult.DONE:
        listed = ", ".join(f"{amount} USD in {pool}" for pool, amount in amounts.items())
        said = f"{user}: adopted {listed or 'no change of money'}; no longer parked"
    answer({"user": user, "adopted": amounts, "result": result.value}, as_json, said)


async def _adopt(s: Store, user: str) -> tuple[EventResult, dict[str, int]]:
    """The outcome, and what it changed by pool."""
    before = await s.account(user)
    result = await s.adopt_balances(user, actor(), wall_ms())
    if before is None or result is not EventResult.DONE:
        return result, {}
    await s.append_change("user", user)
    differences = {pool: amount - before.seen.get(pool, 0) for pool, amount in before.balances.items()}
    return result, {pool: amount_pico for pool, amount_pico in differences.items() if amount_pico}


# -- booking ------------------------------------------------------------------------------------------------


def _book(place: Any, event: Event, reference: str, as_json: bool) -> None:
    row = event.rows[0]

    async def apply(s: Store) -> EventResult:
        if row.amount_pico > 0:
            return await _applied(s, event)
        claim = Claim(reference, row.pool, None, -row.amount_pico)
        return await debit(s, row.user, claim, lambda: _applied(s, event))

    _report(with_store(place, apply), row.user, reference, row.amount_pico, as_json)


async def _applied(store: Store, event: Event) -> EventResult:
    try:
        result = await store.apply_event(event, wall_ms())
    except InvariantBrokenError as error:
        raise UsageError(f"not booked: {error}; use another --reference for another event") from None
    if result is EventResult.DONE:
        for user in dict.fromkeys(row.user for row in event.rows):
            await store.append_change("user", user)
    return result


async def _transfer_once(
    store: Store, giver: str, receiver: str, pool: str, to_pool: str, amount_pico: int, reference: str
) -> EventResult:
    account = await store.account(giver)
    if account is None:
        return EventResult.UNKNOWN_USER
    event = transfer_event(account, receiver, pool, to_pool, amount_pico, reference, actor(), wall_ms())
    return EventResult.SHORT if event is None else await _applied(store, event)


async def _is_moved(store: Store, user: str, pool: str, reference: str, amount_pico: int) -> bool:
    """Whether this transfer is booked: its lots were chosen then, so it is recognised by its row, not
    repeated.
    """
    for row in await store.transactions(user, 1000):
        if (row.type, row.reference, row.pool) == ("transfer_out", reference, pool):
            if row.amount_pico != -amount_pico:
                raise UsageError(
                    f"the reference {reference!r} was used for {usd_from_pico(-row.amount_pico)} USD"
                )
            return True
    return False


def _report(result: EventResult, user: str, reference: str, amount_pico: int, as_json: bool) -> None:
    amount = usd_from_pico(amount_pico)
    if result is EventResult.UNKNOWN_USER:
        raise UsageError(unknown_user(user))
    if result is EventResult.PARKED:
        raise UsageError(f"{user} is parked: `farebox verify` says why")
    if result is EventResult.SHORT:
        raise UsageError(f"{user} has less than {amount.lstrip('-')} USD that is neither leased nor expired")
    document = {"user": user, "reference": reference, "amount": amount, "result": result.value}
    said = "booked" if result is EventResult.DONE else "booked already, nothing changed"
    answer(document, as_json, f"{said}: {amount} USD, {user}, reference {reference}")


def _pico(amount: str) -> int:
    try:
        return pico_from_usd(amount)
    except ValueError as error:
        raise UsageError(str(error)) from None


def wallet_document(account: Account) -> dict[str, Any]:
    """Wallets, pools, lots and leases for programs; amounts are decimal strings of USD."""
    return {
        "user": account.user,
        "parked": account.parked,
        "wallets": {
            name: usd_from_pico(sum(account.balances.get(pool, 0) for pool in pools))
            for name, pools in WALLETS.items()
        },
        "pools": {pool: usd_from_pico(amount) for pool, amount in account.balances.items()},
        "lots": [
            {
                "lot": lot.lot,
                "pool": lot.pool,
                "left": usd_from_pico(lot.left_pico),
                "leased": usd_from_pico(lot.leased_pico),
                "expires_at": moment(lot.expires_at_ms) or None,
                "source": lot.source,
            }
            for lot in account.lots
        ],
        "leases": {
            journal: {lot: usd_from_pico(amount) for lot, amount in entry.lots.items()}
            for journal, entry in account.leases.items()
        },
        "reserved": {
            exchange: {lot: usd_from_pico(amount) for lot, amount in lots.items()}
            for exchange, lots in account.reserved.items()
        },
        "claims": {
            claim.reference: {
                "pool": claim.pool,
                "lot": claim.lot,
                "amount": usd_from_pico(claim.amount_pico),
            }
            for claim in account.claims
        },
        "written_off": usd_from_pico(account.written_off_pico),
    }
