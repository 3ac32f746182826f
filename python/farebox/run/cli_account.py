"""`farebox user` and `farebox key`: accounts, and the keys that spend from them."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from farebox.base import limits
from farebox.base.clock import wall_ms
from farebox.base.errors import UsageError
from farebox.base.records import POOLS, Account, KeyRecord
from farebox.base.units import moment, usd_from_pico
from farebox.credits import accounts
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import (
    ConfigOption,
    JsonOption,
    StoreOption,
    actor,
    of_known_user,
    place_of,
    with_store,
)
from farebox.run.durations import expiry_ms
from farebox.store.base import Store

user_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
key_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="User name.")]
KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="Digest, prefix or label; never the key itself.")
]
RateOption = Annotated[
    int | None,
    typer.Option(
        help="Requests a minute; default: the service's.", min=1, max=limits.requests_per_minute_max
    ),
]
OfUserOption = Annotated[str | None, typer.Option("--user", help="Whose key, when named by prefix or label.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(user_app, name="user", help="Accounts.")
    app.add_typer(key_app, name="key", help="API keys.")


@user_app.command("add")
def user_add(
    user: UserArgument,
    role: Annotated[str, typer.Option(help="user or admin.")] = "user",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an account with empty pools."""
    place = place_of(config, store)
    with_store(place, lambda s: accounts.create_user(s, user, role, actor(), wall_ms()), create=True)
    answer({"user": user, "role": role}, as_json, f"created {user}; next: farebox key create {user}")


@user_app.command("show")
def user_show(
    user: UserArgument, config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """One account: pools, keys, state."""

    async def read(s: Store) -> tuple[Account | None, list[KeyRecord]]:
        return await s.account(user), await s.keys_of(user)

    account, keys = with_store(place_of(config, store), read)
    if account is None:
        raise UsageError(accounts.unknown_user(user))
    document = {**account_document(account), "keys": [key_document(key) for key in keys]}
    state = "active" if account.is_active else "disabled"
    parked = f", parked: {account.parked}" if account.parked else ""
    pools = [(pool, usd_from_pico(account.balances.get(pool, 0))) for pool in POOLS]
    answer(
        document,
        as_json,
        f"{user} ({state}{parked})",
        table("", ("pool", "balance USD"), pools, right=("balance USD",)),
        keys_table(keys),
    )


@user_app.command("list")
def user_list(config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """All accounts with their balances."""

    async def read(s: Store) -> list[Account]:
        return [account async for account in s.accounts()]

    found = with_store(place_of(config, store), read)
    rows = [
        (
            account.user,
            "parked" if account.parked else "active" if account.is_active else "disabled",
            *(usd_from_pico(account.balances.get(pool, 0)) for pool in POOLS),
        )
        for account in found
    ]
    shown = table("", ("user", "state", *POOLS), rows, right=POOLS)
    answer([account_document(account) for account in found], as_json, shown)


@user_app.command("disable")
def user_disable(
    user: UserArgument, config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Refuse an account's requests; its money stays."""
    _set_active(user, False, config, store, as_json)


@user_app.command("enable")
def user_enable(
    user: UserArgument, config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Accept an account's requests again."""
    _set_active(user, True, config, store, as_json)


def _set_active(user: str, active: bool, config: ConfigOption, store: StoreOption, as_json: bool) -> None:
    place = place_of(config, store)
    with_store(place, lambda s: accounts.set_user_active(s, user, active, actor(), wall_ms()))
    answer({"user": user, "active": active}, as_json, f"{user} is {'active' if active else 'disabled'}")


@key_app.command("create")
def key_create(
    user: UserArgument,
    label: Annotated[str, typer.Option(help="A name for people.")] = "default",
    rpm: RateOption = None,
    model: Annotated[list[str] | None, typer.Option(help="Allow only this model; repeatable.")] = None,
    expires: Annotated[str, typer.Option(help="When it ends: 30d, 12h, or a date.")] = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. Its text is shown now and never again."""
    now_ms = wall_ms()

    async def make(s: Store) -> accounts.NewKey:
        return await accounts.create_key(
            s,
            user,
            label,
            actor(),
            now_ms,
            requests_per_minute=rpm,
            allowed_models=tuple(model) if model else None,
            expires_at_ms=expiry_ms(expires, now_ms),
        )

    _show_new_key(with_store(place_of(config, store), make), as_json)


@key_app.command("list")
def key_list(
    user: UserArgument, config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """A user's keys, newest first."""
    keys = with_store(place_of(config, store), lambda s: of_known_user(s, user, s.keys_of(user)))
    answer([key_document(key) for key in keys], as_json, keys_table(keys))


@key_app.command("rotate")
def key_rotate(
    key: KeyArgument,
    user: OfUserOption = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a key by a new one with the same label and limits."""

    async def rotate(s: Store) -> accounts.NewKey:
        return await accounts.rotate_key(s, await accounts.find_key(s, key, user), actor(), wall_ms())

    _show_new_key(with_store(place_of(config, store), rotate), as_json)


@key_app.command("limit")
def key_limit(
    key: KeyArgument,
    user: OfUserOption = None,
    rpm: RateOption = None,
    model: Annotated[list[str] | None, typer.Option(help="Allow only this model; repeatable.")] = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what a key may do from now on: its rate and its models, both at once."""
    models = tuple(model) if model else None

    async def limit(s: Store) -> KeyRecord:
        record = await accounts.find_key(s, key, user)
        await accounts.limit_key(s, record, rpm, models, actor(), wall_ms())
        return replace(record, requests_per_minute=rpm, allowed_models=models)

    record = with_store(place_of(config, store), limit)
    answer(key_document(record), as_json, f"limited {record.prefix}… of {record.user}")


@key_app.command("revoke")
def key_revoke(
    key: KeyArgument,
    user: OfUserOption = None,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key."""

    async def revoke(s: Store) -> KeyRecord:
        record = await accounts.find_key(s, key, user)
        await accounts.revoke_key(s, record, actor(), wall_ms())
        return record

    record = with_store(place_of(config, store), revoke)
    answer({**key_document(record), "active": False}, as_json, f"revoked {record.prefix}… of {record.user}")


def _show_new_key(made: accounts.NewKey, as_json: bool) -> None:
    document = {"key": made.key, **key_document(made.record)}
    answer(document, as_json, made.key, "Keep it now: it is stored as a digest and cannot be shown again.")


def account_document(account: Account) -> dict[str, Any]:
    """An account for programs; amounts are decimal strings of USD."""
    return {
        "user": account.user,
        "active": account.is_active,
        "parked": account.parked,
        "pools": {pool: usd_from_pico(account.balances.get(pool, 0)) for pool in POOLS},
        "written_off": usd_from_pico(account.written_off_pico),
    }


def key_document(key: KeyRecord) -> dict[str, Any]:
    """A key for programs, without anything secret."""
    return {
        "digest": key.digest,
        "prefix": key.prefix,
        "label": key.label,
        "user": key.user,
        "active": key.key_active,
        "requests_per_minute": key.requests_per_minute,
        "allowed_models": key.allowed_models,
        "expires_at": moment(key.expires_at_ms) or None,
    }


def keys_table(keys: list[KeyRecord]) -> Any:
    """Keys for people."""
    rows = [
        (
            f"{key.prefix}…",
            key.label,
            "active" if key.key_active else "revoked",
            key.requests_per_minute,
            ", ".join(key.allowed_models or ()) or "all",
            moment(key.expires_at_ms),
            key.digest[:12],
        )
        for key in keys
    ]
    return table("", ("key", "label", "state", "rpm", "models", "expires", "digest"), rows)
