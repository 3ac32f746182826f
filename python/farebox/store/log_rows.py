"""What every store says alike about an exchange in its request log.

Pure; the names are those of the replaced system first, then ours.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from farebox.base.records import Settlement
from farebox.base.units import usd_from_pico
from farebox.store.booking_rules import output_tokens


def described(charge_pico: int, charged_pico: int, record: Settlement) -> Mapping[str, object]:
    """The replaced system's names first, then ours; money as exact USD strings, dates in UTC."""
    return {
        "_id": record.exchange,
        **members(record, usd_from_pico(charged_pico), usd_from_pico(charge_pico), date(record.ended_ms)),
        "flags": list(record.flags),
        "others": record.others,
        "variant": record.variant,
        "quarantine": record.quarantine,
        "free": record.free,
        "rawUsage": record.raw_usage,
    }


def members(record: Settlement, charged: object, charge: object, created_at: object) -> dict[str, object]:
    """What every row has; money and date are of the store's own types, `charged` is what was taken."""
    counts, output = record.counts, output_tokens(record)
    return {
        "userId": record.user,
        "userKeyId": record.key,
        "model": record.model,
        "upstream": record.upstream,
        "inputTokens": counts.get("input", 0),
        "outputTokens": output,
        "cacheWriteTokens": counts.get("cache_write_5m", 0) + counts.get("cache_write_1h", 0),
        "cacheHitTokens": counts.get("cache_read", 0),
        "tokensUsed": record.input_total + output,
        "creditsCost": charged,
        "creditType": record.wallet,
        "statusCode": record.status,
        "latencyMs": record.ended_ms - record.started_ms,
        "isSuccess": 200 <= record.status < 300,
        "createdAt": created_at,
        "upstreamModel": record.upstream_model,
        "upstreamRequestId": record.upstream_request,
        "wireFormat": record.wire_format,
        "charge": charge,
        "ttftMs": record.first_byte_ms - record.started_ms if record.first_byte_ms else None,
        "outcome": record.outcome,
        "stream": record.stream,
        "evidence": record.evidence,
        "priceVersion": record.price_version,
        "multiplier": record.multiplier,
        "counts": dict(counts),
    }


def detail(record: Settlement) -> dict[str, object]:
    """The rare members of a log row, empty ones left out."""
    members: Mapping[str, object] = {
        "flags": record.flags,
        "others": record.others,
        "variant": record.variant,
        "quarantine": record.quarantine,
        "free": record.free,
        "startedMs": record.started_ms,
    }
    return {name: value for name, value in members.items() if value}


def date(milliseconds: int) -> datetime:
    """A moment in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
