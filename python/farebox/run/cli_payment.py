"""`farebox payment`, `farebox referral`: payments that arrived, the review queue, and who brought whom.

What purchases are decided by (rates, validity, bonus) comes from the configuration's section `credits`; with
`--store` alone it is what that section is when nobody wrote it.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from farebox.base.clock import wall_ms
from farebox.base.errors import UsageError
from farebox.base.units import moment, pico_from_usd
from farebox.credits.accounts import unknown_user
from farebox.run.cli_output import answer, table
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, actor, place_of, with_store
from farebox.store.base import Record, Store

payment_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
referral_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

PaymentArgument = Annotated[
    str, typer.Argument(metavar="PAYMENT", help="As `payment list` shows it: sepay:92704, stripe:pi_…")
]
NoteOption = Annotated[str, typer.Option(help="Why; kept with the payment.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(payment_app, name="payment", help="Payments, and the review of those that did not fit.")
    app.add_typer(referral_app, name="referral", help="Who brought whom.")


@payment_app.command("list")
def payment_list(
    status: Annotated[
        str, typer.Option(help="review (the queue), credited, refused, disputed, refunded, lost.")
    ] = "",
    user: Annotated[str, typer.Option(help="Only of this user.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Payments, newest first."""

    async def read(s: Store) -> list[Record]:
        return await s.records("payment", user=user or None, status=status or None, limit=limit)

    found = with_store(place_of(config, store), read)
    rows = [
        (
            payment.id,
            payment.status,
            payment.user,
            f"{payment.document['amount']} {payment.document['currency']}",
            payment.document.get("credits", ""),
            moment(payment.created_ms),
            payment.document.get("reason", ""),
        )
        for payment in found
    ]
    columns = ("payment", "status", "user", "amount", "credits", "arrived", "reason")
    answer([payment_document(payment) for payment in found], as_json, table("", columns, rows))


@payment_app.command("show")
def payment_show(
    payment: PaymentArgument,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Everything kept of one payment."""
    from farebox.credits.payments import known_payment  # noqa: PLC0415 - the shop is loaded where it is needed

    _show(with_store(place_of(config, store), lambda s: known_payment(s, payment)), as_json)


@payment_app.command("accept")
def payment_accept(
    payment: PaymentArgument,
    note: NoteOption,
    user: Annotated[str, typer.Option(help="Whom to credit; default: the order's user.")] = "",
    credits: Annotated[str, typer.Option(help="How many; default: what the amount pays for.")] = "",  # noqa: A002 - the option's name
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Credit a payment that waits for review."""
    from farebox.credits.payments import accept  # noqa: PLC0415 - the shop is loaded where it is needed

    shop = shop_of(config)

    async def decide(s: Store) -> Record:
        return await accept(s, shop, payment, actor(), wall_ms(), user=user, credits_given=credits, note=note)

    _show(with_store(place_of(config, store), decide), as_json)


@payment_app.command("refuse")
def payment_refuse(
    payment: PaymentArgument,
    note: NoteOption,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide that a payment credits nothing; send the money back yourself."""
    from farebox.credits.payments import refuse  # noqa: PLC0415 - the shop is loaded where it is needed

    decide = refuse
    _show(
        with_store(place_of(config, store), lambda s: decide(s, payment, actor(), note, wall_ms())), as_json
    )


@payment_app.command("add")
def payment_add(
    user: Annotated[str, typer.Argument(metavar="USER")],
    credits: Annotated[str, typer.Option(help="Credits bought.")],  # noqa: A002 - the option's name
    receipt: Annotated[str, typer.Option(help="Makes the payment unique: repeated, nothing changes.")],
    note: NoteOption,
    amount: Annotated[str, typer.Option(help="What was paid.")] = "0",
    currency: Annotated[str, typer.Option(help="In which currency.")] = "USD",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Credit a payment you took yourself, e.g. in cash."""
    from decimal import Decimal  # noqa: PLC0415 - the shop is loaded where it is needed

    from farebox.credits.notices import MoneyReceived  # noqa: PLC0415
    from farebox.credits.payments import Purchase, enter_payment  # noqa: PLC0415

    shop, now_ms = shop_of(config), wall_ms()
    try:
        paid, credits_pico = Decimal(amount), pico_from_usd(credits)
    except (ValueError, ArithmeticError):
        raise UsageError("credits and amount must be decimal numbers") from None
    if credits_pico <= 0 or not paid.is_finite() or paid < 0:
        raise UsageError("the credits must be more than 0, the amount not less")
    notice = MoneyReceived(f"manual:{receipt}", paid, currency, "", now_ms)
    purchase = Purchase(user, shop.pool, credits_pico)

    async def enter(s: Store) -> Record:
        return await enter_payment(s, shop, notice, purchase, note, actor(), now_ms)

    _show(with_store(place_of(config, store), enter), as_json)


@referral_app.command("add")
def referral_add(
    user: Annotated[str, typer.Argument(metavar="USER")],
    referrer: Annotated[str, typer.Option(help="Who brought him.")],
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Note who brought a user, before his first purchase; both get the configured bonus with it."""
    from farebox.credits.referrals import refer  # noqa: PLC0415 - the shop is loaded where it is needed

    noted = with_store(place_of(config, store), lambda s: refer(s, user, referrer, actor(), wall_ms()))
    document = {"user": noted.id, "referrer": noted.user, "status": noted.status}
    answer(document, as_json, f"{noted.id} was brought by {noted.user}: {noted.status}")


@referral_app.command("show")
def referral_show(
    user: Annotated[str, typer.Argument(metavar="USER")],
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who brought a user, and what became of the bonus."""

    async def read(s: Store) -> Record:
        if await s.account(user) is None:
            raise UsageError(unknown_user(user))
        found = await s.record("referral", user)
        if found is None:
            raise UsageError(f"nobody is noted as having brought {user}")
        return found

    found = with_store(place_of(config, store), read)
    document = {"user": found.id, "status": found.status, **found.document}
    answer(document, as_json, f"{found.id} was brought by {found.user}: {found.status}")


def payment_document(payment: Record) -> dict[str, Any]:
    """A payment for programs."""
    return {
        "payment": payment.id,
        "status": payment.status,
        "user": payment.user or None,
        "created_at": moment(payment.created_ms),
        **payment.document,
    }


def _show(payment: Record, as_json: bool) -> None:
    document = payment_document(payment)
    rows = [(name, value) for name, value in document.items() if value not in ("", None, {}, [])]
    answer(document, as_json, table("", ("", payment.id), rows))


def shop_of(config: list[Path] | None) -> Any:
    """The section `credits` of the configuration, or its defaults."""
    from farebox.config.credits import credits_settings  # noqa: PLC0415
    from farebox.config.credits_document import CreditsEntry  # noqa: PLC0415
    from farebox.config.load import load  # noqa: PLC0415 - pydantic takes longer to import than most commands to run
    from farebox.config.problems import Problems  # noqa: PLC0415

    return load(config).credits if config else credits_settings(CreditsEntry(), Problems(Path()))
