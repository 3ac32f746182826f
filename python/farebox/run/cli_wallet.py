"""`farebox wallet`: what a user has, and what an operator moves (`cli_move`)."""

from typing import Annotated, Any

import typer

from farebox.base.clock import wall_ms
from farebox.base.errors import UsageError
from farebox.base.records import WALLETS, Account
from farebox.base.units import moment, usd_from_pico
from farebox.credits.accounts import unknown_user
from farebox.credits.pool_use import pools_document
from farebox.ledger.lots import spend_order
from farebox.run.cli_move import MOVES
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, actor, place_of, with_store
from farebox.run.durations import past_ms
from farebox.store.base import EventResult, Store
from farebox.store.statistics import PoolUse, Wealth

wallet_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
for _name, _command in MOVES.items():
    wallet_app.command(_name)(_command)

UserArgument = Annotated[str, typer.Argument(metavar="USER")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(wallet_app, name="wallet", help="Balances, and money in and out of them.")


@wallet_app.command("show")
def wallet_show(
    user: UserArgument, config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """A user's wallets and lots, what ends when, and what is kept for debits."""
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
        for lot in spend_order(account.lots)
        if lot.left_pico
    ]
    columns = ("pool", "left USD", "leased USD", "expires", "source", "lot")
    lots = table("", columns, rows, right=("left USD", "leased USD"))
    wallets = {name: sum(account.balances.get(pool, 0) for pool in pools) for name, pools in WALLETS.items()}
    line = "  ".join(f"{name} {usd_from_pico(amount)}" for name, amount in wallets.items())
    notes = [f"parked: {account.parked}"] if account.parked else []
    notes += [
        f"kept for {claim.reference}: {usd_from_pico(claim.amount_pico)} USD of {claim.pool}"
        for claim in account.claims
    ]
    answer(wallet_document(account), as_json, f"{user}  {line} USD", lots, *notes)


@wallet_app.command("pools")
def wallet_pools(
    since: Annotated[str, typer.Option(help="From when on: 30d, 12h, or a date; default: always.")] = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """How the pools are used: balances now, and what each kind of transaction did. Reads the whole ledger."""
    now_ms = wall_ms()
    from_ms = past_ms(since, now_ms) or 0

    async def read(s: Store) -> tuple[Wealth, list[PoolUse]]:
        return await s.wealth(), await s.pool_use(from_ms, now_ms + 1)

    wealth, uses = with_store(place_of(config, store), read)
    document = pools_document(wealth, uses)
    rows = [
        (pool, kind, used["amount"], used["transactions"], used["users"])
        for pool, found in document.items()
        for kind, used in (("balance now", _now(found)), *found["types"].items())
    ]
    columns = ("pool", "type", "USD", "transactions", "users")
    answer(document, as_json, table("", columns, rows, right=("USD", "transactions", "users")))


def _now(found: dict[str, Any]) -> dict[str, Any]:
    return {"amount": found["balance"], "transactions": "", "users": ""}


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
