"""Booking: one settlement, one effect; what is late is paid elsewhere; what cannot be booked is parked."""

import asyncio

import pytest

from farebox.base.errors import UsageError
from farebox.base.records import LotAmount
from farebox.store.base import Booked, Change, Event, EventResult


async def start(scene, usd: int = 10, leased: int = 3) -> LotAmount:
    """Alice with money, and a journal that leases some of it."""
    await scene.user("alice", usd=usd)
    await scene.journal()
    (part,) = await scene.lease("alice", leased * scene.USD)
    return part


def of(part: LotAmount, amount: int) -> tuple[LotAmount, ...]:
    return (part._replace(amount_pico=amount),)


async def test_M1_a_covered_charge_moves_balance_lot_and_lease(scene):
    part = await start(scene)
    charge = scene.settlement("alice", scene.USD, of(part, scene.USD))

    assert await scene.book(charge) == [Booked.BOOKED]

    assert await scene.balance("alice") == 9 * scene.USD
    assert await scene.leased("alice") == 2 * scene.USD
    spent, bought = await scene.store.transactions("alice", 10)
    assert (spent.type, spent.amount_pico, spent.reference) == ("spent", -scene.USD, charge.exchange)
    assert spent.charge["counts"] == charge.counts
    assert spent.lots == of(part, -scene.USD)
    assert bought.type == "earned_purchase"


async def test_M4_a_replayed_batch_changes_nothing(scene):
    part = await start(scene)
    charges = [scene.settlement("alice", 5, of(part, 5)) for _ in range(3)]

    assert await scene.book(*charges) == [Booked.BOOKED] * 3
    assert await scene.book(*charges) == [Booked.DUPLICATE] * 3
    assert await scene.book(charges[1], charges[1]) == [Booked.DUPLICATE] * 2

    assert await scene.balance("alice") == 10 * scene.USD - 15


async def test_M4_the_same_record_twice_in_one_batch_is_booked_once(scene):
    part = await start(scene)
    charge = scene.settlement("alice", 7, of(part, 7))

    assert await scene.book(charge, charge) == [Booked.BOOKED, Booked.DUPLICATE]
    assert await scene.balance("alice") == 10 * scene.USD - 7


async def test_an_empty_batch_is_no_work(scene):
    await scene.journal()
    assert await scene.book() == []


async def test_M2_a_batch_above_the_lease_is_booked_late_where_it_does_not_fit(scene):
    part = await start(scene, usd=10, leased=3)
    charges = [scene.settlement("alice", scene.USD, of(part, scene.USD)) for _ in range(5)]

    results = await scene.book(*charges)

    assert results == [Booked.BOOKED] * 3 + [Booked.LATE] * 2
    assert await scene.balance("alice") == 5 * scene.USD
    assert await scene.leased("alice") == 0


async def test_a_charge_above_its_hold_takes_the_rest_from_free_money_and_fences(scene):
    part = await start(scene, usd=10, leased=1)
    before = (await scene.store.account("alice")).leases[scene.J].op
    charge = scene.settlement("alice", 3 * scene.USD, of(part, scene.USD))

    assert await scene.book(charge) == [Booked.LATE]

    assert await scene.balance("alice") == 7 * scene.USD
    assert (await scene.store.account("alice")).leases[scene.J].op == before + 1
    assert Change(0, "fence", "alice", scene.J) == last_change(await scene.store.changes_after(0, 100))


def last_change(changes: list[Change]) -> Change:
    return Change(0, changes[-1].kind, changes[-1].subject, changes[-1].journal)


async def test_what_no_pool_covers_is_written_off_and_the_balance_stops_at_zero(scene):
    part = await start(scene, usd=2, leased=1)
    charge = scene.settlement("alice", 5 * scene.USD, of(part, scene.USD))

    assert await scene.book(charge) == [Booked.LATE]

    assert await scene.balance("alice") == 0
    rows = {row.type: row for row in await scene.store.transactions("alice", 10)}
    assert rows["spent"].amount_pico == -5 * scene.USD
    assert rows["written_off"].amount_pico == 3 * scene.USD
    assert (await scene.store.account("alice")).written_off_pico == 3 * scene.USD
    counters = await scene.store.lifetime("alice")
    assert counters["total_spent_pico"] == 2 * scene.USD
    assert counters["creditsUsed_pico"] == 2 * scene.USD


async def test_a_late_record_is_a_duplicate_when_it_comes_again(scene):
    part = await start(scene, usd=2, leased=1)
    charge = scene.settlement("alice", 5 * scene.USD, of(part, scene.USD))
    await scene.book(charge)
    assert await scene.book(charge) == [Booked.DUPLICATE]
    assert (await scene.store.account("alice")).written_off_pico == 3 * scene.USD


async def test_M5_a_free_exchange_leaves_a_zero_row(scene):
    await start(scene)
    charge = scene.settlement("alice", 0, evidence="estimated")
    assert await scene.book(charge) == [Booked.BOOKED]
    assert await scene.book(charge) == [Booked.DUPLICATE]
    row = (await scene.store.transactions("alice", 1))[0]
    assert (row.type, row.amount_pico, row.lots, row.reference) == ("spent", 0, (), charge.exchange)
    assert await scene.store.row_ids([("alice", charge.exchange)]) == {charge.exchange}


async def test_a_refusal_leaves_no_row_and_needs_no_user(scene):
    await scene.journal()
    refused = scene.settlement("ghost", 0, evidence="none", outcome="refused", status=402)
    assert await scene.book(refused, refused) == [Booked.BOOKED] * 2
    assert await scene.store.parked() == []
    assert await scene.store.row_ids([("ghost", refused.exchange)]) == set()


async def test_lots_of_two_pools_are_two_rows_of_one_exchange(scene):
    await scene.user("alice", usd=1)
    await scene.credit("alice", scene.USD, "refCredits")
    await scene.journal()
    parts = await scene.lease("alice", 2 * scene.USD)
    charge = scene.settlement("alice", 2 * scene.USD, parts)

    assert await scene.book(charge) == [Booked.BOOKED]

    first, second = reversed(await scene.store.transactions("alice", 2))
    assert (first.pool, second.pool) == ("credits", "refCredits")
    assert first.charge
    assert not second.charge
    assert (await scene.store.lifetime("alice"))["creditsUsed_pico"] == 2 * scene.USD


async def test_lifetime_counters_move_with_the_money(scene):
    await scene.user("alice")
    await scene.credit("alice", 5 * scene.USD, "creditsNew")
    await scene.credit("alice", 5 * scene.USD, "credits_monthly")
    await scene.journal()
    (new,) = await scene.lease("alice", scene.USD, wallet="openhands")
    (monthly,) = await scene.lease("alice", scene.USD, wallet="subscription")
    charges = (
        scene.settlement("alice", 30, of(new, 30), wallet="openhands", others={"haiku": {"output": 11}}),
        scene.settlement("alice", 40, of(monthly, 40), wallet="subscription"),
    )
    assert await scene.book(*charges) == [Booked.BOOKED] * 2
    assert await scene.store.lifetime("alice") == {
        "creditsUsed_pico": 0,
        "creditsNewUsed_pico": 30,
        "tokensUserNew": 13200 + 811,
        "totalInputTokens": 2 * 13200,
        "totalOutputTokens": 811 + 800,
        "total_earned_pico": 10 * scene.USD,
        "total_spent_pico": 70,
    }
    assert await scene.store.lifetime("nobody") is None


async def test_S10_one_users_trouble_holds_up_nobody_else(scene):
    part = await start(scene)
    await scene.user("bob", usd=1)
    (bobs,) = await scene.lease("bob", scene.USD)
    poison = scene.settlement("alice", 5, of(part, 5), input_total=2**63)
    good = scene.settlement("bob", 5, of(bobs, 5))
    after = scene.settlement("alice", 6, of(part, 6))
    ghost = scene.settlement("ghost", 5, of(part, 5))

    assert await scene.book(poison, good, ghost, after) == [
        Booked.PARKED,
        Booked.BOOKED,
        Booked.PARKED,
        Booked.BOOKED,
    ]

    assert await scene.balance("bob") == scene.USD - 5
    assert await scene.balance("alice") == 10 * scene.USD - 6
    assert [(one["kind"], one["user"]) for one in await scene.store.parked()] == [
        ("poison", "alice"),
        ("account", "ghost"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool": "refCredits"},
        {"pool": "creditsNew"},
        {"pool": "gold"},
        {"lot": "f" * 24},
        {"amount_pico": 0},
        {"amount_pico": -5},
    ],
)
async def test_M1_takes_that_cannot_be_are_never_booked_as_they_stand(scene, wrong):
    part = await start(scene)
    take = part._replace(amount_pico=5)._replace(**wrong)
    result = (await scene.book(scene.settlement("alice", 5, (take,))))[0]
    assert result in {Booked.LATE, Booked.PARKED}
    assert await scene.balance("alice") in {10 * scene.USD - 5, 10 * scene.USD}


async def test_M1_parts_that_add_up_by_a_negative_one_are_never_booked_as_they_stand(scene):
    part = await start(scene)
    takes = (part._replace(amount_pico=10), part._replace(amount_pico=-5))
    (result,) = await scene.book(scene.settlement("alice", 5, takes))
    assert result in {Booked.LATE, Booked.PARKED}
    assert await scene.balance("alice") in {10 * scene.USD - 5, 10 * scene.USD}


async def test_S10_more_tokens_than_a_store_can_count_are_put_aside_and_stop_nobody(scene):
    part = await start(scene)
    await scene.user("bob", usd=1)
    (of_bob,) = await scene.lease("bob", 5)
    paid = part._replace(amount_pico=5)
    results = await scene.book(
        scene.settlement("alice", 5, (paid,), input_total=2**63),
        scene.settlement("alice", 5, (paid,)),
        scene.settlement("bob", 5, (of_bob,)),
    )
    assert results[0] is Booked.PARKED
    assert await scene.balance("alice") == 10 * scene.USD - 5
    assert await scene.balance("bob") == scene.USD - 5
    assert [(one["kind"], one["user"]) for one in await scene.store.parked()] == [("poison", "alice")]


async def test_S09_other_content_under_a_booked_id_is_parked_and_changes_nothing(scene):
    part = await start(scene)
    charge = scene.settlement("alice", 5, of(part, 5))
    other = scene.settlement("alice", 6, of(part, 6), exchange=charge.exchange)
    await scene.book(charge)

    assert await scene.book(other) == [Booked.PARKED]
    assert await scene.book(other) == [Booked.PARKED]

    assert await scene.balance("alice") == 10 * scene.USD - 5
    (alarm,) = await scene.store.parked()
    assert alarm["kind"] == "conflict"
    with pytest.raises(UsageError, match="booked already"):
        await scene.store.resolve_parked(alarm["id"], 6, "operator", scene.NOW)
    assert await scene.store.resolve_parked(alarm["id"], None, "operator", scene.NOW) is Booked.BOOKED
    assert await scene.store.parked() == []
    await scene.sound()


async def test_S08_the_same_content_under_a_booked_id_counts_as_booked(scene):
    part = await start(scene)
    charge = scene.settlement("alice", 5, of(part, 5))
    await scene.book(charge)
    assert await scene.book(charge) == [Booked.DUPLICATE]
    assert await scene.store.parked() == []


async def test_a_parked_account_parks_its_records_and_keeps_its_money(scene, outside):
    part = await start(scene)
    outside.park("alice", "asked to")
    charge = scene.settlement("alice", 5, of(part, 5))

    assert await scene.book(charge) == [Booked.PARKED]
    assert await scene.book(charge) == [Booked.DUPLICATE]

    assert await scene.balance("alice") == 10 * scene.USD
    (waiting,) = await scene.store.parked()
    assert (waiting["id"], waiting["reason"]) == (charge.exchange, "asked to")
    assert await scene.store.resolve_parked(charge.exchange, 5, "operator", scene.NOW) is Booked.PARKED
    outside.park("alice", None)
    assert await scene.store.resolve_parked(charge.exchange, 5, "operator", scene.NOW) is Booked.BOOKED
    assert await scene.balance("alice") == 10 * scene.USD - 5
    assert await scene.book(charge) == [Booked.DUPLICATE]


async def test_S18_hole_14_a_balance_written_from_outside_parks_the_user(scene, outside):
    part = await start(scene)
    outside.write_balance("alice", "credits", 10 * scene.USD + 1)
    charge = scene.settlement("alice", 5, of(part, 5))

    assert await scene.store.book(scene.J, 1, [charge], scene.NOW) == [Booked.PARKED]

    account = await scene.store.account("alice")
    assert "outside" in account.parked
    (waiting,) = await scene.store.parked()
    assert waiting["kind"] == "account"


async def test_hole_03_one_users_failure_does_not_skip_his_next_batch(scene, outside):
    part = await start(scene)
    first, second = (scene.settlement("alice", 5, of(part, 5)) for _ in range(2))
    outside.park("alice", "for a moment")
    assert await scene.book(first) == [Booked.PARKED]
    outside.park("alice", None)
    assert await scene.book(second) == [Booked.BOOKED]
    assert await scene.store.resolve_parked(first.exchange, 5, "operator", scene.NOW) is Booked.BOOKED
    assert await scene.balance("alice") == 10 * scene.USD - 10
    await scene.sound()


async def test_hole_06_hole_47_charges_of_a_host_that_came_back_take_the_late_path(scene):
    part = await start(scene, usd=3, leased=3)
    await scene.store.end_journal(scene.J, "lost")
    await scene.journal(scene.K)
    (others,) = await scene.lease("alice", 2 * scene.USD, journal=scene.K)

    assert await scene.book(scene.settlement("alice", 2 * scene.USD, of(part, 2 * scene.USD))) == [
        Booked.LATE
    ]

    assert await scene.balance("alice") == 2 * scene.USD
    assert (await scene.store.account("alice")).written_off_pico == scene.USD
    assert await scene.book(
        scene.settlement("alice", 2 * scene.USD, of(others, 2 * scene.USD)), journal=scene.K
    ) == [Booked.BOOKED]


async def test_hole_08_the_first_batch_of_a_user_is_booked(scene):
    await scene.user("alice", usd=1)
    await scene.journal()
    (part,) = await scene.lease("alice", 50)
    assert await scene.book(scene.settlement("alice", 5, of(part, 5))) == [Booked.BOOKED]
    assert await scene.balance("alice") == scene.USD - 5


async def test_hole_09_another_amount_under_the_same_id_is_an_alarm(scene):
    part = await start(scene)
    charge = scene.settlement("alice", 5, of(part, 5))
    await scene.book(charge)
    larger = scene.settlement("alice", 500, of(part, 500), exchange=charge.exchange)
    assert await scene.book(scene.settlement("alice", 1, of(part, 1)), larger) == [
        Booked.BOOKED,
        Booked.PARKED,
    ]
    assert len(await scene.store.parked()) == 1


async def test_hole_25_a_poisoned_row_leaves_no_update_behind(scene):
    part = await start(scene)
    poison = scene.settlement("alice", 5, of(part, 5), counts={"output": 2**63})
    assert await scene.book(poison) == [Booked.PARKED]
    assert await scene.balance("alice") == 10 * scene.USD
    assert await scene.leased("alice") == 3 * scene.USD
    assert await scene.store.resolve_parked(poison.exchange, 5, "operator", scene.NOW) is Booked.BOOKED
    assert await scene.balance("alice") == 10 * scene.USD - 5
    await scene.sound()


async def test_M1_a_row_that_is_missing_swallows_no_money(scene, outside):
    part = await start(scene)
    outside.remove_balance("alice", "credits")
    charge = scene.settlement("alice", 5, of(part, 5))
    assert await scene.store.book(scene.J, 1, [charge], scene.NOW) == [Booked.PARKED]
    reason = (await scene.store.parked())[0]["reason"]
    assert "missing" in reason or "outside" in reason
    assert await scene.store.row_ids([("alice", charge.exchange)]) == {charge.exchange}
    assert len(await scene.store.transactions("alice", 9)) == 1


async def test_hole_29_every_snapshot_between_operations_adds_up_while_others_write(scene):
    part = await start(scene)
    charges = [[scene.settlement("alice", 1, of(part, 1)) for _ in range(20)] for _ in range(20)]
    booking = asyncio.gather(*(scene.store.book(scene.J, 1, batch, scene.NOW) for batch in charges))
    while not booking.done():
        await scene.sound()
    assert await booking == [[Booked.BOOKED] * 20] * 20
    await scene.sound()


async def test_hole_48_a_return_after_the_late_path_cannot_make_the_lease_negative(scene):
    part = await start(scene, usd=3, leased=3)
    op = scene.ops["alice", scene.J]
    await scene.book(scene.settlement("alice", 2 * scene.USD))

    assert await scene.store.give_back("alice", scene.J, 1, op, [part], scene.NOW) is None

    assert await scene.leased("alice") == scene.USD
    await scene.sound()


async def test_hole_30_hole_54_a_quarantined_hold_stays_reserved(scene):
    part = await start(scene, usd=3, leased=3)
    held = scene.settlement("alice", 0, of(part, 2 * scene.USD), quarantine="no price for audio_input")

    assert await scene.book(held) == [Booked.PARKED]
    assert await scene.book(held) == [Booked.DUPLICATE]

    account = await scene.store.account("alice")
    assert account.reserved == {held.exchange: {part.lot: 2 * scene.USD}}
    assert await scene.leased("alice") == scene.USD
    await scene.journal(scene.K)
    refused = await scene.store.grant("alice", "ohmygpt", scene.K, 1, 0, 1, 1, scene.NOW)
    assert (refused.reason, refused.available_pico) == ("short", 0)
    assert await scene.store.row_ids([("alice", held.exchange)]) == {held.exchange}


async def test_a_quarantine_without_a_hold_waits_for_an_operator_too(scene):
    await start(scene)
    held = scene.settlement("alice", 0, quarantine="unpriced")
    assert await scene.book(held, scene.settlement("alice", 0)) == [Booked.PARKED, Booked.BOOKED]
    assert await scene.store.resolve_parked(held.exchange, 7, "operator", scene.NOW) is Booked.BOOKED
    assert await scene.balance("alice") == 10 * scene.USD - 7
    await scene.sound()


@pytest.mark.parametrize(("amount", "left"), [(None, 3), (1, 2), (2, 1), (5, 0)])
async def test_a_quarantined_exchange_is_settled_or_voided_once(scene, amount, left):
    part = await start(scene, usd=3, leased=2)
    held = scene.settlement("alice", 0, of(part, 2 * scene.USD), quarantine="unpriced")
    await scene.book(held)
    await scene.store.log([held], {})
    pico = None if amount is None else amount * scene.USD

    assert (await scene.store.parked())[0]["reserved_pico"] == 2 * scene.USD
    assert await scene.store.resolve_parked(held.exchange, pico, "operator", scene.NOW) is Booked.BOOKED
    assert await scene.store.resolve_parked(held.exchange, pico, "operator", scene.NOW) is None

    assert await scene.balance("alice") == left * scene.USD
    account = await scene.store.account("alice")
    assert account.reserved == {}
    assert account.written_off_pico == max(0, (amount or 0) - 3) * scene.USD
    assert await scene.store.parked() == []
    assert await scene.book(held) == [Booked.DUPLICATE]
    log = await scene.store.request_log(held.exchange)
    assert log["charge"] == str(amount or 0)
    assert log["creditsCost"] == str(min(amount or 0, 3))


async def test_a_quarantine_that_knows_no_lots_sets_its_hold_aside(scene):
    await start(scene, usd=3, leased=3)
    held = scene.settlement("alice", 2 * scene.USD, quarantine="prices are not in the journal")
    assert await scene.book(held) == [Booked.PARKED]
    account = await scene.store.account("alice")
    assert sum(account.reserved[held.exchange].values()) == 2 * scene.USD
    await scene.store.log([held], {held.exchange: 0})
    assert (await scene.store.request_log(held.exchange))["charge"] == "0"
    assert await scene.store.resolve_parked(held.exchange, scene.USD, "operator", scene.NOW) is Booked.BOOKED
    assert await scene.balance("alice") == 2 * scene.USD
    await scene.sound()


async def test_a_resolved_quarantine_takes_its_reserved_lots_before_any_other(scene):
    await scene.user("alice")
    later = await scene.credit("alice", 100, expires=scene.NOW + 99)
    sooner = await scene.credit("alice", 60, expires=scene.NOW + 9)
    await scene.journal()
    held = scene.settlement("alice", 0, (later._replace(amount_pico=80),), quarantine="unpriced")
    await scene.lease("alice", 160)
    await scene.book(held)
    await scene.store.end_journal(scene.J, "retired")
    assert await scene.store.resolve_parked(held.exchange, 90, "operator", scene.NOW) is Booked.BOOKED
    left = {lot.lot: lot.left_pico for lot in (await scene.store.account("alice")).lots}
    assert left == {later.lot: 20, sooner.lot: 50}
    await scene.sound()


async def test_a_quarantine_whose_lease_is_gone_reserves_free_money(scene):
    part = await start(scene, usd=3, leased=3)
    await scene.store.end_journal(scene.J, "lost")
    held = scene.settlement("alice", 0, of(part, 5 * scene.USD), quarantine="unpriced")
    assert await scene.book(held) == [Booked.PARKED]
    account = await scene.store.account("alice")
    assert account.reserved == {held.exchange: {part.lot: 3 * scene.USD}}


async def test_reserved_money_of_an_expired_lot_pays_its_own_exchange(scene):
    await scene.user("alice")
    await scene.credit("alice", 100, expires=scene.NOW + 10)
    await scene.journal()
    (part,) = await scene.lease("alice", 100)
    held = scene.settlement("alice", 0, of(part, 100), quarantine="unpriced")
    await scene.book(held)
    assert await scene.store.resolve_parked(held.exchange, 60, "op", scene.NOW + 20) is Booked.BOOKED
    assert await scene.balance("alice") == 40
    await scene.sound()


async def test_resolving_says_what_cannot_be_done(scene):
    await scene.journal()
    ghost = scene.settlement("ghost", 5)
    await scene.book(ghost)
    with pytest.raises(UsageError, match="negative"):
        await scene.store.resolve_parked(ghost.exchange, -1, "operator", scene.NOW)
    with pytest.raises(UsageError, match="no such user"):
        await scene.store.resolve_parked(ghost.exchange, 5, "operator", scene.NOW)
    assert await scene.store.resolve_parked("unknown", 5, "operator", scene.NOW) is None
    assert await scene.store.resolve_parked(ghost.exchange, None, "operator", scene.NOW) is Booked.BOOKED
    assert await scene.store.parked() == []


async def test_hole_58_one_busy_user_and_one_poisoned_record_stop_nobody(scene):
    part = await start(scene)
    await scene.user("bob", usd=1)
    (bobs,) = await scene.lease("bob", 100)
    poison = scene.settlement("bob", 5, of(bobs, 5), input_total=2**63)
    batch = [scene.settlement("alice", 1, of(part, 1)) for _ in range(5)]
    await scene.lease("alice", scene.USD)
    assert await scene.book(poison, *batch) == [Booked.PARKED, *[Booked.BOOKED] * 5]
    assert await scene.book(poison, *batch) == [Booked.DUPLICATE] * 6


async def test_hole_53_a_disabled_users_charges_and_credits_are_booked(scene):
    part = await start(scene)
    await scene.store.set_user_active("alice", False, "test", scene.NOW)
    assert await scene.book(scene.settlement("alice", 5, of(part, 5))) == [Booked.BOOKED]
    refund = Event((scene.row("alice", "refund", "credits", 5, of(part, 5)),))
    assert await scene.store.apply_event(refund, scene.NOW) is EventResult.DONE
    assert await scene.balance("alice") == 10 * scene.USD
    await scene.sound()
