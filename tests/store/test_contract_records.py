"""Records of money events change with their event's rows or not at all, and only from the revision seen."""

import asyncio
from dataclasses import replace

import pytest

from farebox.base import limits
from farebox.base.errors import InvariantBrokenError
from farebox.base.records import LotAmount
from farebox.store.base import RECORD_KINDS, Event, EventResult, Record, RecordChange


def payment(id_="sepay:1", status="planned", **more):
    document = {"amount": "20.5", "rows": [["alice", None, True, 3]]}
    return Record("payment", id_, 1, document, "alice", status, **{"created_ms": 5, **more})


def credit(scene, amount=500, reference="pay1", pool="credits", user="alice"):
    part = LotAmount("5" * 24, pool, amount)
    return scene.row(user, "earned_purchase", pool, amount, (part,), reference)


def event_of(*changes, **more):
    return Event((), records=changes, **more)


async def apply(scene, event, now=None):
    result = await scene.store.apply_event(event, now or scene.NOW)
    await scene.sound()
    return result


async def test_a_record_reads_back_as_it_was_written(scene):
    written = payment(reference="order-7", due_ms=99)
    assert await apply(scene, event_of(RecordChange.insert(written))) is EventResult.DONE
    assert await scene.store.record("payment", "sepay:1") == written
    assert await scene.store.record("payment", "sepay:2") is None
    assert await scene.store.record("order", "sepay:1") is None


async def test_M4_rows_and_state_are_one(scene):
    await scene.user("alice")
    await apply(scene, event_of(RecordChange.insert(payment())))
    seen = await scene.store.record("payment", "sepay:1")
    event = Event((credit(scene),), records=(RecordChange.update(replace(seen, status="credited")),))
    assert await apply(scene, event) is EventResult.DONE
    assert await apply(scene, event) is EventResult.DUPLICATE
    record = await scene.store.record("payment", "sepay:1")
    assert (record.status, record.revision) == ("credited", 2)
    assert await scene.balance("alice") == 500


async def test_M4_a_stale_record_keeps_the_rows_out(scene):
    await scene.user("alice")
    await apply(scene, event_of(RecordChange.insert(payment())))
    seen = await scene.store.record("payment", "sepay:1")
    assert (
        await apply(scene, event_of(RecordChange.update(replace(seen, status="refused")))) is EventResult.DONE
    )
    late = Event((credit(scene),), records=(RecordChange.update(replace(seen, status="credited")),))
    assert await apply(scene, late) is EventResult.STALE
    assert (await scene.store.record("payment", "sepay:1")).status == "refused"
    assert await scene.store.transactions("alice", 5) == []


async def test_rows_without_their_booking_and_a_record_that_says_booked_contradict(scene):
    await scene.user("alice")
    booked = RecordChange.insert(payment(status="credited"))
    await apply(scene, event_of(booked))
    assert await apply(scene, Event((credit(scene),), records=(booked,))) is EventResult.STALE
    assert await scene.balance("alice") == 0


async def test_a_short_debit_leaves_its_record_alone(scene):
    await scene.user("alice", usd=1)
    row = scene.row("alice", "refund", "credits", -2 * scene.USD)
    event = Event((row,), records=(RecordChange.insert(payment()),))
    assert await apply(scene, event) is EventResult.SHORT
    assert await scene.store.record("payment", "sepay:1") is None


async def test_hole_49_the_first_insert_wins_and_the_others_read_it(scene):
    plans = [RecordChange.insert(replace(payment(), document={"lot": str(n)})) for n in range(4)]
    results = await asyncio.gather(*(scene.store.apply_event(event_of(plan), scene.NOW) for plan in plans))
    assert sorted(result.value for result in results) == ["done", "stale", "stale", "stale"]
    winner = plans[results.index(EventResult.DONE)]
    assert await apply(scene, event_of(winner)) is EventResult.DUPLICATE


async def test_all_records_of_an_event_change_or_none(scene):
    await apply(scene, event_of(RecordChange.insert(payment())))
    both = event_of(RecordChange.insert(payment("sepay:2")), RecordChange.insert(payment(status="other")))
    assert await apply(scene, both) is EventResult.STALE
    assert await scene.store.record("payment", "sepay:2") is None


@pytest.mark.parametrize(
    "change",
    [
        RecordChange.insert(replace(payment(), document={"amount": 1.5})),
        RecordChange.insert(replace(payment(), document={"deep": [{"amount": (1.5,)}]})),
        RecordChange.insert(replace(payment(), document={"text": "x" * limits.record_bytes_max})),
        RecordChange.insert(replace(payment(), document={"what": object()})),
        RecordChange.insert(replace(payment(), kind="nonsense")),
        RecordChange.insert(payment(id_="")),
        RecordChange(1, payment()),
    ],
)
async def test_what_no_store_keeps_is_refused_and_nothing_changes(scene, change):
    await scene.user("alice")
    with pytest.raises(InvariantBrokenError, match=r"record (payment|nonsense)"):
        await apply(scene, Event((credit(scene),), records=(change,)))
    assert await scene.balance("alice") == 0


async def test_a_value_the_store_cannot_hold_names_the_record(scene):
    with pytest.raises(InvariantBrokenError, match="event payment sepay:1: cannot be stored"):
        await apply(scene, event_of(RecordChange.insert(payment(created_ms=1 << 70))))


async def test_one_event_changes_a_record_once(scene):
    with pytest.raises(InvariantBrokenError, match="once"):
        await apply(scene, event_of(RecordChange.insert(payment()), RecordChange.insert(payment())))
    with pytest.raises(InvariantBrokenError, match="at least one"):
        await apply(scene, Event(()))


async def test_records_are_found_by_what_they_are_looked_up_by(scene):
    made = [
        payment("p:1", "review", created_ms=1, due_ms=50),
        payment("p:2", "credited", created_ms=2, reference="o2"),
        payment("p:3", "review", created_ms=2, due_ms=70),
        replace(payment("p:4", "review", created_ms=9), user="bob"),
        replace(payment("p:5", "review", created_ms=10), kind="order"),
    ]
    await apply(scene, event_of(*map(RecordChange.insert, made)))

    async def ids(**asked):
        return [record.id for record in await scene.store.records("payment", **{"limit": 10, **asked})]

    assert await ids() == ["p:4", "p:3", "p:2", "p:1"]
    assert await ids(user="alice") == ["p:3", "p:2", "p:1"]
    assert await ids(status="review") == ["p:4", "p:3", "p:1"]
    assert await ids(user="bob", status="credited") == []
    assert await ids(reference="o2") == ["p:2"]
    assert await ids(status="review", due_before_ms=50) == ["p:1"]
    assert await ids(limit=2) == ["p:4", "p:3"]
    assert await ids(before=(2, "p:3"), limit=1) == ["p:2"]


async def test_a_change_of_state_is_in_the_audit_log(scene, outside):
    await scene.user("alice")
    await apply(scene, event_of(RecordChange.insert(payment()), actor="admin:eve"))
    nobody = replace(payment("p:9", ""), user="")
    await apply(scene, event_of(RecordChange.insert(nobody), actor="admin:eve"))
    await apply(
        scene,
        Event((credit(scene),), actor="sepay", records=(RecordChange.insert(payment("p:2", "credited")),)),
    )
    entries = [row[:3] for row in outside.audit_rows()[-3:]]
    assert entries == [
        ("admin:eve", "payment.planned", "alice"),
        ("admin:eve", "payment.change", "p:9"),
        ("sepay", "event.earned_purchase", "alice"),
    ]


async def test_a_purchase_that_renews_lets_the_whole_pool_last(scene):
    await scene.user("alice")
    soon = await scene.credit("alice", 5, "creditsNew", expires=scene.NOW + 10)
    later = await scene.credit("alice", 5, "creditsNew", expires=scene.NOW + 10_000)
    never = await scene.credit("alice", 5, "creditsNew")
    other = await scene.credit("alice", 5, "credits", expires=scene.NOW + 10)
    gone = await scene.credit("alice", 5, "creditsNew", expires=scene.NOW + 1)
    row = credit(scene, pool="creditsNew")
    event = Event((row,), expires_at_ms=scene.NOW + 700, renews=("creditsNew", "credits"))
    assert await apply(scene, event, now=scene.NOW + 5) is EventResult.DONE
    ends = {lot.lot: lot.expires_at_ms for lot in (await scene.store.account("alice")).lots if lot.left_pico}
    assert ends == {
        soon.lot: scene.NOW + 700,
        later.lot: scene.NOW + 10_000,
        never.lot: None,
        other.lot: scene.NOW + 10,
        row.lots[0].lot: scene.NOW + 700,
    }
    assert gone.lot not in ends


async def test_a_purchase_without_an_end_renews_without_an_end(scene):
    await scene.user("alice")
    await scene.credit("alice", 5, "creditsNew", expires=scene.NOW + 10)
    await apply(scene, Event((credit(scene, pool="creditsNew"),), renews=("creditsNew",)))
    assert {lot.expires_at_ms for lot in (await scene.store.account("alice")).lots} == {None}


async def test_P2_a_payment_keeps_the_balances_its_transaction_saw(scene):
    await scene.user("alice")
    await scene.credit("alice", 70, "creditsNew")
    await scene.credit("alice", 9, "creditsNew", expires=scene.NOW + 1)
    paid = credit(scene, amount=scene.USD, pool="creditsNew")
    records = (RecordChange.insert(payment(status="credited")), RecordChange.insert(payment("p:2")))
    event = Event((paid,), records=records, balance_of="creditsNew")
    assert await apply(scene, event, now=scene.NOW + 5) is EventResult.DONE
    kept = (await scene.store.record("payment", "sepay:1")).document
    assert (kept["creditsBefore"], kept["creditsAfter"]) == ("0.00000000007", "1.00000000007")
    assert "creditsAfter" not in (await scene.store.record("payment", "p:2")).document


async def test_what_one_event_brings_to_two_pools_may_end_at_two_times(scene):
    await scene.user("alice")
    bonus = scene.row("alice", "earned_bonus", "refCredits", 5, (LotAmount("6" * 24, "refCredits", 5),))
    event = Event(
        (credit(scene, pool="creditsNew"), bonus),
        expires_at_ms=scene.NOW + 700,
        expires_by_pool={"refCredits": None},
    )
    assert await apply(scene, event) is EventResult.DONE
    ends = {lot.pool: lot.expires_at_ms for lot in (await scene.store.account("alice")).lots}
    assert ends == {"creditsNew": scene.NOW + 700, "refCredits": None}


async def test_a_kind_nobody_keeps_has_no_records(scene):
    assert await scene.store.record("rumour", "sepay:1") is None
    assert await scene.store.records("rumour", limit=9) == []


async def test_sessions_are_removed_when_due_and_nothing_else_ever_is(scene):
    for number, status in enumerate(("active", "active", "ended", "active")):
        due_ms = scene.NOW + number // 3
        record = Record("session", f"s{number}", 1, {}, status=status, created_ms=5, due_ms=due_ms)
        await apply(scene, event_of(RecordChange.insert(record)))
    await apply(scene, event_of(RecordChange.insert(payment(status="active", due_ms=1))))
    assert await scene.store.expire_records("session", "active", scene.NOW, 1) == 1
    assert await scene.store.expire_records("session", "active", scene.NOW, 9) == 1
    assert await scene.store.expire_records("session", "active", scene.NOW, 9) == 0
    left = await scene.store.records("session", limit=9)
    assert [record.id for record in left] == ["s3", "s2"]
    for kind in RECORD_KINDS.keys() - {"session"}:
        with pytest.raises(InvariantBrokenError, match="kept for ever"):
            await scene.store.expire_records(kind, "active", scene.NOW, 9)
    assert await scene.store.record("payment", "sepay:1") is not None
