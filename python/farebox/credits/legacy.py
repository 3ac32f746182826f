"""Documents of the replaced system as what Farebox imports: openings, keys, logs. Pure.

Fields and their meaning: the collections usersNew, user_keys and request_logs of the proxy this replaces,
and users_credits of the two-pool system. Promises: absent is 0 or none, unknown fields are ignored, and what
cannot be trusted with money raises `UnusableError` with the reason; a key leaves here as its digest (M11).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, Final

from farebox.base.errors import FareboxError
from farebox.base.ids import is_user_name
from farebox.base.keys import display_prefix, key_digest
from farebox.base.records import KeyRecord, Transaction
from farebox.ledger.opening import LARGEST_PICO, exact_pico, fine_usd, opening_row
from farebox.store.openings import PARKED_BY_IMPORT, OldLog, Opening

Document = Mapping[str, Any]

USERS: Final = "usersNew"
TWO_POOL_USERS: Final = "users_credits"
POOLS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    USERS: ("credits", "refCredits", "creditsNew"),
    TWO_POOL_USERS: ("credits_permanent", "credits_monthly"),
}
"""Collection with balances -> the pools it opens."""

_OWN_KEY: Final = "sk-trollllm-"
"""How keys begin that users make themselves: one at a time, a newer one replaces it."""
_EXACT: Final = Context(prec=1200)  # any double times a rate
_DATES: Final = {"credits": ("purchasedAt", "expiresAt"), "creditsNew": ("purchasedAtNew", "expiresAtNew")}


class UnusableError(FareboxError):
    """A document that nothing can be made of, with the reason."""


@dataclass(frozen=True, slots=True)
class Balances:
    """What one document says a user has: exact by pool in pico, with the rest that rounding leaves."""

    opening: Opening
    pico: Mapping[str, int]
    rest: Mapping[str, Fraction]


def user_balances(document: Document, admins: frozenset[str], now_ms: int) -> Balances:
    """A document of usersNew. A balance that is no amount parks the account. Raises UnusableError.

    Roles are not taken over: the replaced system let anybody register as an administrator. `admins` are.
    """
    user = user_name_of(document)
    pico, rest, wrong = _amounts(document, POOLS_OF[USERS])
    if not wrong and document.get("migration") is False and any(pico.values()) and user not in admins:
        wrong = "the balance still waits for its rate migration in the replaced system"
    ends = {pool: moment_ms(document.get(names[1])) for pool, names in _DATES.items()}
    opening = Opening(
        user=user,
        role="admin" if user in admins else "user",
        is_active=document.get("isActive") is not False,
        created_ms=moment_ms(document.get("createdAt")) or now_ms,
        rows=() if wrong else _rows(user, USERS, document, pico, rest, now_ms),
        ends_ms=ends,
        bought_ms={pool: moment_ms(document.get(names[0])) for pool, names in _DATES.items()},
        counters={
            "creditsUsed_pico": _lifetime_pico(document.get("creditsUsed")),
            "creditsNewUsed_pico": _lifetime_pico(document.get("creditsNewUsed")),
            "tokensUserNew": _count(document.get("tokensUserNew")),
            "totalInputTokens": _count(document.get("totalInputTokens")),
            "totalOutputTokens": _count(document.get("totalOutputTokens")),
        },
        parked=f"{PARKED_BY_IMPORT}{wrong}" if wrong else "",
    )
    return Balances(opening, pico, rest)


def two_pool_balances(document: Document, usd_per_credit: Decimal, now_ms: int) -> Balances:
    """A document of users_credits; credits become USD at the stated rate. Raises UnusableError.

    A record from before the two pools has only `balance`: it goes to the permanent pool.
    """
    user = user_name_of({"_id": document.get("user_id", document.get("_id"))})
    known = {pool: document.get(pool) for pool in POOLS_OF[TWO_POOL_USERS]}
    if all(value is None for value in known.values()):
        known["credits_permanent"] = document.get("balance")
    in_usd = {pool: times(value, usd_per_credit) for pool, value in known.items()}
    pico, rest, wrong = _amounts(in_usd, POOLS_OF[TWO_POOL_USERS])
    opening = Opening(
        user=user,
        role="user",
        is_active=True,
        created_ms=moment_ms(document.get("created_at")) or now_ms,
        rows=() if wrong else _rows(user, TWO_POOL_USERS, known, pico, rest, now_ms),
        counters={
            "total_earned_pico": _lifetime_pico(times(document.get("total_earned"), usd_per_credit)),
            "total_spent_pico": _lifetime_pico(times(document.get("total_spent"), usd_per_credit)),
        },
        parked=f"{PARKED_BY_IMPORT}{wrong}" if wrong else "",
    )
    return Balances(opening, pico, rest)


def own_key(document: Document, now_ms: int) -> tuple[KeyRecord, int] | None:
    """The key a document of usersNew holds, and when it was made; None without one."""
    key = document.get("apiKey")
    if not isinstance(key, str) or not key:
        return None
    created_ms = moment_ms(document.get("apiKeyCreatedAt")) or moment_ms(document.get("createdAt"))
    return _key(str(document["_id"]), key, "imported", True, None), created_ms or now_ms


def other_key(document: Document, current: Mapping[str, str], now_ms: int) -> tuple[KeyRecord, int]:
    """A document of user_keys. Raises UnusableError.

    `current`: user -> digest of the key his own document holds. Another key of that kind was rotated away and
    stays valid in the replaced system by mistake: it is imported as revoked. `planExpiresAt` was never
    looked at there, so it ends nothing here.
    """
    key, user = document.get("_id"), document.get("name")
    if not isinstance(key, str) or not key or not isinstance(user, str):
        raise UnusableError("a key without its text or its owner")
    rotated = key.startswith(_OWN_KEY) and current.get(user) not in {None, key_digest(key)}
    active = document.get("isActive") is not False and not rotated
    ends_ms = moment_ms(document.get("expiresAt"))
    label = "imported, rotated before" if rotated else str(document.get("notes") or "imported")[:64]
    return _key(user, key, label, active, ends_ms), moment_ms(document.get("createdAt")) or now_ms


def old_log(document: Document) -> tuple[OldLog, Fraction]:
    """A document of request_logs, and the rest that rounding its cost leaves. Raises UnusableError.

    The client's key is stored as its digest; a row without `creditType` counts as ohmygpt.
    """
    user = document.get("userId")
    created_ms = moment_ms(document.get("createdAt"))
    if created_ms is None:
        raise UnusableError("no date")
    try:
        charge_pico, rest = exact_pico(document.get("creditsCost"))
    except ValueError as error:
        raise UnusableError(f"creditsCost is {error}") from None
    key = document.get("userKeyId")
    row = OldLog(
        exchange=str(document["_id"]),
        user=user if isinstance(user, str) else "",
        key=key_digest(key) if isinstance(key, str) else "",
        model=text_of(document.get("model")),
        upstream=text_of(document.get("upstream") or text_of(document.get("trollKeyId")).partition(":")[0]),
        input_tokens=_count(document.get("inputTokens")),
        output_tokens=_count(document.get("outputTokens")),
        cache_write_tokens=_count(document.get("cacheWriteTokens")),
        cache_hit_tokens=_count(document.get("cacheHitTokens")),
        tokens_used=_count(document.get("tokensUsed")),
        charge_pico=charge_pico,
        credit_type="openhands" if document.get("creditType") == "openhands" else "ohmygpt",
        status=_count(document.get("statusCode")) or 200,
        latency_ms=_count(document.get("latencyMs")),
        created_ms=created_ms,
    )
    return row, rest


def friend_key(document: Document, now_ms: int) -> tuple[KeyRecord, int]:
    """A document of friend_keys, as a revoked key of its owner. Raises UnusableError.

    It could spend so many USD on each model, which no key can here: an operator who restores it lifts that.
    """
    key, owner = document.get("_id"), document.get("ownerId")
    if not isinstance(key, str) or not key or not isinstance(owner, str):
        raise UnusableError("a key without its text or its owner")
    kept = document.get("modelLimits")
    models = [one for one in kept if isinstance(one, Mapping)] if isinstance(kept, list) else []
    allowed = tuple(text_of(one.get("modelId")) for one in models if one.get("enabled") is not False)
    made = _key(owner, key, "imported friend key, had limits", False, None)
    return replace(made, allowed_models=allowed), moment_ms(document.get("createdAt")) or now_ms


def moment_ms(value: object) -> int | None:
    """A stored date in ms since the epoch; None for none, or for what is no date."""
    if not isinstance(value, datetime):
        return None
    seconds_ms = int(value.timestamp()) * 1000
    return seconds_ms + value.microsecond // 1000


def user_name_of(document: Document) -> str:
    """Whose document it is. Raises UnusableError."""
    name = document.get("_id")
    if not isinstance(name, str) or not is_user_name(name):
        raise UnusableError(f"{str(name)[:80]!r} is no user name: 3 to 50 of a-z, 0-9, _ and -")
    return name


def _amounts(document: Document, pools: tuple[str, ...]) -> tuple[dict[str, int], dict[str, Fraction], str]:
    """(pico, rest, what is wrong) over pools; a pool that is no amount counts as 0."""
    pico: dict[str, int] = {}
    rest: dict[str, Fraction] = {}
    wrong: list[str] = []
    for pool in pools:
        try:
            pico[pool], rest[pool] = exact_pico(document.get(pool))
        except ValueError as error:
            pico[pool], rest[pool] = 0, Fraction(0)
            wrong.append(f"{pool} is {error}")
    return pico, rest, ", ".join(wrong)


def _rows(
    user: str,
    reference: str,
    document: Document,
    pico: Mapping[str, int],
    rest: Mapping[str, Fraction],
    now_ms: int,
) -> tuple[Transaction, ...]:
    """One row for each pool that holds something; one of zero where nothing does."""
    pools = [pool for pool, amount in pico.items() if amount] or [next(iter(pico))]
    rows = []
    for pool in pools:
        cause = f"opening balance: {document.get(pool)} in {reference}"
        if rest[pool]:
            cause += f", rounded by {fine_usd(-rest[pool])} USD"
        rows.append(opening_row(user, pool, pico[pool], reference, cause, now_ms))
    return tuple(rows)


def _key(user: str, key: str, label: str, active: bool, ends_ms: int | None) -> KeyRecord:
    return KeyRecord(
        digest=key_digest(key),
        user=user,
        prefix=display_prefix(key)[: len(key) // 3],
        label=label,
        key_active=active,
        user_active=True,
        role="user",
        requests_per_minute=None,
        allowed_models=None,
        expires_at_ms=ends_ms,
    )


def times(value: object, rate: Decimal) -> object:
    """Credits in USD, exact; what is no number stays what it is."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return value
    return _EXACT.multiply(Decimal(value), rate)


def _lifetime_pico(value: object) -> int:
    """A lifetime counter of money: for information, so what is no amount counts as 0."""
    try:
        return exact_pico(value)[0]
    except ValueError:
        return 0


def _count(value: object) -> int:
    """A counter; what is none, or not a counter, counts as 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= LARGEST_PICO else 0


def text_of(value: object) -> str:
    """A text, cut to what is kept of one; empty for what is none."""
    return value[:256] if isinstance(value, str) else ""
