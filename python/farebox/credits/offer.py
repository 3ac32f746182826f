"""What money buys: price, bonus and end of a purchase. Pure; every answer follows from settings and time.

The price and the bonus are those of the moment of the order: who pays in time gets what he was shown.
"""

from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal

from farebox.base.errors import UsageError
from farebox.base.units import PICO_PER_USD, pico_from_usd, usd_from_pico
from farebox.config.credits import CreditsSettings, Promotion
from farebox.credits.currencies import plain, rounded

_EXACT = Context(prec=60)


@dataclass(frozen=True, slots=True)
class Bonus:
    """Credit on top of what was bought; nothing where `amount_pico` is 0."""

    name: str
    pool: str
    amount_pico: int


NO_BONUS = Bonus("", "", 0)


@dataclass(frozen=True, slots=True)
class Quote:
    """A purchase as it is offered now."""

    pool: str
    credits_pico: int
    amount: Decimal
    currency: str
    rate: Decimal
    bonus: Bonus


def quote(settings: CreditsSettings, credits_wanted: str, currency: str, now_ms: int) -> Quote:
    """What so many credits cost now. Raises UsageError on an amount or currency that is not sold."""
    if not settings.rates:
        raise UsageError("nothing is sold here: the configuration has no credits.rates")
    rate = settings.rates.get(currency or next(iter(settings.rates)))
    if rate is None:
        raise UsageError(f"{currency!r} is not taken; pay in {', '.join(settings.rates)}")
    chosen = currency or next(iter(settings.rates))
    try:
        credits_pico = pico_from_usd(credits_wanted)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not settings.min_pico <= credits_pico <= settings.max_pico:
        smallest, largest = usd_from_pico(settings.min_pico), usd_from_pico(settings.max_pico)
        raise UsageError(f"between {smallest} and {largest} credits are sold at a time, not {credits_wanted}")
    if settings.whole_credits and credits_pico % PICO_PER_USD:
        raise UsageError(f"only whole credits are sold, not {credits_wanted}")
    amount = rounded(Decimal(usd_from_pico(credits_pico)) * rate, chosen)
    return Quote(settings.pool, credits_pico, amount, chosen, rate, bonus(settings, credits_pico, now_ms))


def bonus(settings: CreditsSettings, credits_pico: int, at_ms: int) -> Bonus:
    """The bonus of a purchase at a moment: of several promotions the one that gives most."""
    offered = [
        Bonus(promotion.name, promotion.pool, _bonus_pico(promotion, credits_pico))
        for promotion in settings.promotions
        if promotion.begins_ms <= at_ms < promotion.ends_ms and credits_pico >= promotion.min_credits_pico
    ]
    return max(offered, key=lambda one: one.amount_pico, default=NO_BONUS)


def credits_for(amount: Decimal, rate: Decimal) -> int:
    """Pico-credits an amount pays for at a rate, never more than was paid for."""
    pico = _EXACT.divide(amount * PICO_PER_USD, rate)
    return int(pico.to_integral_value(rounding=ROUND_DOWN))


def percent_of(percent: Decimal, amount_pico: int) -> int:
    """A percentage of an amount, rounded half to even to the pico."""
    share = _EXACT.multiply(percent, Decimal(amount_pico)).scaleb(-2, context=_EXACT)
    return int(share.to_integral_value(rounding=ROUND_HALF_EVEN))


def quote_document(offered: Quote) -> dict[str, object]:
    """A quote as an order keeps it."""
    return {
        "pool": offered.pool,
        "credits": usd_from_pico(offered.credits_pico),
        "amount": plain(offered.amount),
        "currency": offered.currency,
        "rate": plain(offered.rate),
        "bonus": {
            "name": offered.bonus.name,
            "pool": offered.bonus.pool,
            "credits": usd_from_pico(offered.bonus.amount_pico),
        },
    }


def _bonus_pico(promotion: Promotion, credits_pico: int) -> int:
    return promotion.fixed_pico or percent_of(promotion.percent, credits_pico)
