"""Plans of the wallet `subscription`, and which of his pools a user may move credit between, as written."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from farebox.config.exact import ExactDecimal

PoolName = Literal["credits", "refCredits", "creditsNew", "credits_permanent", "credits_monthly"]
PlanId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", defer_build=True)


class PlanEntry(_Entry):
    """What a subscriber gets with each paid invoice, into credits_monthly."""

    id: PlanId
    name: Annotated[str, Field(min_length=1, max_length=80)]
    credits_monthly: ExactDecimal = Field(description="Credits of one period")
    usd_per_credit: ExactDecimal = Field(description="What one credit is worth in usage, said on purpose")
    renewal: Literal["reset", "accumulate"] = Field(
        default="reset",
        description="reset: what is left of a period ends with it; accumulate: it stays until it is spent",
    )
    price_ids: list[str] = Field(default=[], description="The provider's price or product ids of this plan")


class AllocationEntry(_Entry):
    """A way credit may go between a user's own pools without an operator."""

    from_pool: PoolName
    to_pool: PoolName
    rate: ExactDecimal = Field(default="1", description="What one USD taken becomes in the other pool")
    min: ExactDecimal = Field(default="0.01", description="USD at least, each time")
    max: ExactDecimal = Field(description="USD at most, each time")
    max_per_day: ExactDecimal = Field(description="USD at most within 24 hours")
