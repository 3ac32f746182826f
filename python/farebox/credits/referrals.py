"""Referrals: when somebody who was brought by another user first buys, both get credit in refCredits.

Promises: once per referred user, whatever is delivered how often (the referral's record and both rows are one
transaction); reversed once with the refund of the payment that earned it; never for a user who brought
himself.
"""

import hashlib
import logging
from dataclasses import replace

from farebox.base.errors import StoreConflictError, UsageError
from farebox.base.records import LotAmount, Transaction
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.config.credits import CreditsSettings, Referral
from farebox.credits.accounts import unknown_user
from farebox.credits.offer import percent_of
from farebox.store.base import Event, EventResult, Record, RecordChange, Store

POOL = "refCredits"
WAITING, AWARDED, REVERSED = "waiting", "awarded", "reversed"
_ATTEMPTS = 8
_log = logging.getLogger(__name__)


async def refer(store: Store, user: str, referrer: str, actor: str, now_ms: int) -> Record:
    """Note who brought a user, before his first purchase. Raises UsageError."""
    if user == referrer:
        raise UsageError("nobody brings himself")
    for name in (user, referrer):
        if await store.account(name) is None:
            raise UsageError(unknown_user(name))
    if await store.transactions(user, 1, kind="earned_purchase"):
        raise UsageError(f"{user} has bought before; a referral counts for a first purchase only")
    referral = Record(
        kind="referral",
        id=user,
        revision=1,
        document={"referrer": referrer},
        user=referrer,
        status=WAITING,
        created_ms=now_ms,
    )
    result = await store.apply_event(Event((), records=(RecordChange.insert(referral),), actor=actor), now_ms)
    if result is EventResult.STALE:
        known = await store.record("referral", user)
        if known is None or known.document["referrer"] != referrer:
            raise UsageError(f"{user} was brought by somebody else already")
        return known
    return referral


async def award(store: Store, settings: CreditsSettings, payment: str, now_ms: int) -> None:
    """Give both sides their bonus for a credited payment, if it is the first; repeatable at any point."""
    for _ in range(_ATTEMPTS):
        if await _award(store, settings, payment, now_ms) is not EventResult.STALE:
            return
    raise StoreConflictError(f"payment {payment} keeps changing; deliver it again for its referral")


async def _award(store: Store, settings: CreditsSettings, payment: str, now_ms: int) -> EventResult | None:
    """The same, once; None where there is nothing to give.

    The payment's record is part of the event: whoever returns it meanwhile makes this begin anew, or finds
    the bonus and reverses it.
    """
    if settings.referral is None:
        return None
    paid = await store.record("payment", payment)
    if paid is None or paid.status != "credited":
        return None
    referral = await store.record("referral", paid.user)
    if referral is None or referral.status != WAITING:
        return None
    bonus_pico = bonus_of(settings.referral, pico_from_usd(str(paid.document["credits"])))
    if not bonus_pico:
        return None
    rows = tuple(
        _row(name, payment, bonus_pico, f"referral of {paid.user}", now_ms)
        for name in (paid.user, str(referral.document["referrer"]))
    )
    document = {
        **referral.document,
        "payment": payment,
        "credits": usd_from_pico(bonus_pico),
        "rows": [{"user": row.user, "lot": row.lots[0].lot} for row in rows],
    }
    awarded = replace(referral, status=AWARDED, document=document)
    changes = (RecordChange.update(awarded), RecordChange.update(paid))
    event = Event(rows, source="referral", records=changes)
    result = await store.apply_event(event, now_ms)
    if result in {EventResult.PARKED, EventResult.UNKNOWN_USER}:
        _log.warning("the referral bonus of %s waits: an account is on hold", paid.user)
    return result


async def reverse(store: Store, user: str, payment: str, now_ms: int) -> None:
    """Take the bonus back, as far as it is there, when the payment that earned it was returned whole."""
    referral = await store.record("referral", user)
    if referral is None or referral.status != AWARDED or referral.document.get("payment") != payment:
        return
    amount_pico = pico_from_usd(str(referral.document["credits"]))
    given = referral.document["rows"]
    rows = tuple(
        Transaction(
            user=part["user"],
            type="refund",
            reference=f"{payment}:referral",
            pool=POOL,
            amount_pico=-amount_pico,
            lots=(LotAmount(part["lot"], POOL, -amount_pico),),
            cause=f"referral of {user} reversed: payment {payment} was returned",
            created_ms=now_ms,
        )
        for part in (given if isinstance(given, list) else [])
    )
    reversed_ = replace(referral, status=REVERSED)
    event = Event(rows, source="referral", records=(RecordChange.update(reversed_),), claims=True)
    if await store.apply_event(event, now_ms) is EventResult.PARKED:
        raise StoreConflictError(f"an account of the referral of {user} is on hold; deliver {payment} again")


def bonus_of(referral: Referral, credits_pico: int) -> int:
    """Each side's bonus for a first purchase."""
    bonus_pico = max(referral.min_pico, percent_of(referral.percent, credits_pico))
    return bonus_pico if referral.max_pico is None else min(bonus_pico, referral.max_pico)


def _row(user: str, payment: str, amount_pico: int, cause: str, now_ms: int) -> Transaction:
    lot = hashlib.sha256(f"{user}:referral:{payment}".encode()).hexdigest()[:24]
    part = LotAmount(lot, POOL, amount_pico)
    return Transaction(user, "earned_referral", payment, POOL, amount_pico, (part,), cause, now_ms)
