"""What answers of statistics say, as models: the OpenAPI document and the answers are made of the same ones.

Names of the replaced system stay as they were, money as numbers included; beside each such number stands the
same amount as a string, `…_usd`. Both are exact: numbers are written from decimals, never from floats.
"""

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field

from farebox.base.units import usd_from_pico


class _Output(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Span(_Output):
    """The period that was asked for; `to_ms` null: until now."""

    period: str
    from_ms: int
    to_ms: int | None


class UserStats(Span):
    """The cards. Balances are those of now; what was used and who was active is of the period."""

    total_users: int
    active_users: int
    total_credits: Decimal = Field(description="balance of the pool credits, all users")
    total_credits_usd: str
    total_credits_used: Decimal = Field(description="Burned: the wallet ohmygpt")
    total_credits_used_usd: str
    total_ref_credits: Decimal
    total_ref_credits_usd: str
    total_creditsNew: Decimal  # noqa: N815 - a name of the replaced system
    total_creditsNew_usd: str  # noqa: N815
    total_creditsNewUsed: Decimal = Field(description="New Burned: the wallet openhands")  # noqa: N815
    total_creditsNewUsed_usd: str  # noqa: N815
    total_subscription_usd: str = Field(description="balances of credits_permanent and credits_monthly")
    total_subscription_used_usd: str = Field(description="the wallet subscription")
    total_used_usd: str = Field(description="the three wallets together")
    total_input_tokens: int
    total_output_tokens: int


class Used(_Output):
    """What was used, in the words of the replaced system."""

    inputTokens: int  # noqa: N815
    outputTokens: int  # noqa: N815
    cacheWriteTokens: int  # noqa: N815
    cacheHitTokens: int  # noqa: N815
    totalTokens: int  # noqa: N815
    creditsBurned: Decimal  # noqa: N815
    creditsBurned_usd: str  # noqa: N815
    requestCount: int  # noqa: N815
    ohmygpt_usd: str
    openhands_usd: str
    subscription_usd: str
    failures: int
    avg_latency_ms: int
    avg_ttft_ms: int | None


class UsedOfModel(Used):
    """One model's share."""

    model: str


class ModelStats(Span):
    """Models, most tokens first."""

    models: list[UsedOfModel]


class UsedByUser(Used):
    """One user's share."""

    user: str


class Spenders(Span):
    """Users, who spent most first."""

    users: list[UsedByUser]


class Usage(Span):
    """One user's use of a period."""

    usage: Used


class UsedInStep(Used):
    """One step of a curve."""

    start_ms: int


class Series(Span):
    """A period in steps: hours up to two days, days of the operator's zone up to 31, UTC's days beyond."""

    points: list[UsedInStep]


class Metrics(Span):
    """Requests of the period."""

    total_requests: int
    tokens_used: int
    avg_latency_ms: int
    success_rate: Decimal = Field(description="percent")
    avg_ttft_ms: int | None
    failures: int
    cut: int
    partial: int
    estimated: int
    quarantined: int


def usd_number(amount_pico: int) -> Decimal:
    """An amount as the JSON number it is."""
    return Decimal(usd_from_pico(amount_pico))
