"""`farebox subscription`: who has which plan, what it granted, and periods an operator enters or ends.

Stripe's invoices grant by themselves; `grant` is for what was paid for elsewhere. Plans come from the
configuration's section `credits`.
"""

from typing import Annotated, Any

import typer

from farebox.base.clock import wall_ms
from farebox.base.errors import UsageError
from farebox.base.ids import new_lot_id
from farebox.base.records import Transaction
from farebox.base.units import moment, usd_from_pico
from farebox.credits import subscriptions
from farebox.credits.accounts import unknown_user
from farebox.run.cli_output import answer, table
from farebox.run.cli_payment import shop_of
from farebox.run.cli_place import ConfigOption, JsonOption, StoreOption, actor, place_of, with_store
from farebox.run.durations import expiry_ms
from farebox.store.base import EventResult, Record, Store

subscription_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

SubscriptionArgument = Annotated[
    str,
    typer.Argument(metavar="SUBSCRIPTION", help="As `subscription list` shows it: stripe:sub_…, manual:…"),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(subscription_app, name="subscription", help="Plans of users, and what they granted.")


@subscription_app.command("list")
def subscription_list(
    user: Annotated[str, typer.Option(help="Only of this user.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Subscriptions, newest first."""
    found = with_store(
        place_of(config, store), lambda s: s.records("subscription", user=user or None, limit=limit)
    )
    shown = [subscriptions.subscription_document(record, wall_ms()) for record in found]
    columns = (
        "subscription",
        "user",
        "plan",
        "status",
        "USD a period",
        "renewal",
        "period ends",
        "ends then",
    )
    rows = [
        (
            one["subscription_id"],
            one["user_id"],
            one["plan_name"],
            one["status"],
            one["credits_monthly"],
            one["renewal"],
            moment(one["current_period_end"]),
            "yes" if one["cancel_at_period_end"] else "",
        )
        for one in shown
    ]
    answer(shown, as_json, table("", columns, rows, right=("USD a period",)))


@subscription_app.command("show")
def subscription_show(
    subscription: SubscriptionArgument,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """One subscription, with the invoices that granted."""
    found = with_store(place_of(config, store), lambda s: _known(s, subscription))
    _show(found, as_json)


@subscription_app.command("grant")
def subscription_grant(
    user: Annotated[str, typer.Argument(metavar="USER")],
    plan: Annotated[str, typer.Option(help="A plan of the configuration.")],
    ends: Annotated[str, typer.Option(help="When the period ends: 30d, or a date.")],
    name: Annotated[str, typer.Option(help="Of the subscription: `manual:NAME`; a renewal says it again.")],
    reference: Annotated[
        str, typer.Option(help="Of the invoice; makes a repeat harmless. Default: a fresh one.")
    ] = "",
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Grant a period of a plan that was paid for outside of any provider."""
    place, now_ms = place_of(config, store), wall_ms()
    bought = shop_of(config).plan(plan)
    if bought is None:
        raise UsageError(f"there is no plan {plan!r}; plans stand in the configuration's section `credits`")
    ends_ms = expiry_ms(ends, now_ms)
    if ends_ms is None or not name:
        raise UsageError("say which subscription, --name, and when its period ends, --ends")
    period = subscriptions.PaidPeriod(
        f"manual:{name}", user, bought, reference or new_lot_id(), now_ms, ends_ms
    )

    async def book(s: Store) -> tuple[EventResult, Record | None]:
        result = await subscriptions.grant_period(s, period, actor(), now_ms)
        return result, await s.record("subscription", period.subscription)

    result, record = with_store(place, book)
    if result is EventResult.UNKNOWN_USER:
        raise UsageError(unknown_user(user))
    if record is None or result not in {EventResult.DONE, EventResult.DUPLICATE}:
        raise UsageError(f"{user} is parked: `farebox verify` says why")
    said = "granted" if result is EventResult.DONE else "granted before, nothing changed"
    document = {"subscription": record.id, "invoice": period.invoice, "result": result.value}
    answer(
        document, as_json, f"{record.id}: {said}; {usd_from_pico(bought.grant_pico)} USD, {period.invoice}"
    )


@subscription_app.command("cancel")
def subscription_cancel(
    subscription: SubscriptionArgument,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a subscription with its period; what was granted stays until then. Stripe is not told."""

    async def end(s: Store) -> Record:
        return await subscriptions.cancel(s, subscription, actor(), wall_ms())

    _show(with_store(place_of(config, store), end), as_json)


@subscription_app.command("history")
def subscription_history(
    subscription: SubscriptionArgument,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Of the user's rows of each type.")] = 100,
    config: ConfigOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """The ledger rows its invoices made: what each granted, and what a renewal ended; newest first."""

    async def read(s: Store) -> list[Transaction]:
        record = await _known(s, subscription)
        return await subscriptions.rows_of_subscription(s, record, limit)

    found = with_store(place_of(config, store), read)
    rows = [
        (moment(row.created_ms), row.type, usd_from_pico(row.amount_pico), row.reference, row.cause)
        for row in found
    ]
    names = ("at", "type", "amount", "reference", "cause")
    listed = [dict(zip(names, row, strict=True)) for row in rows]
    answer(listed, as_json, table("", names, rows, right=("amount",)))


async def _known(s: Store, subscription: str) -> Record:
    found = await s.record("subscription", subscription)
    if found is None:
        raise UsageError(f"there is no subscription {subscription!r}; see `farebox subscription list`")
    return found


def _show(record: Record, as_json: bool) -> None:
    document: dict[str, Any] = subscriptions.subscription_document(record, wall_ms())
    document["invoices"] = record.document["invoices"]
    rows = [(name, value) for name, value in document.items() if value not in ("", None, [])]
    answer(document, as_json, table("", ("", record.id), rows))
