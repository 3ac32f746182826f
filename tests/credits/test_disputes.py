"""Disputes freeze what their payment brought; lost, they take it, and what was spent of it stays owed."""

import asyncio
from dataclasses import replace

import pytest

from credits.shop import DAY, PROMOTION
from farebox.base.errors import UsageError
from farebox.base.records import LotAmount, Transaction
from farebox.base.units import pico_from_usd, usd_from_pico
from farebox.credits.payments import accept
from farebox.store.base import Booked, Event, EventResult, RecordChange
from farebox.writer.batch import stand_in
from farebox.writer.sweep import sweep_expired_lots

pytestmark = pytest.mark.usefixtures("sound")


async def test_a_dispute_freezes_its_lot_and_a_won_one_frees_it(shop):
    await shop.pays(await shop.order("20"))
    await shop.pays(await shop.order("30"))
    assert (await shop.disputes("sepay:1", "open")).word == "disputed"
    assert (await shop.disputes("sepay:1", "open")).word == "duplicate"
    assert (await shop.payment_record()).status == "disputed"
    assert await shop.claims() == {(True, pico_from_usd("20"))}
    await shop.lease("30")
    refused = await shop.store.grant("alice", "openhands", "a" * 16, 1, shop.leased[1].op, 1, 1, shop.now)
    assert refused.reason == "short"
    assert (await shop.disputes("sepay:1", "won")).word == "won"
    assert (await shop.payment_record()).status == "credited"
    granted = await shop.store.grant("alice", "openhands", "a" * 16, 1, shop.leased[1].op, 1, 1, shop.now)
    assert granted.reason == ""
    assert await shop.balance() == "50"


async def test_a_lost_dispute_takes_the_lot_and_what_was_spent_of_it_from_the_next_purchase(shop):
    await shop.pays(await shop.order("20"))
    await shop.spend("15")
    await shop.disputes("sepay:1", "open")
    assert (await shop.disputes("sepay:1", "lost")).word == "lost"
    assert await shop.balance() == "0"
    assert await shop.claims() == {(False, pico_from_usd("15"))}
    assert (await shop.disputes("sepay:1", "lost")).word == "duplicate"
    await shop.pays(await shop.order("40"))
    await shop.collect()
    assert await shop.balance() == "25"
    assert await shop.claims() == set()
    assert (await shop.disputes("sepay:1", "lost")).word == "duplicate"
    assert (await shop.disputes("sepay:1", "open")).word == "duplicate"
    assert await shop.claims() == set()
    assert (await shop.payment_record()).status == "lost"


@pytest.mark.parametrize(
    ("disputed", "frozen", "refunded", "end", "left"),
    [
        ("50000", "20", "50000", "won", "0"),
        ("50000", "20", "50000", "lost", "0"),
        ("50000", "20", "25000", "won", "10"),
        ("50000", "20", "25000", "lost", "0"),
        ("20000", "8", "30000", "won", "8"),
        ("20000", "8", "40000", "lost", "0"),
    ],
)
async def test_hole_16_a_refund_during_a_dispute_takes_what_is_frozen(
    shop, disputed, frozen, refunded, end, left
):
    """A provider refunds what is disputed: that is how an inquiry of the payer's bank is answered."""
    await shop.pays(await shop.order("20"))
    await shop.disputes("sepay:1", "open", disputed)
    assert await shop.claims() == {(True, pico_from_usd(frozen))}
    assert (await shop.returns("sepay:1", refunded)).word == "returned"
    assert (await shop.returns("sepay:1", refunded)).word == "duplicate"
    assert (await shop.disputes("sepay:1", end, disputed)).word == end
    assert await shop.claims() == set()
    assert await shop.balance() == left


async def test_hole_16_a_refund_during_a_dispute_waits_for_what_exchanges_hold(shop):
    await shop.pays(await shop.order("20"))
    await shop.lease("15")
    await shop.disputes("sepay:1", "open")
    await shop.returns("sepay:1", "50000")
    assert await shop.balance() == "15"
    await shop.come_back()
    assert await shop.balance() == "0"
    assert await shop.claims() == {(True, pico_from_usd("20"))}
    await shop.disputes("sepay:1", "won")
    assert (await shop.payment_record()).status == "refunded"
    assert await shop.claims() == set()


async def test_a_dispute_lost_without_having_been_told_of_before(shop):
    await shop.pays(await shop.order("20"))
    assert (await shop.disputes("sepay:1", "lost", "25000")).word == "lost"
    assert await shop.balance() == "10"
    assert (await shop.returns("sepay:1", "50000")).word == "returned"
    assert await shop.balance() == "0"
    assert (await shop.payment_record()).status == "lost"


COUNTED_TOGETHER = {
    "nothing": ([], "20"),
    "a refund after a lost dispute": ([("lost", "20000"), ("back", "15000")], "6"),
    "a refund before it": ([("back", "15000"), ("lost", "20000")], "6"),
    "a refund in two parts around it": (
        [("back", "5000"), ("lost", "20000"), ("back", "5000"), ("back", "15000")],
        "6",
    ),
    "two disputes and a refund": ([("lost", "20000"), ("lost", "10000"), ("back", "10000")], "4"),
    "more than was paid": ([("lost", "40000"), ("back", "40000"), ("lost", "50000")], "0"),
}


@pytest.mark.parametrize(("told", "left"), COUNTED_TOGETHER.values(), ids=COUNTED_TOGETHER)
async def test_refunds_and_lost_disputes_add_up_to_no_more_than_was_paid(shop, told, left):
    """A provider's total of refunds counts no dispute."""
    await shop.pays(await shop.order("20"))
    for number, (what, amount) in enumerate(told):
        for _ in range(2):
            if what == "back":
                await shop.returns("sepay:1", amount)
            else:
                await shop.disputes("sepay:1", "lost", amount, dispute=f"dp{number}")
    assert await shop.balance() == left
    assert await shop.claims() == set()


@pytest.mark.parametrize("before", ["0", "5000"])
async def test_a_record_that_counts_refunds_and_disputes_together_is_read_right(shop, before):
    shop.opens_with(promotions=[PROMOTION])
    await shop.pays(await shop.order("20"))
    if before != "0":
        await shop.returns("sepay:1", before)
    old = Event(
        (
            Transaction(
                "alice",
                "refund",
                "sepay:1:lost:dp1:0",
                "creditsNew",
                -pico_from_usd("8.8"),
                (await lot_of(shop, "-8.8"),),
                "payment sepay:1 returned",
                shop.now,
            ),
        ),
        records=(await lost_before(shop, "8.8", before),),
        claims=True,
    )
    assert await shop.store.apply_event(old, shop.now) is EventResult.DONE
    if before != "0":
        assert (await shop.returns("sepay:1", before)).word == "duplicate"
    assert (await shop.returns("sepay:1", "15000")).word == "returned"
    assert await shop.balance() == "6.6"
    payment = await shop.payment_record()
    assert (payment.document["returned"], payment.document["lost"]) == ("15000", "20000")
    await shop.disputes("sepay:1", "lost", "10000", dispute="dp2")
    assert await shop.balance() == "2.2"


async def lot_of(shop, usd):
    (lot,) = (await shop.store.account("alice")).lots
    return LotAmount(lot.lot, lot.pool, pico_from_usd(usd))


async def lost_before(shop, usd, before):
    """The change with which one counter once took in a lost dispute over 20,000."""
    payment = await shop.payment_record()
    (lot,) = (await shop.store.account("alice")).lots
    known = payment.document["reversed"].get(lot.lot, "0")
    document = {
        **payment.document,
        "returned": str(20000 + int(before)),
        "reversed": {lot.lot: usd_from_pico(pico_from_usd(known) + pico_from_usd(usd))},
        "disputes": {"dp1": "lost"},
    }
    return RecordChange.update(replace(payment, status="lost", document=document))


OWED = {
    "nothing that ended unspent": (["open", "ends"], "0"),
    "nothing that has ended and is not swept yet": (["open", "passes"], "0"),
    "what was spent, when the rest ended": (["spend 8", "ends"], "8"),
    "what was spent and not forgiven by a refund": (["spend 8", "back 25000", "ends"], "8"),
    "what was spent, in whatever order the refund came": (["spend 8", "ends", "back 25000"], "8"),
    "no more than is disputed": (["spend 15", "back 30000"], "8"),
    "nothing that the renewal of a period ended": (["renewed"], "0"),
}


@pytest.mark.parametrize(("events", "owed"), OWED.values(), ids=OWED)
async def test_of_a_lost_dispute_only_what_was_spent_is_owed(shop, events, owed):
    await shop.pays(await shop.order("20"))
    for event in events:
        what, _, amount = event.partition(" ")
        if what == "open":
            await shop.disputes("sepay:1", "open")
        elif what == "spend":
            await shop.spend(amount)
        elif what == "back":
            await shop.returns("sepay:1", amount)
        elif what == "renewed":
            part = await lot_of(shop, "-20")
            row = Transaction(
                "alice", "expired", "renewal", part.pool, part.amount_pico, (part,), "x", shop.now
            )
            assert await shop.store.apply_event(Event((row,)), shop.now) is EventResult.DONE
        else:
            shop.now += 8 * DAY
        if what == "ends":
            await sweep_expired_lots(shop.store, shop.now)
    gone = 20000 if "back 30000" in events else 50000
    assert (await shop.disputes("sepay:1", "lost", str(gone))).word == "lost"
    assert await shop.balance() == "0"
    await shop.pays(await shop.order("40"))
    await shop.collect()
    assert await shop.balance() == usd_from_pico(pico_from_usd("40") - pico_from_usd(owed))
    assert await shop.claims() == set()


async def test_what_is_swept_while_a_lost_dispute_is_worked_out_counts_once(shop, monkeypatch):
    await shop.pays(await shop.order("20"))
    await shop.spend("8")
    shop.now += 8 * DAY
    transactions, swept = shop.store.transactions, []

    async def swept_meanwhile(*asked, **more):
        if not swept:
            swept.append(await sweep_expired_lots(shop.store, shop.now))
        return await transactions(*asked, **more)

    monkeypatch.setattr(shop.store, "transactions", swept_meanwhile)
    assert (await shop.disputes("sepay:1", "lost")).word == "lost"
    assert swept == [1]
    assert await shop.claims() == {(False, pico_from_usd("8"))}


async def test_what_paid_another_debt_is_spent_money(shop):
    """A lot that paid an older debt is no less used than one that paid exchanges."""
    await shop.pays(await shop.order("20"))
    await shop.spend("20")
    await shop.disputes("sepay:1", "lost")
    await shop.pays(await shop.order("20"))
    await shop.collect()
    assert await shop.balance() == "0"
    await shop.disputes("sepay:2", "lost", dispute="dp2")
    assert await shop.claims() == {(False, pico_from_usd("20"))}


@pytest.mark.parametrize("spent", ["20", "5", "0"])
async def test_hole_16_what_exchanges_hold_of_a_lost_payment_is_owed_or_taken(shop, spent):
    """20 of 20 held when the dispute is lost, some of it spent then, 40 bought after."""
    await shop.pays(await shop.order("20"))
    await shop.lease("20")
    assert (await shop.disputes("sepay:1", "lost")).word == "lost"
    assert await shop.claims() == {(False, pico_from_usd("20"))}
    journal, grant = shop.leased
    part = grant.added[0][0]
    if spent != "0":
        taken = part._replace(amount_pico=pico_from_usd(spent))
        charge = replace(
            stand_in("ex1", "alice", "", ""),
            wallet="openhands",
            quarantine="",
            amount_pico=taken.amount_pico,
            takes=(taken,),
        )
        assert await shop.store.book(journal, 1, [charge], shop.now) == [Booked.BOOKED]
    rest = part._replace(amount_pico=part.amount_pico - pico_from_usd(spent))
    if rest.amount_pico:
        await shop.store.give_back("alice", journal, 1, grant.op, [rest], shop.now)
    await shop.collect()
    assert await shop.balance() == "0"
    await shop.pays(await shop.order("40"))
    await shop.collect()
    used = pico_from_usd("40") - pico_from_usd(spent)
    assert await shop.balance() == usd_from_pico(used)
    assert await shop.claims() == set()


async def test_a_payment_that_lost_a_dispute_and_won_another_is_lost(shop):
    await shop.pays(await shop.order("20"))
    await shop.disputes("sepay:1", "lost", "20000")
    await shop.disputes("sepay:1", "open", "10000", dispute="dp2")
    assert (await shop.payment_record()).status == "disputed"
    await shop.disputes("sepay:1", "won", "10000", dispute="dp2")
    assert (await shop.payment_record()).status == "lost"
    assert await shop.balance() == "12"


async def test_M4_parallel_lost_disputes_take_once(shop):
    await shop.pays(await shop.order("20"))
    await shop.spend("5")
    outcomes = await asyncio.gather(*(shop.disputes("sepay:1", "lost") for _ in range(6)))
    assert sorted(outcome.word for outcome in outcomes) == [*["duplicate"] * 5, "lost"]
    assert await shop.balance() == "0"
    assert await shop.claims() == {(False, pico_from_usd("5"))}


async def test_a_dispute_of_a_payment_under_review_is_decided_before_the_payment(shop):
    await shop.pays(await shop.order("20"), amount="60000")
    for state in ("open", "open", "won", "won"):
        assert "review" in (await shop.payment_record()).status
        outcome = await shop.disputes("sepay:1", state, "60000")
        if state == "open":
            with pytest.raises(UsageError, match="disputed"):
                await accept(shop.store, shop.settings, "sepay:1", "eve", shop.now)
    assert outcome.word == "duplicate"
    await accept(shop.store, shop.settings, "sepay:1", "eve", shop.now)
    assert await shop.balance() == "24"


@pytest.mark.parametrize(("lost", "credited"), [("60000", None), ("10000", "20")])
async def test_M6_what_a_lost_dispute_took_before_a_decision_buys_nothing(shop, lost, credited):
    await shop.pays(await shop.order("20"), amount="60000")
    assert (await shop.disputes("sepay:1", "lost", lost)).word == "lost"
    if credited is None:
        with pytest.raises(UsageError, match="gone back"):
            await accept(shop.store, shop.settings, "sepay:1", "eve", shop.now)
        return
    await accept(shop.store, shop.settings, "sepay:1", "eve", shop.now)
    assert await shop.balance() == credited
    assert (await shop.disputes("sepay:1", "lost", lost)).word == "duplicate"
    assert (await shop.payment_record()).status == "credited"
    await shop.returns("sepay:1", "25000", "60000")
    assert await shop.balance() == "10"


@pytest.mark.parametrize(
    ("states", "refusal"), [(["open"], "disputed"), (["lost"], "gone back"), (["open", "won"], "")]
)
async def test_M6_a_dispute_that_comes_before_its_payment_is_kept_for_it(shop, states, refusal):
    order = await shop.order("20")
    for state in states:
        outcome = await shop.disputes("sepay:1", state)
    assert outcome.word in {"review", "won"}
    assert (await shop.pays(order, payment="sepay:1")).word == "review"
    assert (await shop.pays(order, payment="sepay:1")).word == "duplicate"
    assert await shop.balance() == "0"
    if refusal:
        with pytest.raises(UsageError, match=refusal):
            await accept(shop.store, shop.settings, "sepay:1", "eve", shop.now)
        return
    await accept(shop.store, shop.settings, "sepay:1", "eve", shop.now)
    assert await shop.balance() == "20"


async def test_a_won_dispute_of_an_unknown_payment_is_ignored(shop):
    assert (await shop.disputes("sepay:1", "won")).word == "ignored"
    assert await shop.store.record("payment", "sepay:1") is None


async def test_a_frozen_payment_that_is_refunded_stays_disputed_until_it_is_decided(shop):
    await shop.pays(await shop.order("20"))
    await shop.disputes("sepay:1", "open")
    await shop.disputes("sepay:1", "open", "100", dispute="dp2")
    await shop.disputes("sepay:1", "won", "100", dispute="dp2")
    assert (await shop.payment_record()).status == "disputed"
    await shop.disputes("sepay:1", "won")
    await shop.returns("sepay:1", "50000")
    assert (await shop.payment_record()).status == "refunded"
