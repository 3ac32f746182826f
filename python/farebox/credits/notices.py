"""What payment providers tell, in words of our own: the adapters make these, `payments` and `returns` act.

A payment's id is `provider:id of the provider`; the provider must never use one id for two payments. Amounts
are decimals in units of their currency (not cents), kept exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol


class WebhookRefusedError(Exception):
    """A delivery that is not acted on: the HTTP status, a word for counters and a sentence for the log."""

    def __init__(self, status: int, outcome: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class MoneyReceived:
    """A payment arrived. `order` is the order code it carries, or empty; `at_ms` when it was made."""

    payment: str
    amount: Decimal
    currency: str
    order: str
    at_ms: int
    reference: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MoneyReturned:
    """So much of a payment has been paid back so far, all refunds together, of `amount` paid."""

    payment: str
    returned: Decimal
    amount: Decimal
    currency: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class DisputeChanged:
    """The payer's bank disputes a payment: `state` is open, won (the money stays) or lost (it is gone)."""

    payment: str
    dispute: str
    disputed: Decimal
    currency: str
    state: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class InvoicePaid:
    """A subscription's invoice was paid: its first one, or a renewal.

    `plan` is the price's id, `metadata` what the provider keeps with subscription and price (they name the
    user and the plan); the period is what the invoice pays for. `begins_period`: it is the subscription's
    first or a renewal; else it settles a change in between, whatever its period.
    """

    payment: str
    subscription: str
    plan: str
    amount: Decimal
    currency: str
    period_begins_ms: int
    period_ends_ms: int
    at_ms: int
    reference: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    begins_period: bool = True


@dataclass(frozen=True, slots=True)
class SubscriptionChanged:
    """A subscription began, changed or ended; `status` is the provider's word (active, past_due, canceled…).

    `order` is what the checkout that began it carried.
    """

    subscription: str
    status: str
    plan: str
    period_begins_ms: int | None
    period_ends_ms: int | None
    cancel_at_period_end: bool
    at_ms: int
    order: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Irrelevant:
    """A genuine delivery of something Farebox does not act on; it is acknowledged."""

    reason: str


Notice = MoneyReceived | MoneyReturned | DisputeChanged | InvoicePaid | SubscriptionChanged | Irrelevant


class Provider(Protocol):
    """Checks a delivery and says what it means. Pure: no store, no network, time as an argument."""

    def read(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        """`headers` have lower-case names. Raises WebhookRefusedError on anything that is not genuine."""
