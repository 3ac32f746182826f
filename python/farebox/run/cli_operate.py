"""`farebox quarantine` and `farebox lease`: what only an operator may decide.
 A quarantined settlement could not be priced or trusted; its money is set aside until someone says what it
costs. A lease of a journal that is gone for good holds money until someone says so.
"""

from typing import Annotated, Any

import typer

from farebox.base.clock import wall_ms
from farebox.base.errors import UsageError
from farebox.base.limits import abandon_after_s
from farebox.base.units import moment, pico_from_usd, usd_from_pico
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, actor, place_of, with_store
from farebox.store.base import Booked, JournalState, Store

quarantine_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
lease_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

ExchangeArgument = Annotated[str, typer.Argument(metavar="EXCHANGE", help="The id that `list` shows.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(quarantine_app, name="quarantine", help="Settlements that wait for an operator.")
    app.add_typer(lease_app, name="lease", help="Money that journals have set aside.")


@quarantine_app.command("list")
def quarantine_list(
    config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """What waits, oldest first."""
    found = with_store(place_of(config, store), lambda s: s.parked())
    rows = [
        (
            p["id"],
            p["user"],
            p["model"],
            p["kind"],
            p["reason"],
            _usd(p["reserved_pico"]),
            moment(_int(p["parked_ms"])),
        )
        for p in found
    ]
    columns = ("id", "user", "model", "kind", "reason", "reserved USD", "since")
    shown = table("", columns, rows, right=("reserved USD",)) if rows else "nothing waits"
    answer([_plain(parked) for parked in found], as_json, shown)


@quarantine_app.command("settle")
def quarantine_settle(
    exchange: ExchangeArgument,
    amount: Annotated[str, typer.Option(help="What it costs, in USD.")],
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Charge a waiting exchange at an amount."""
    try:
        amount_pico = pico_from_usd(amount)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _resolve(exchange, amount_pico, config, store, as_json)


@quarantine_app.command("void")
def quarantine_void(
    exchange: ExchangeArgument,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Charge nothing for a waiting exchange."""
    _resolve(exchange, None, config, store, as_json)


def _resolve(
    exchange: str, amount_pico: int | None, config: ConfigOption, store: StoreOption, as_json: bool
) -> None:
    place = place_of(config, store)
    result = with_store(place, lambda s: s.resolve_parked(exchange, amount_pico, actor(), wall_ms()))
    if result is None:
        raise UsageError(f"nothing of the id {exchange!r} waits; `farebox quarantine list` shows what does")
    if result is Booked.PARKED:
        raise UsageError(f"the account behind {exchange} is parked itself; `farebox verify` says why")
    amount = usd_from_pico(amount_pico or 0)
    said = "voided" if amount_pico is None else f"settled at {amount} USD"
    answer({"id": exchange, "amount": amount, "result": result.value}, as_json, f"{exchange}: {said}")


@lease_app.command("list")
def lease_list(config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Journals, and what each of them leases from whom."""

    async def read(s: Store) -> tuple[list[JournalState], dict[str, dict[str, int]]]:
        held: dict[str, dict[str, int]] = {}
        async for account in s.accounts():
            for journal, entry in account.leases.items():
                held.setdefault(journal, {})[account.user] = sum(entry.lots.values())
        return await s.journal_states(), held

    states, held = with_store(place_of(config, store), read)
    documents = [_journal_document(state, held.get(state.journal, {})) for state in states]
    rows = [
        (s.journal, s.state, s.epoch, s.host, moment(s.beat_ms), _usd(sum(held.get(s.journal, {}).values())))
        for s in states
    ]
    columns = ("journal", "state", "epoch", "host", "last sign of life", "leased USD")
    answer(documents, as_json, table("", columns, rows, right=("epoch", "leased USD")))


@lease_app.command("release")
def lease_release(
    lost: Annotated[str, typer.Option("--lost", metavar="JOURNAL", help="A journal that is gone for good.")],
    force: Annotated[bool, typer.Option("--force", help="Although it gave a sign of life lately.")] = False,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Abandon the leases of a lost journal and mark it lost. What it had not booked is never charged."""

    async def release(s: Store) -> list[str]:
        state = next((state for state in await s.journal_states() if state.journal == lost), None)
        if state is None:
            raise UsageError(f"there is no journal {lost!r}; `farebox lease list` shows them")
        silent_s = (wall_ms() - state.beat_ms) / 1000
        if state.state == "live" and silent_s < abandon_after_s and not force:
            raise UsageError(
                f"journal {lost} gave a sign of life {silent_s:.0f} s ago on {state.host}; stop it first,"
                f" wait until {abandon_after_s:.0f} s are over, or say --force"
            )
        users = await s.leases_of(lost)
        if not await s.end_journal(lost, "lost", None if force or state.state != "live" else state):
            raise UsageError(f"journal {lost} gave a sign of life just now; nothing was changed")
        await s.audit(actor(), "lease.release", lost, {"users": users, "force": force}, wall_ms())
        for user in users:
            await s.append_change("user", user)
        return users

    users = with_store(place_of(config, store), release)
    said = f"journal {lost} is marked lost, its leases on {len(users)} users are released"
    answer({"journal": lost, "state": "lost", "users": users}, as_json, said)


def _journal_document(state: JournalState, held: dict[str, int]) -> dict[str, Any]:
    return {
        "journal": state.journal,
        "state": state.state,
        "epoch": state.epoch,
        "host": state.host,
        "beat_at": moment(state.beat_ms) or None,
        "leased": {user: usd_from_pico(amount) for user, amount in held.items() if amount},
    }


def _plain(parked: Any) -> dict[str, Any]:
    kept = {name: value for name, value in parked.items() if name != "settlement"}
    amounts = {name.removesuffix("_pico"): _usd(kept.pop(name)) for name in ("amount_pico", "reserved_pico")}
    return {**kept, **amounts}


def _usd(amount_pico: object) -> str:
    return usd_from_pico(_int(amount_pico))


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
