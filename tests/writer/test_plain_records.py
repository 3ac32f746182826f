"""The compiled reader makes of a settle record exactly what `Settlement.decode` makes of it and the store's
own functions write for it, or leaves it to them (M1, M4): nothing is booked that they would refuse.
"""

import base64
import dataclasses
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox._meter import SettlementReader
from farebox.base import frames
from farebox.base.records import WALLETS, LotAmount, Settlement
from farebox.journal.frames import Frame
from farebox.ledger.settlement import rows_of
from farebox.store.booking_rules import is_refusal, output_tokens
from farebox.store.rollups import CUT, cells, usage_of, usages_of
from farebox.store.sqlite import logs, rows
from farebox.writer.batch import Finished, _check, finished_of

READER = SettlementReader(Settlement, LotAmount, Finished)
FIELDS = [one.name for one in dataclasses.fields(Settlement) if one.init]
NOW = 1_760_000_000_000
EXCHANGE = "0" * 32

names = st.text(st.characters(codec="utf-8", exclude_characters='"\\', exclude_categories=["Cc"]), max_size=9)
numbers = st.one_of(st.integers(0, 2**62), st.integers(0, 200))
texts = st.text(st.characters(codec="utf-8"), max_size=40)
kinds = st.sampled_from(["input", "output", "cache_read", "cache_write_5m", "cache_write_1h"])
counts = st.dictionaries(kinds | names, numbers, max_size=4)
amounts = st.integers(0, 2**62)
takes = st.lists(st.builds(LotAmount, names, st.sampled_from(["credits", "creditsNew"]), amounts), max_size=2)


@st.composite
def plain_settlements(draw: st.DrawFn) -> Settlement:
    """Records as every day brings them; half of them are paid by one lot."""
    parts = tuple(draw(takes))
    amount_pico = parts[0].amount_pico if len(parts) == 1 and draw(st.booleans()) else draw(amounts)
    return Settlement(
        exchange=draw(names),
        user=draw(names),
        wallet=draw(st.sampled_from(["ohmygpt", "openhands", "no wallet"])),
        key=draw(names),
        model=draw(names),
        wire_format=draw(names),
        price_version=draw(numbers),
        multiplier=draw(st.sampled_from(["1", "1.05"])),
        evidence=draw(st.sampled_from(["exact", "partial", "estimated", "none"])),
        flags=tuple(draw(st.lists(names, max_size=2))),
        counts=draw(counts),
        others={},
        input_total=draw(numbers),
        variant=draw(names),
        amount_pico=amount_pico,
        takes=parts,
        quarantine="",
        outcome=draw(st.sampled_from(["completed", *sorted(CUT)]) | names),
        status=draw(st.sampled_from([199, 200, 299, 300]) | numbers),
        upstream=draw(names),
        upstream_model=draw(texts),
        upstream_request=draw(texts),
        stream=draw(st.booleans()),
        started_ms=draw(numbers),
        first_byte_ms=draw(st.just(0) | numbers),
        ended_ms=draw(numbers),
        raw_usage=draw(texts),
        free=draw(st.booleans()),
    )


def frame(payload: bytes) -> Frame:
    return Frame(frames.SETTLE, 77, payload)


def read(payload: bytes) -> Settlement | None:
    """What the compiled reader makes of a payload; None: it is left to Python."""
    found, odd = READER.read([frame(payload)])
    assert odd == ([0] if found == [None] else [])  # type: ignore[comparison-overlap]
    if odd:
        return None
    assert type(found[0]) is Finished
    assert found[0].pos == 77
    return found[0].settlement


def check_same(payload: bytes) -> bool:
    """Whether the compiled reader takes a payload; if so, that all is as the reference says."""
    made = read(payload)
    if made is None:
        return False
    reference = Settlement.decode(payload)
    _check(reference)
    output_total = output_tokens(reference)
    assert (output_tokens(made), made.output_total) == (output_total, output_total)
    assert list(cells(usages_of([made])).items()) == list(cells([usage_of(reference)]).items())
    assert (made.wire, made.log_cells) == (payload, logs._values(reference, {}))
    if made.ledger_cells is not None:
        check_ledger_cells(made, reference)
    elif len(reference.takes) == 1:
        assert reference.takes[0].amount_pico != reference.amount_pico or reference.amount_pico == 0
    assert "key" not in filled(made)
    for name in FIELDS:
        ours, theirs = getattr(made, name), getattr(reference, name)
        assert (name, ours, type(ours)) == (name, theirs, type(theirs))
    assert [type(part) for part in made.takes] == [LotAmount] * len(made.takes)
    assert (made, made.encode()) == (reference, payload)
    return True


def check_ledger_cells(made: Settlement, reference: Settlement) -> None:
    """They are what the general way writes; where a record names no pool of ours, they are not used."""
    (take,) = reference.takes
    wallet = next((name for name, pools in WALLETS.items() if take.pool in pools), "")
    if wallet:
        known = dataclasses.replace(reference, wallet=wallet)
        (row,) = map(rows._values, rows_of(known, known.takes, 0, NOW))
        assert made.ledger_cells == plain_cells(row)
    elif made.wallet in WALLETS:
        assert not rows._is_paid(made, {take.lot: (take.pool, take.amount_pico)})


def plain_cells(row: Any) -> tuple[object, ...]:
    """Of a general row what `ledger_cells` holds; the rest is in the statement."""
    user, kind, reference, pool, amount_pico, lots, cause, created_ms, charge = row
    assert (kind, cause, created_ms) == ("spent", "exchange", NOW)
    return user, reference, pool, amount_pico, lots, charge


def filled(settlement: Settlement) -> set[str]:
    """Fields that are set."""
    return {name for name in FIELDS if name in dir(settlement) and _is_set(settlement, name)}


def _is_set(settlement: Settlement, name: str) -> bool:
    try:
        object.__getattribute__(settlement, name)
    except AttributeError:
        return False
    return True


def example(**changes: object) -> Settlement:
    """An everyday record."""
    settlement = Settlement(
        exchange=EXCHANGE,
        user="user-1",
        wallet="openhands",
        key="5e" * 32,
        model="gpt-5.1",
        wire_format="chat",
        price_version=3,
        multiplier="1.05",
        evidence="exact",
        flags=("stream",),
        counts={"input": 40, "output": 9},
        others={},
        input_total=40,
        variant="",
        amount_pico=140_000_000,
        takes=(LotAmount("a" * 24, "creditsNew", 140_000_000),),
        quarantine="",
        outcome="completed",
        status=200,
        upstream="openai",
        upstream_model="gpt-5.1-2025-11-13",
        upstream_request="req_1",
        stream=True,
        started_ms=NOW - 3,
        first_byte_ms=NOW - 1,
        ended_ms=NOW,
        raw_usage='{"prompt_tokens":40,\n"completion_tokens":9}',
    )
    return dataclasses.replace(settlement, **changes)  # type: ignore[arg-type]


@given(plain_settlements())
def test_everyday_records_are_taken_and_read_the_same(settlement: Settlement) -> None:
    assert check_same(settlement.encode())


@pytest.mark.parametrize("amount", [0, 1, 2**62])
def test_amounts_up_to_the_largest_are_taken(amount: int) -> None:
    assert check_same(example(amount_pico=amount, takes=(LotAmount("l", "creditsNew", amount),)).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"quarantine": "no price"},
        {"others": {"gpt-5": {"input": 1}}},
        {"amount_pico": 2**62 + 1},
        {"amount_pico": -1},
        {"input_total": 1.0},
        {"counts": {"input": -1}},
        {"counts": {"input": True}},
        {"counts": {'quo"te': 1}},
        {"model": "back\\slash"},
        {"takes": (LotAmount("l", "creditsNew", -1),)},
        {"takes": (LotAmount("l", "creditsNew", 2**63),)},
        {"status": -1},
        {"started_ms": None},
        {"stream": 1},
        {"user": 7},
    ],
)
def test_odd_values_are_left_to_the_reference(changes: dict[str, object]) -> None:
    assert read(example(**changes).encode()) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        example().encode() + b" ",
        b" " + example().encode(),
        example().encode()[:-1] + b",7]",
        example().encode().replace(b'"input":40,', b'"input":40,"input":40,'),
        example().encode().replace(b'"input":40,', b'"input":040,'),
        example().encode().replace(b'"input":40,', b'"input":40.0,'),
        example().encode().replace(b'"input":40,', b'"input": 40,'),
        example().encode().replace(b'["stream"]', b'["stream",]'),
        example().encode().replace(b'["stream"]', b'[,"stream"]'),
        example().encode().replace(b"req_1", b"\\u0041"),
        example().encode().replace(b"req_1", b"\\ud800"),
        example().encode().replace(b"req_1", b"\\/"),
        example().encode().replace(b"req_1", b"\xff"),
        example().encode().replace(b"req_1", b"\n"),
    ],
)
def test_odd_writing_is_left_to_the_reference(payload: bytes) -> None:
    assert read(payload) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@given(plain_settlements(), st.integers(0, len(FIELDS)), json_values, st.integers(0, 4))
def test_records_with_any_value_in_any_field_are_read_the_same_or_left(
    settlement: Settlement, at: int, value: object, more: int
) -> None:
    members = orjson.loads(settlement.encode())
    members[at : at + 1] = [value] * (more % 3 if more > 2 else 1)
    check_same(orjson.dumps(members))
    check_same(orjson.dumps(members, option=orjson.OPT_INDENT_2))


@given(plain_settlements(), st.randoms(use_true_random=False))
def test_damaged_records_are_read_the_same_or_left(settlement: Settlement, rng: Random) -> None:
    data = bytearray(settlement.encode())
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data))
        piece = rng.choice([rng.randbytes(1), data[rng.randrange(len(data)) :][:4], b"", b"\\", b'"', b",0"])
        data[at : at + rng.randint(0, 2)] = piece
    check_same(bytes(data))


def test_records_cut_or_flipped_anywhere_are_read_the_same_or_left() -> None:
    data = example().encode()
    assert check_same(data)
    for length in range(len(data)):
        assert read(data[:length]) is None
    taken = 0
    for index in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[index // 8] ^= 1 << index % 8
        taken += check_same(bytes(flipped))
    assert 0 < taken < len(data) * 8


def test_records_of_one_batch_keep_their_places() -> None:
    odd = example(exchange="e2", quarantine="no price").encode()
    broken = b'["e3","user-3",7]'
    payloads = [example(exchange="e1").encode(), odd, broken, example(exchange="e4", user="user-4").encode()]
    read_frames = [Frame(frames.OPEN, 1, b'["e1"]')]
    read_frames += [Frame(frames.SETTLE, 2 + index, payload) for index, payload in enumerate(payloads)]
    records, unreadable = finished_of("a1" * 8, read_frames)
    assert [(one.pos, one.settlement.exchange, one.settlement.user) for one in records] == [
        (2, "e1", "user-1"),
        (3, "e2", "user-1"),
        (4, "e3", "user-3"),
        (5, "e4", "user-4"),
    ]
    assert unreadable == [records[2]]
    assert records[1].settlement == Settlement.decode(odd)


def test_a_settlement_has_no_fields_but_its_own() -> None:
    made = read(example().encode())
    assert made is not None
    assert not hasattr(made, "price")
    assert dataclasses.replace(made, outcome="x") == example(outcome="x")


@given(st.lists(plain_settlements(), max_size=6), st.integers(0, 3))
def test_rollups_of_a_batch_add_up_to_those_of_its_records(settlements: list[Settlement], odd: int) -> None:
    settlements += [dataclasses.replace(one, quarantine="no price") for one in settlements[:odd]]
    batch = [Frame(frames.SETTLE, 1 + index, one.encode()) for index, one in enumerate(settlements * 2)]
    made = [one.settlement for one in finished_of("a1" * 8, batch)[0]]
    assert cells(usages_of(made)) == cells(map(usage_of, settlements * 2))


ODD_PAYLOADS = {
    "no JSON": (b"\x00", f"{'j' * 16}-4d", ""),
    "no array": (b'{"exchange":"e1"}', f"{'j' * 16}-4d", ""),
    "names that are no text": (b"[1,2]", f"{'j' * 16}-4d", ""),
    "a record of another version": (b'["e1","alice","later"]', "e1", "alice"),
}


@pytest.mark.parametrize(("payload", "exchange", "user"), ODD_PAYLOADS.values(), ids=ODD_PAYLOADS)
def test_M5_a_record_nobody_can_read_waits_for_an_operator_under_the_names_it_shows(
    payload: bytes, exchange: str, user: str
) -> None:
    (record,), unreadable = finished_of("j" * 16, [frame(payload)])
    assert unreadable == [record]
    settlement = record.settlement
    assert (record.pos, settlement.exchange, settlement.user) == (77, exchange, user)
    assert settlement.quarantine.startswith(f"unreadable record at {'j' * 16}:77: ")
    assert not settlement.quarantine.endswith(": None")
    assert base64.b64decode(settlement.raw_usage) == payload
    assert (settlement.amount_pico, settlement.takes, settlement.counts) == (0, (), {})
    assert (settlement.evidence, settlement.outcome, settlement.status) == ("none", "unreadable", 0)
    assert Settlement.decode(settlement.encode()) == settlement
    assert not is_refusal(settlement)


@pytest.mark.parametrize("number", [-1, 2**62 + 1, True, 1.0])
def test_numbers_no_store_can_add_up_are_named(number: object) -> None:
    with pytest.raises(ValueError, match=f"^{number!r} is no amount, count or time"):
        _check(example(input_total=number))
