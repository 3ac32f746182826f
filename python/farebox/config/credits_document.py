"""The section `credits` as written: what credit costs, how long it lasts, and who tells of payments.

Secrets are never written here; each has a key that names an environment variable and one that names a file.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from farebox.base import limits as bounds
from farebox.config.exact import ExactDecimal
from farebox.config.plans_document import AllocationEntry, PlanEntry, PoolName

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Days = Annotated[int, Field(ge=1, le=36_500)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", defer_build=True)


class ValidityEntry(_Entry):
    """How long credit of one pool lasts, and what a purchase does to what is there."""

    days: Days | None = Field(default=None, description="From the purchase on; absent: it never ends")
    rule: Literal["pool", "lot"] = Field(
        default="pool",
        description="pool: a purchase lets the whole pool last as long as it does; lot: each ends by itself",
    )


class PromotionEntry(_Entry):
    """A bonus on purchases ordered in a period; both times carry their UTC offset."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    begins: str = Field(description="ISO 8601 with offset, e.g. 2026-01-01T00:00:00+07:00")
    ends: str = Field(description="The first moment after it")
    percent: ExactDecimal | None = Field(default=None, description="Of the credits bought")
    credits: ExactDecimal | None = Field(default=None, description="The same for every purchase")
    pool: PoolName | None = Field(
        default=None, description="Where the bonus goes; default: the purchases' pool"
    )
    min_credits: ExactDecimal = Field(default="0", description="Smallest purchase it is given for")


class ReferralEntry(_Entry):
    """What both sides get in refCredits when somebody who was referred first buys."""

    percent: ExactDecimal = Field(description="Of the credits bought")
    min_bonus: ExactDecimal = "0"
    max_bonus: ExactDecimal | None = None


class SepayEntry(_Entry):
    """Bank transfers, told by a SePay-style webhook."""

    api_key_env: str | None = Field(
        default=None, description="Variable with the key of `Authorization: Apikey`"
    )
    api_key_file: str | None = None
    sub_account: str | None = Field(
        default=None, description="Only transfers to this sub-account; absent: the main one only"
    )
    account_number: str | None = Field(default=None, description="Only transfers to this account")
    bank: str | None = Field(default=None, description="Bank's short name, for the transfer's QR code")
    currency: Currency = "VND"
    utc_offset: Annotated[str, Field(pattern=r"^[+-]\d{2}:\d{2}$")] = Field(
        default="+07:00", description="Of the dates the bank writes without one"
    )


class StripeEntry(_Entry):
    """Card payments, told by Stripe's signed webhook."""

    webhook_secret_env: str | None = Field(
        default=None, description="Variable with the endpoint's secret (whsec_…)"
    )
    webhook_secret_file: str | None = None
    tolerance_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=300, description="Age at which a delivery is stale"
    )


class CreditsEntry(_Entry):
    """Purchases: prices, bounds, validity, promotions, referrals, providers."""

    rates: dict[Currency, ExactDecimal] = Field(
        default={}, description="Currency -> what one credit (1 USD of usage) costs; empty: nothing is sold"
    )
    pool: PoolName = Field(default="creditsNew", description="Where purchases go")
    min_credits: ExactDecimal = "20"
    max_credits: ExactDecimal = "100"
    whole_credits: bool = Field(default=True, description="Only whole numbers of credits are sold")
    order_minutes: Annotated[int, Field(ge=1, le=10_080)] = Field(
        default=15, description="How long an order may be paid; a later payment awaits an operator"
    )
    order_prefix: Annotated[str, Field(pattern=r"^[A-Z]{2,10}$")] = Field(
        default="TROLL", description="Begins every order code"
    )
    orders_open_max: Annotated[int, Field(ge=1, le=1000)] = bounds.orders_open_per_user_max
    validity: dict[PoolName, ValidityEntry] = Field(
        default={}, description="Default: credits and creditsNew 7 days, whole pool; the others never end"
    )
    promotions: list[PromotionEntry] = []
    referral: ReferralEntry | None = None
    sepay: SepayEntry | None = None
    stripe: StripeEntry | None = None
    plans: list[PlanEntry] = Field(default=[], description="Subscriptions into the wallet `subscription`")
    allocations: list[AllocationEntry] = Field(
        default=[], description="What users may move between their own pools; empty: nothing"
    )
