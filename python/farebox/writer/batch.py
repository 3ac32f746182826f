"""Frames of a journal, made ready for booking: decoded, grouped by user, cut into transactions. No I/O.

Promises: every finished exchange of the frames comes out exactly once and in order; a settle frame whose
record cannot be read comes out as a settlement for an operator, never as nothing; a void asks for no booking.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import orjson

from farebox._meter import SettlementReader
from farebox.base import frames, limits
from farebox.base.records import WALLETS, LotAmount, Settlement
from farebox.journal.frames import Frame

_ANY_WALLET: Final = next(iter(WALLETS))
_LARGEST: Final = 2**62


class Finished(NamedTuple):
    """A settled exchange and its journal position."""

    pos: int
    settlement: Settlement


PLAIN_RECORDS: Final = SettlementReader(Settlement, LotAmount, Finished)
"""Reads settle frames in the plain form, and says which are not."""


def finished_of(journal: str, read: Iterable[Frame]) -> tuple[list[Finished], list[Finished]]:
    """The settlements among frames, in order, and those of them that stand for a record nobody can read.

    The compiled reader makes plain records; the odd ones it leaves out are decoded and judged here.
    """
    settled = [frame for frame in read if frame.kind == frames.SETTLE]
    records, odd = PLAIN_RECORDS.read(settled)
    unreadable: list[Finished] = []
    for index in odd:
        records[index], is_readable = _decoded(journal, settled[index])
        if not is_readable:
            unreadable.append(records[index])
    return records, unreadable


def _decoded(journal: str, frame: Frame) -> tuple[Finished, bool]:
    """What a settle frame says, and whether its record can be read."""
    try:
        settlement = Settlement.decode(frame.payload)
        _check(settlement)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return Finished(frame.pos, _unreadable(journal, frame, str(error))), False
    return Finished(frame.pos, settlement), True


def _check(settlement: Settlement) -> None:
    """Refuse numbers no store can add up: they would stop rollups and logs as well as the booking."""
    for number in (
        settlement.amount_pico,
        settlement.input_total,
        settlement.started_ms,
        settlement.ended_ms,
        *settlement.counts.values(),
    ):
        if type(number) is not int or not 0 <= number <= _LARGEST:
            raise ValueError(f"{number!r} is no amount, count or time a record may have")


def _unreadable(journal: str, frame: Frame, reason: str) -> Settlement:
    """A quarantined settlement that keeps an unreadable record where an operator looks for such things."""
    exchange, user = _names_in(frame.payload)
    raw = base64.b64encode(frame.payload).decode()
    return stand_in(
        exchange or f"{journal}-{frame.pos:x}",
        user,
        f"unreadable record at {journal}:{frame.pos}: {reason}",
        raw,
    )


def _names_in(payload: bytes) -> tuple[str, str]:
    """Exchange and user of a record written in a shape of another version, as far as they can be made out."""
    try:
        fields = orjson.loads(payload)
    except ValueError:
        return "", ""
    match fields:
        case [str(exchange), str(user), *_]:
            return exchange, user
        case _:
            return "", ""


def stand_in(exchange: str, user: str, reason: str, raw: str) -> Settlement:
    """A quarantined settlement that only says: an operator must look. It takes nothing and charges nothing.

    `raw` is what is known of the exchange, kept up to the size of a usage block.
    """
    return Settlement(
        exchange=exchange,
        user=user,
        wallet=_ANY_WALLET,
        key="",
        model="",
        wire_format="",
        price_version=0,
        multiplier="1",
        evidence="none",
        flags=(),
        counts={},
        others={},
        input_total=0,
        variant="",
        amount_pico=0,
        takes=(),
        quarantine=reason,
        outcome="unreadable",
        status=0,
        upstream="",
        upstream_model="",
        upstream_request="",
        stream=False,
        started_ms=0,
        first_byte_ms=0,
        ended_ms=0,
        raw_usage=raw[: limits.usage_raw_bytes_max],
    )


def by_user(records: Iterable[Finished]) -> dict[str, list[Finished]]:
    """Records of each user, in order; users in the order of their first record."""
    groups: dict[str, list[Finished]] = {}
    for record in records:
        group = groups.get(record.settlement.user)
        if group is None:
            groups[record.settlement.user] = [record]
        else:
            group.append(record)
    return groups


def transactions_of(
    groups: Iterable[Sequence[Finished]], users_max: int, records_max: int
) -> Iterator[list[Finished]]:
    """Groups of whole users, joined into transactions within both bounds (one user alone may exceed the
    second).
    """
    joined: list[Finished] = []
    users = 0
    for group in groups:
        if users and (users == users_max or len(joined) + len(group) > records_max):
            yield joined
            joined, users = [], 0
        joined.extend(group)
        users += 1
    if users:
        yield joined
