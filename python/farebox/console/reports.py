"""Routes of statistics: the cards, models, users, curves, pools, and the search in the request log."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

from farebox.base.errors import UsageError
from farebox.base.units import usd_from_pico
from farebox.console import statistics
from farebox.console.input import LogsQuery, PeriodQuery, SpendersQuery
from farebox.console.output import (
    Metrics,
    ModelStats,
    Series,
    Span,
    Spenders,
    Usage,
    Used,
    UsedByUser,
    UsedInStep,
    UsedOfModel,
    UserStats,
    usd_number,
)
from farebox.console.periods import ALL, Period, period_of
from farebox.console.routes import ADMINS, READERS, USERS, Call, Route, whole_number
from farebox.console.statistics import Burned
from farebox.credits.pool_use import pools_document
from farebox.store.rollups import Sums
from farebox.store.statistics import LogQuery

Document = Mapping[str, object]


async def user_stats(call: Call) -> Document:
    """The cards: balances now, and what was burned in a period."""
    period = _period(call)
    found = await statistics.overview(call.store, period)
    pools, burned = found.pools, found.burned
    subscription_pico = pools.get("credits_permanent", 0) + pools.get("credits_monthly", 0)
    return UserStats(
        **_span(period),
        total_users=found.users,
        active_users=found.active_users,
        **_money("total_credits", pools.get("credits", 0)),
        **_money("total_credits_used", burned.ohmygpt_pico),
        **_money("total_ref_credits", pools.get("refCredits", 0)),
        **_money("total_creditsNew", pools.get("creditsNew", 0)),
        **_money("total_creditsNewUsed", burned.openhands_pico),
        total_subscription_usd=usd_from_pico(subscription_pico),
        total_subscription_used_usd=usd_from_pico(burned.subscription_pico),
        total_used_usd=usd_from_pico(burned.total_pico),
        total_input_tokens=found.sums.input_tokens,
        total_output_tokens=found.sums.output_tokens,
    ).model_dump()


async def model_stats(call: Call) -> Document:
    """What was done with each model in a period."""
    return await _models(call, "")


async def own_models(call: Call) -> Document:
    """What the caller did with each model in a period."""
    return await _models(call, call.caller.name)


async def user_models(call: Call) -> Document:
    """What a user did with each model in a period."""
    return await _models(call, call.path["user"])


async def metrics(call: Call) -> Document:
    """Requests, tokens, latency and success of a period."""
    period = _period(call)
    _, sums = await statistics.totals(call.store, period)
    return Metrics(
        **_span(period),
        total_requests=sums.requests,
        tokens_used=sums.tokens_used,
        avg_latency_ms=_mean(sums.latency_ms, sums.requests) or 0,
        success_rate=_percent(sums.requests - sums.failures, sums.requests),
        avg_ttft_ms=_mean(sums.first_byte_ms, sums.first_bytes),
        failures=sums.failures,
        cut=sums.cut,
        partial=sums.partial,
        estimated=sums.estimated,
        quarantined=sums.quarantined,
    ).model_dump()


async def spenders(call: Call) -> Document:
    """Users by what they spent in a period, most first."""
    period, asked = _period(call), cast("SpendersQuery", call.asked)
    found = await statistics.spenders(call.store, period, asked.limit)
    users = [UsedByUser(user=one.user, **_used(one.burned, one.sums)) for one in found]
    return Spenders(**_span(period), users=users).model_dump()


async def series(call: Call) -> Document:
    """A period in steps."""
    return await _series(call, "")


async def own_series(call: Call) -> Document:
    """The caller's period in steps."""
    return await _series(call, call.caller.name)


async def user_series(call: Call) -> Document:
    """A user's period in steps."""
    return await _series(call, call.path["user"])


async def own_usage(call: Call) -> Document:
    """What the caller used in a period."""
    return await _usage(call, call.caller.name)


async def user_usage(call: Call) -> Document:
    """What a user used in a period."""
    return await _usage(call, call.path["user"])


async def pools(call: Call) -> Document:
    """How the pools are used: balances now, and what each type of transaction did in a period (default all).

    The ledger itself is summed, all of it, which takes seconds where it is large.
    """
    period = period_of(cast("PeriodQuery", call.asked).words(ALL), call.now_ms, call.zone)
    ends_ms = call.now_ms + 1 if period.to_ms is None else period.to_ms
    uses = await call.store.pool_use(period.from_ms, ends_ms)
    return {**_span(period), "pools": pools_document(await call.store.wealth(), uses)}


async def logs(call: Call) -> Document:
    """Request-log rows, newest first; `next` goes on as `before`, also where a page is short."""
    return await _logs(call, cast("LogsQuery", call.asked).user)


async def own_logs(call: Call) -> Document:
    """The caller's request-log rows, newest first."""
    return await _logs(call, call.caller.name)


def log_view(row: Mapping[str, object]) -> dict[str, object]:
    """A request-log row with its cost as the old contract's number, and as strings."""
    cost = row.get("creditsCost", "0")
    exact = Decimal(repr(cost) if isinstance(cost, float) else str(cost))
    return {**row, "creditsCost": exact, "creditsCost_usd": format(exact, "f")}


ROUTES: tuple[Route, ...] = (
    Route("GET", "/admin/user-stats", READERS, user_stats, query=PeriodQuery, answer=UserStats),
    Route("GET", "/admin/model-stats", READERS, model_stats, query=PeriodQuery, answer=ModelStats),
    Route("GET", "/admin/metrics", READERS, metrics, query=PeriodQuery, answer=Metrics),
    Route("GET", "/api/admin/series", READERS, series, query=PeriodQuery, answer=Series),
    Route("GET", "/api/admin/spenders", READERS, spenders, query=SpendersQuery, answer=Spenders),
    Route("GET", "/api/admin/pools", ADMINS, pools, query=PeriodQuery),
    Route("GET", "/api/admin/logs", READERS, logs, query=LogsQuery),
    Route("GET", "/api/admin/users/{user}/usage", READERS, user_usage, query=PeriodQuery, answer=Usage),
    Route(
        "GET", "/api/admin/users/{user}/models", READERS, user_models, query=PeriodQuery, answer=ModelStats
    ),
    Route("GET", "/api/admin/users/{user}/series", READERS, user_series, query=PeriodQuery, answer=Series),
    Route("GET", "/api/usage", USERS, own_usage, query=PeriodQuery, answer=Usage),
    Route("GET", "/api/usage/models", USERS, own_models, query=PeriodQuery, answer=ModelStats),
    Route("GET", "/api/usage/series", USERS, own_series, query=PeriodQuery, answer=Series),
    Route("GET", "/api/logs", USERS, own_logs, query=LogsQuery),
)


async def _models(call: Call, user: str) -> Document:
    period = _period(call)
    found = await statistics.model_usage(call.store, period, user)
    models = [UsedOfModel(model=one.model, **_used(one.burned, one.sums)) for one in found]
    return ModelStats(**_span(period), models=models).model_dump()


async def _series(call: Call, user: str) -> Document:
    period = _period(call)
    found = await statistics.time_series(call.store, period, call.now_ms, call.zone, user)
    points = [UsedInStep(start_ms=one.start_ms, **_used(one.burned, one.sums)) for one in found]
    return Series(**_span(period), points=points).model_dump()


async def _usage(call: Call, user: str) -> Document:
    period = _period(call)
    burned, sums = await statistics.totals(call.store, period, user)
    return Usage(**_span(period), usage=Used(**_used(burned, sums))).model_dump()


async def _logs(call: Call, user: str) -> Document:
    asked = cast("LogsQuery", call.asked)
    period = period_of(asked.words(ALL), call.now_ms, call.zone)
    page = await call.store.search_logs(
        LogQuery(
            user=user,
            model=asked.model,
            wallet=asked.wallet,
            outcome=asked.outcome,
            failed=asked.failed,
            from_ms=period.from_ms,
            to_ms=period.to_ms,
            before=_place(asked.before),
        ),
        asked.limit,
    )
    ends = None if page.next is None else f"{page.next[0]}-{page.next[1]}"
    return {**_span(period), "logs": [log_view(row) for row in page.rows], "next": ends}


def _place(before: str) -> tuple[int, int] | None:
    if not before:
        return None
    created, _, number = before.partition("-")
    created_ms, sequence = whole_number(created, 40), whole_number(number, 40)
    if created_ms is None or sequence is None or len(before) > 40:
        raise UsageError("before must be the `next` of the page before")
    return min(created_ms, 2**62), min(sequence, 2**62)


def _period(call: Call) -> Period:
    asked = cast("PeriodQuery", call.asked)
    return period_of(asked.words(), call.now_ms, call.zone)


def _span(period: Period) -> dict[str, Any]:
    return Span(period=period.name, from_ms=period.from_ms, to_ms=period.to_ms).model_dump()


def _used(burned: Burned, sums: Sums) -> dict[str, Any]:
    return {
        "inputTokens": sums.input_tokens,
        "outputTokens": sums.output_tokens,
        "cacheWriteTokens": sums.cache_write_tokens,
        "cacheHitTokens": sums.cache_read_tokens,
        "totalTokens": statistics.total_tokens(sums),
        **_money("creditsBurned", burned.total_pico),
        "requestCount": sums.requests,
        "ohmygpt_usd": usd_from_pico(burned.ohmygpt_pico),
        "openhands_usd": usd_from_pico(burned.openhands_pico),
        "subscription_usd": usd_from_pico(burned.subscription_pico),
        "failures": sums.failures,
        "avg_latency_ms": _mean(sums.latency_ms, sums.requests) or 0,
        "avg_ttft_ms": _mean(sums.first_byte_ms, sums.first_bytes),
    }


def _money(name: str, amount_pico: int) -> dict[str, Any]:
    return {name: usd_number(amount_pico), f"{name}_usd": usd_from_pico(amount_pico)}


def _mean(total: int, count: int) -> int | None:
    """Rounded to the nearest whole, halves up."""
    return (2 * total + count) // (2 * count) if count else None


def _percent(part: int, whole: int) -> Decimal:
    """To two places; 100 of nothing."""
    return Decimal(10_000 * part // whole) / 100 if whole else Decimal(100)
