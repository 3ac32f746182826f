"""What requests may say: strict models, decimals as strings, bounded texts, no unknown fields.

Amounts are never JSON numbers: a client's parser or ours might have rounded them.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from farebox.base import limits

Amount = Annotated[
    str, Field(pattern=r"^-?\d{1,12}(\.\d{1,12})?$", description="USD or credits, as a string")
]
Name = Annotated[str, Field(min_length=1, max_length=50)]
Pool = Annotated[str, Field(min_length=1, max_length=30)]
Text = Annotated[str, Field(max_length=limits.console_text_chars_max)]
Reason = Annotated[str, Field(min_length=3, max_length=limits.console_text_chars_max)]
ModelName = Annotated[str, Field(min_length=1, max_length=limits.model_name_bytes_max)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class _Input(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _Query(BaseModel):
    """What a query string says; whatever else stands there is nobody's business."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class PeriodQuery(_Query):
    """A period: a word (1h, 2h, 3h, 4h, 8h, 24h, 3d, 7d, 30d, all), or from and to. Default: 24h."""

    period: Annotated[str, Field(max_length=20)] = ""
    begins: Annotated[str, Field(max_length=40, alias="from", description="a date, a moment or ms")] = ""
    ends: Annotated[str, Field(max_length=40, alias="to", description="a date, included, a moment or ms")] = (
        ""
    )

    def words(self, otherwise: str = "") -> dict[str, str]:
        """As the periods want them; `otherwise` is the period where none is asked for."""
        asked = self.period or ("" if self.begins or self.ends else otherwise)
        return {"period": asked, "from": self.begins, "to": self.ends}


class SpendersQuery(PeriodQuery):
    """How many users of a period."""

    limit: Annotated[int, Field(ge=1, le=limits.console_page_max)] = 20


class LogsQuery(PeriodQuery):
    """Which request-log rows. Default period: all."""

    user: Annotated[str, Field(max_length=200)] = ""
    model: Annotated[str, Field(max_length=limits.model_name_bytes_max)] = ""
    wallet: Annotated[str, Field(max_length=30)] = ""
    outcome: Annotated[str, Field(max_length=30)] = ""
    failed: bool | None = None
    before: Annotated[str, Field(max_length=40, description="the `next` of the page before")] = ""
    limit: Annotated[int, Field(ge=1, le=limits.console_page_max)] = 50


class PageQuery(_Query):
    """A page of a list."""

    before: Annotated[str, Field(max_length=300, description="the `next` of the page before")] = ""
    limit: Annotated[int, Field(ge=1, le=limits.console_page_max)] = 50


class PaymentsQuery(PageQuery):
    """Payments, of one user or of one status."""

    user: Annotated[str, Field(max_length=200)] | None = None
    status: Annotated[str, Field(max_length=30)] | None = None


class HistoryQuery(PageQuery):
    """A page of a user's payments under the two-pool system's names, which knew no pages."""

    limit: Annotated[int, Field(ge=1, le=limits.records_page_max)] = limits.records_page_max


class LedgerQuery(PageQuery):
    """A page of ledger rows."""

    before: Annotated[str, Field(max_length=400, description="the `next` of the page before")] = ""


class OffsetQuery(_Query):
    """A page by its distance from the newest."""

    limit: Annotated[int, Field(ge=0, le=limits.console_page_max)] = 50
    offset: Annotated[int, Field(ge=0, le=limits.wallet_rows_offset_max)] = 0


class AuditQuery(PageQuery):
    """Entries of the audit log, of one actor or about one subject."""

    actor: Annotated[str, Field(max_length=100)] = ""
    subject: Annotated[str, Field(max_length=200)] = ""


class AfterQuery(_Query):
    """A page of a list that is sorted by name."""

    after: Annotated[str, Field(max_length=200, description="the `next` of the page before")] = ""
    limit: Annotated[int, Field(ge=1, le=limits.console_page_max)] = 50


class UsersQuery(AfterQuery):
    """Users by name; `q`: how their names begin."""

    q: Annotated[str, Field(max_length=50, pattern=r"^[ -~]*$")] = ""


class LeasesQuery(AfterQuery):
    """Leases, of one journal or of all."""

    journal: Annotated[str, Field(max_length=16)] = ""


class NothingInput(_Input):
    """Nothing is to be said."""


class CreateUserInput(_Input):
    """A new account's name."""

    user: Name


class KeyLimitsInput(_Input):
    """What a key may do; null: the service's rate, every model."""

    requests_per_minute: Annotated[int, Field(ge=1, le=limits.requests_per_minute_max)] | None = None
    allowed_models: Annotated[list[ModelName], Field(max_length=200)] | None = None


class KeyInput(KeyLimitsInput):
    """A new API key."""

    label: Annotated[str, Field(max_length=64)] = ""
    expires_ms: Annotated[int, Field(ge=0, le=1 << 53)] | None = None


class TokenInput(_Input):
    """A new admin token."""

    name: Name
    role: Annotated[str, Field(pattern=r"^(admin|support|read-only)$")]
    expires_ms: Annotated[int, Field(ge=0, le=1 << 53)] | None = None


class SettleInput(_Input):
    """What a parked exchange is charged."""

    amount: Amount


class OrderInput(_Input):
    """What somebody wants to buy."""

    credits: Amount
    currency: Currency | None = None


class DecisionInput(_Input):
    """An operator's decision on a payment that waits; `user` and `credits` where the order does not say."""

    note: Reason
    user: Name | None = None
    credits: Amount | None = None


class RefusalInput(_Input):
    """Why a payment credits nothing."""

    note: Reason


class PaymentInput(_Input):
    """A payment an operator took himself."""

    user: Name
    credits: Amount
    amount: Amount
    currency: Currency
    receipt: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    note: Reason


class GrantInput(_Input):
    """Credit given, or taken where negative (corrections)."""

    pool: Pool
    amount: Amount
    reason: Reason
    expires_ms: Annotated[int, Field(ge=0, le=1 << 53)] | None = None


class TransferInput(_Input):
    """Credit moved between users or pools."""

    user: Name
    pool: Pool
    to_user: Name
    to_pool: Pool
    amount: Amount
    reason: Reason
    dry_run: bool = False


class ReferralInput(_Input):
    """Who brought whom."""

    user: Name
    referrer: Name


class ActiveInput(_Input):
    """Whether a user's requests are accepted."""

    active: bool
    reason: Reason


class AllocationInput(_Input):
    """Credit moved between pools of one's own."""

    pool: Pool
    to_pool: Pool
    amount: Amount
    dry_run: bool = False


class LoginInput(_Input):
    """A credential to begin a session with: an admin token or an API key, or a user's name and password."""

    key: Annotated[str, Field(max_length=limits.api_key_bytes_max)] = ""
    user: Annotated[str, Field(max_length=50)] = ""
    password: Annotated[str, Field(max_length=limits.password_chars_max)] = ""


class PasswordInput(_Input):
    """A password to log in with; the proxy takes API keys only."""

    password: Annotated[
        str, Field(min_length=limits.password_chars_min, max_length=limits.password_chars_max)
    ]


class CancelInput(_Input):
    """Nothing is to be said to cancel."""


class PeriodInput(_Input):
    """A period of a plan, paid for outside of any provider."""

    subscription: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    plan: Annotated[str, Field(min_length=1, max_length=64)]
    starts_ms: Annotated[int, Field(ge=0, le=1 << 53)]
    ends_ms: Annotated[int, Field(ge=0, le=1 << 53)]


class UndoInput(_Input):
    """Which move is taken back, by the `key` its answer named, and why."""

    key: Annotated[str, Field(min_length=1, max_length=80)]
    reason: Reason
    dry_run: bool = False
