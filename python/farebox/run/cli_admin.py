"""`farebox admin`: who may use the console, as tokens with a role."""

from typing import Annotated

import typer

from farebox.base.clock import wall_ms
from farebox.base.units import moment
from farebox.credits.admins import admin_document, admins, create_admin, revoke_admin
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, actor, place_of, with_store
from farebox.run.durations import expiry_ms

admin_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(admin_app, name="admin", help="Tokens for the console, each with a role.")


@admin_app.command("create")
def admin_create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    role: Annotated[str, typer.Option(help="admin, support or read-only.")] = "read-only",
    expires: Annotated[str, typer.Option(help="When it ends: 90d, 12h, or a date; default: never.")] = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token. Its text is shown now and never again."""
    now_ms = wall_ms()
    ends_ms = expiry_ms(expires, now_ms)
    made = with_store(
        place_of(config, store),
        lambda s: create_admin(s, name, role, ends_ms, actor(), now_ms),
        create=True,
    )
    document = {"token": made.token, **admin_document(made.record, now_ms)}
    answer(document, as_json, made.token, "Keep it now: it is stored as a digest and cannot be shown again.")


@admin_app.command("list")
def admin_list(config: ConfigOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """All tokens, newest first."""
    now_ms = wall_ms()
    found = [admin_document(admin, now_ms) for admin in with_store(place_of(config, store), admins)]
    rows = [
        (one["name"], one["role"], one["status"], moment(one["created_ms"]), moment(one["expires_ms"]))  # type: ignore[arg-type]
        for one in found
    ]
    answer(found, as_json, table("", ("name", "role", "status", "created", "expires"), rows))


@admin_app.command("revoke")
def admin_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Or the start of its digest.")],
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a token, from the next request on."""
    now_ms = wall_ms()
    revoked = with_store(place_of(config, store), lambda s: revoke_admin(s, name, actor(), now_ms))
    answer(admin_document(revoked, now_ms), as_json, f"revoked the token of {revoked.reference}")
