"""What a payment provider's delivery causes: the one place where notices meet the rooms that act on them."""

from farebox.config.credits import CreditsSettings
from farebox.credits.disputes import take_dispute
from farebox.credits.invoices import take_change, take_invoice
from farebox.credits.notices import (
    DisputeChanged,
    InvoicePaid,
    MoneyReceived,
    MoneyReturned,
    Notice,
    SubscriptionChanged,
)
from farebox.credits.payments import Outcome, take_payment
from farebox.credits.returns import take_return
from farebox.store.base import Store


async def take(store: Store, settings: CreditsSettings, notice: Notice, now_ms: int) -> Outcome:
    """Act on a notice. What it returns is durable; on an error of the store it must be delivered again."""
    if isinstance(notice, MoneyReceived):
        return await take_payment(store, settings, notice, now_ms)
    if isinstance(notice, MoneyReturned):
        return await take_return(store, notice, now_ms)
    if isinstance(notice, DisputeChanged):
        return await take_dispute(store, notice, now_ms)
    if isinstance(notice, InvoicePaid):
        return await take_invoice(store, settings, notice, now_ms)
    if isinstance(notice, SubscriptionChanged):
        return await take_change(store, notice, now_ms)
    return Outcome("ignored", reason=notice.reason)
