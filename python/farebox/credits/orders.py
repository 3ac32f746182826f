"""Orders: a user says how much he wants to buy, and gets a code that his payment must carry.

Promises: a code is used once; the same request made again gives the same order; an order is payable until
`due_ms`, by the clock, whether or not anybody looks; how many a user may have open is limited (M10).
"""

import hashlib
import re
from base64 import b32encode
from collections.abc import Mapping

from farebox.base.errors import UsageError
from farebox.base.ids import new_lot_id
from farebox.config.credits import CreditsSettings
from farebox.credits.accounts import unknown_user
from farebox.credits.offer import quote, quote_document
from farebox.store.base import Event, EventResult, Record, RecordChange, Store

PENDING, PAID, EXPIRED = "pending", "paid", "expired"
_CODE_LENGTH = 12


async def place_order(
    store: Store,
    settings: CreditsSettings,
    user: str,
    credits_wanted: str,
    currency: str,
    actor: str,
    now_ms: int,
    request: str = "",
) -> Record:
    """A new order at the current price. `request` names the attempt: repeated, it finds its order again.

    Raises UsageError: nobody of that name, not for sale, too many open, or the request was another one.
    """
    offered = quote_document(quote(settings, credits_wanted, currency, now_ms))
    code = order_code(settings.order_prefix, user, request or new_lot_id())
    known = await store.record("order", code)
    if known is not None:
        return _same(known, offered)
    if await store.account(user) is None:
        raise UsageError(unknown_user(user))
    await _check_open(store, settings, user, now_ms)
    order = Record(
        kind="order",
        id=code,
        revision=1,
        document=offered,
        user=user,
        status=PENDING,
        created_ms=now_ms,
        due_ms=now_ms + settings.order_lasts_ms,
    )
    event = Event((), records=(RecordChange.insert(order),), actor=actor)
    if await store.apply_event(event, now_ms) is EventResult.DONE:
        return order
    known = await store.record("order", code)
    if known is None:
        raise UsageError("the order was not stored; try again")
    return _same(known, offered)


def order_code(prefix: str, user: str, request: str) -> str:
    """The code of a user's request: letters and digits of fixed length, so that banks leave it whole."""
    digest = hashlib.sha256(f"{user}\n{request}".encode()).digest()
    return prefix + b32encode(digest).decode()[:_CODE_LENGTH]


def find_code(prefix: str, *texts: str) -> str:
    """The order code in a transfer's texts, whatever the bank did to case and spaces; or empty."""
    pattern = f"{prefix}[A-Z2-7]{{{_CODE_LENGTH}}}"
    for text in texts:
        found = re.search(pattern, re.sub(r"[^A-Z0-9]", "", text.upper()))
        if found is not None:
            return found.group()
    return ""


def order_state(order: Record, now_ms: int) -> str:
    """pending, paid or expired; the clock decides, no sweep is needed."""
    if order.status == PENDING and order.due_ms is not None and now_ms >= order.due_ms:
        return EXPIRED
    return order.status


def order_view(order: Record, settings: CreditsSettings, now_ms: int) -> dict[str, object]:
    """An order as its user sees it."""
    view: dict[str, object] = {
        "order": order.id,
        "status": order_state(order, now_ms),
        "remaining_seconds": max(0, (order.due_ms or 0) - now_ms) // 1000,
        "created_ms": order.created_ms,
        "expires_ms": order.due_ms,
        "payment": order.reference or None,
        **order.document,
    }
    sepay = settings.sepay
    if sepay is not None and sepay.currency == order.document["currency"]:
        view["transfer"] = {
            "bank": sepay.bank,
            "account": sepay.sub_account or sepay.account_number,
            "amount": order.document["amount"],
            "text": order.id,
        }
    return view


def _same(known: Record, offered: Mapping[str, object]) -> Record:
    if any(known.document[name] != offered[name] for name in ("credits", "currency")):
        raise UsageError("this request was made before with another amount; use a new Idempotency-Key")
    return known


async def _check_open(store: Store, settings: CreditsSettings, user: str, now_ms: int) -> None:
    limit = settings.orders_open_max
    recent = await store.records("order", user=user, status=PENDING, limit=limit)
    if len(recent) == limit and all(order_state(order, now_ms) == PENDING for order in recent):
        raise UsageError(f"{user} has {limit} unpaid orders; pay one or wait until they have expired")
