"""The section `credits`, judged: exact amounts, moments and where the secrets are. Pure.

Whoever sells credit reads it from here; what it is when nobody wrote it is said in `credits_document`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from farebox.config.credits_document import (
    CreditsEntry,
    PromotionEntry,
    ReferralEntry,
    SepayEntry,
    StripeEntry,
    ValidityEntry,
)
from farebox.config.plans import Allocation, Plan, allocations, plans
from farebox.config.problems import Problems

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Validity:
    """How long credit of a pool lasts (None: for ever), and whether a purchase renews the whole pool."""

    lasts_ms: int | None
    whole_pool: bool


_COMPATIBLE: Mapping[str, Validity] = dict.fromkeys(("credits", "creditsNew"), Validity(7 * DAY_MS, True))
"""What the replaced system does: seven days, counted anew for the whole pool with each purchase."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A bonus on purchases from `begins_ms` to before `ends_ms`: a percentage, or a fixed amount."""

    name: str
    begins_ms: int
    ends_ms: int
    percent: Decimal
    fixed_pico: int
    pool: str
    min_credits_pico: int


@dataclass(frozen=True, slots=True)
class Referral:
    """The bonus of a first purchase for who made it and who brought him."""

    percent: Decimal
    min_pico: int
    max_pico: int | None


@dataclass(frozen=True, slots=True)
class SecretPlace:
    """Where a secret is: a variable of the environment, or a file."""

    variable: str | None
    file: Path | None


@dataclass(frozen=True, slots=True)
class Sepay:
    """A bank's webhook."""

    api_key: SecretPlace
    sub_account: str | None
    account_number: str | None
    bank: str | None
    currency: str
    utc_offset: timedelta


@dataclass(frozen=True, slots=True)
class Stripe:
    """Stripe's webhook."""

    webhook_secret: SecretPlace
    tolerance_s: int


@dataclass(frozen=True, slots=True)
class CreditsSettings:
    """Everything purchases are decided by. Rates are currency units for one credit."""

    rates: Mapping[str, Decimal]
    pool: str
    min_pico: int
    max_pico: int
    whole_credits: bool
    order_lasts_ms: int
    order_prefix: str
    orders_open_max: int
    validity: Mapping[str, Validity]
    promotions: tuple[Promotion, ...]
    referral: Referral | None
    sepay: Sepay | None
    stripe: Stripe | None
    plans: tuple[Plan, ...] = ()
    allocations: tuple[Allocation, ...] = ()

    def plan(self, named: str) -> Plan | None:
        """The plan of this id, or of a provider's price or product id."""
        return next((plan for plan in self.plans if named == plan.id or named in plan.price_ids), None)

    def expires_ms(self, pool: str, now_ms: int) -> int | None:
        """When credit bought now for a pool ends."""
        validity = self.validity.get(pool)
        return None if validity is None or validity.lasts_ms is None else now_ms + validity.lasts_ms

    def renews(self, pool: str) -> bool:
        """Whether a purchase lets what is in the pool last as long as itself."""
        validity = self.validity.get(pool)
        return validity is not None and validity.whole_pool


def credits_settings(entry: CreditsEntry, problems: Problems) -> CreditsSettings:
    """Settings of the section; faults are reported and stand-ins returned in their place."""
    rates = {currency: Decimal(rate) for currency, rate in entry.rates.items()}
    for currency, rate in rates.items():
        if not rate:
            problems.error(f"credits.rates.{currency}", "must not be 0: credit would be given away")
    smallest, largest = (
        problems.pico(getattr(entry, name), f"credits.{name}") for name in ("min_credits", "max_credits")
    )
    if not 0 < smallest <= largest:
        problems.error("credits.min_credits", "must be above 0 and not above max_credits")
    validity = dict(_COMPATIBLE)
    validity.update((pool, _validity(value)) for pool, value in entry.validity.items())
    return CreditsSettings(
        rates=rates,
        pool=entry.pool,
        min_pico=smallest,
        max_pico=largest,
        whole_credits=entry.whole_credits,
        order_lasts_ms=entry.order_minutes * 60_000,
        order_prefix=entry.order_prefix,
        orders_open_max=entry.orders_open_max,
        validity=validity,
        promotions=tuple(
            _promotion(promotion, entry.pool, f"credits.promotions[{index}]", problems)
            for index, promotion in enumerate(entry.promotions)
        ),
        referral=_referral(entry.referral, problems),
        sepay=_sepay(entry.sepay, rates, problems),
        stripe=_stripe(entry.stripe, problems),
        plans=plans(entry.plans, problems),
        allocations=allocations(entry.allocations, problems),
    )


def _validity(entry: ValidityEntry) -> Validity:
    return Validity(None if entry.days is None else entry.days * DAY_MS, entry.rule == "pool")


def _promotion(entry: PromotionEntry, pool: str, path: str, problems: Problems) -> Promotion:
    begins_ms = _moment_ms(entry.begins, f"{path}.begins", problems)
    ends_ms = _moment_ms(entry.ends, f"{path}.ends", problems)
    if begins_ms >= ends_ms and begins_ms:
        problems.error(f"{path}.ends", "must lie after begins")
    if (entry.percent is None) == (entry.credits is None):
        problems.error(path, "give either percent or credits")
    return Promotion(
        name=entry.name,
        begins_ms=begins_ms,
        ends_ms=ends_ms,
        percent=Decimal(entry.percent or 0),
        fixed_pico=problems.pico(entry.credits or "0", f"{path}.credits"),
        pool=entry.pool or pool,
        min_credits_pico=problems.pico(entry.min_credits, f"{path}.min_credits"),
    )


def _moment_ms(text: str, path: str, problems: Problems) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        problems.error(path, f"{text!r} is no moment; write 2026-01-01T00:00:00+07:00")
        return 0
    if moment.tzinfo is None:
        problems.error(path, f"{text!r} has no time zone; add its offset, e.g. +07:00 or Z")
        return 0
    return int(moment.timestamp() * 1000)


def _referral(entry: ReferralEntry | None, problems: Problems) -> Referral | None:
    if entry is None:
        return None
    largest = entry.max_bonus
    return Referral(
        percent=Decimal(entry.percent),
        min_pico=problems.pico(entry.min_bonus, "credits.referral.min_bonus"),
        max_pico=None if largest is None else problems.pico(largest, "credits.referral.max_bonus"),
    )


def _sepay(entry: SepayEntry | None, rates: Mapping[str, Decimal], problems: Problems) -> Sepay | None:
    if entry is None:
        return None
    if entry.currency not in rates:
        problems.error("credits.sepay.currency", f"credits.rates has no price in {entry.currency}")
    sign = -1 if entry.utc_offset.startswith("-") else 1
    hours, minutes = map(int, entry.utc_offset[1:].split(":"))
    if hours > 14 or minutes > 59:
        problems.error("credits.sepay.utc_offset", f"{entry.utc_offset} is no offset of any time zone")
    return Sepay(
        api_key=_place(entry.api_key_env, entry.api_key_file, "credits.sepay", "api_key", problems),
        sub_account=entry.sub_account or None,
        account_number=entry.account_number or None,
        bank=entry.bank,
        currency=entry.currency,
        utc_offset=sign * timedelta(hours=hours, minutes=minutes),
    )


def _stripe(entry: StripeEntry | None, problems: Problems) -> Stripe | None:
    if entry is None:
        return None
    place = _place(
        entry.webhook_secret_env, entry.webhook_secret_file, "credits.stripe", "webhook_secret", problems
    )
    return Stripe(place, entry.tolerance_s)


def _place(variable: str | None, file: str | None, path: str, name: str, problems: Problems) -> SecretPlace:
    if (variable is None) == (file is None):
        problems.error(path, f"give either {name}_env or {name}_file")
    return SecretPlace(variable, Path(file) if file else None)
