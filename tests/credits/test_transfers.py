"""Moves of credit: once, in pairs that add up to zero, explained, within the rules, and taken back by
counter-transactions.
"""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from farebox.base.errors import StoreConflictError, UsageError
from farebox.base.records import Claim, LotAmount
from farebox.config.plans import Allocation
from farebox.credits.moves import Move
from farebox.credits.transfers import allocate, perform, undo
from farebox.ledger.conservation import differences
from farebox.store.base import Event, EventResult

NOW = 1_770_000_000_000
USD = 10**12
DAY = 86_400_000
MOVE = Move("transfer", "t1", "alice", "credits", 3 * USD, "asked for", "root", "bob", "creditsNew")
WAYS = (Allocation("credits", "creditsNew", Decimal("0.9"), USD, 5 * USD, 8 * USD),)


@pytest.fixture(autouse=True)
async def sound(store):
    """Alice with 4 USD that end tomorrow and 4 that never do; Bob with nothing. M1 and M2 at the end."""
    for user in ("alice", "bob"):
        await store.create_user(user, "user", "test", NOW)
    for key, ends in (("g1", NOW + DAY), ("g2", None)):
        grant = Move("grant", key, "alice", "credits", 4 * USD, "test", "root", expires_at_ms=ends)
        assert (await perform(store, grant, NOW)).result is EventResult.DONE
    yield
    for user in ("alice", "bob"):
        assert differences(*(await store.account_with_rows(user))) == []


async def pools(store, user):
    return {pool: amount for pool, amount in (await store.account(user)).balances.items() if amount}


async def test_M4_a_transfer_is_made_once_and_adds_up_to_zero(store):
    made = await perform(store, MOVE, NOW)
    assert made.result is EventResult.DONE
    assert [(row.user, row.type, row.pool, row.amount_pico) for row in made.rows] == [
        ("alice", "transfer_out", "credits", -3 * USD),
        ("bob", "transfer_in", "creditsNew", 3 * USD),
    ]
    again = await perform(store, MOVE, NOW + 5)
    assert (again.result, again.rows) == (EventResult.DUPLICATE, made.rows)
    assert await pools(store, "bob") == {"creditsNew": 3 * USD}
    (lot,) = (await store.account("bob")).lots
    assert lot.expires_at_ms == NOW + DAY
    for other in (
        replace(MOVE, amount_pico=1),
        replace(MOVE, to_pool="credits"),
        replace(MOVE, rate=Decimal(2)),
    ):
        with pytest.raises(UsageError, match="was used for 3 USD"):
            await perform(store, other, NOW)


async def test_a_dry_run_shows_the_rows_and_books_none(store):
    shown = await perform(store, MOVE, NOW, dry_run=True)
    assert await pools(store, "bob") == {}
    assert await store.record("transfer", "t1") is None
    assert (await perform(store, MOVE, NOW)).rows == shown.rows


@pytest.mark.parametrize(
    ("rate", "rows"),
    [
        ("0.5", [("transfer_out", -1.5), ("transfer_in", 1.5), ("adjustment", -1.5)]),
        ("2", [("transfer_out", -3), ("transfer_in", 3), ("earned_bonus", 3)]),
    ],
)
async def test_what_a_rate_takes_or_gives_has_a_row_of_its_own(store, rate, rows):
    made = await perform(store, replace(MOVE, rate=Decimal(rate)), NOW)
    assert [(row.type, row.amount_pico / USD) for row in made.rows] == rows
    paired = [row.amount_pico for row in made.rows if row.type.startswith("transfer")]
    assert sum(paired) == 0
    back = await undo(store, "t1", "wrong", "root", NOW)
    assert back.result is EventResult.DONE
    assert await pools(store, "bob") == {}
    assert await pools(store, "alice") == {"credits": 8 * USD}


async def test_undoing_puts_the_lots_back_as_they_were_and_happens_once(store):
    before = (await store.account("alice")).lots
    await perform(store, replace(MOVE, amount_pico=6 * USD), NOW)
    shown = await undo(store, "t1", "wrong user", "root", NOW, dry_run=True)
    assert await pools(store, "bob") == {"creditsNew": 6 * USD}
    back = await undo(store, "t1", "wrong user", "root", NOW)
    assert back.rows == shown.rows
    assert sum(row.amount_pico for row in back.rows) == 0
    assert sorted((await store.account("alice")).lots, key=str) == sorted(before, key=str)
    assert (await undo(store, "t1", "wrong user", "root", NOW)).result is EventResult.DUPLICATE
    assert (await store.record("transfer", "t1")).status == "undone"
    with pytest.raises(UsageError, match="no move"):
        await undo(store, "t1.undo", "again", "root", NOW)


async def test_M2_what_is_spent_is_not_taken_back(store):
    await perform(store, MOVE, NOW)
    spent = Move("correction", "c1", "bob", "creditsNew", -USD, "used", "root")
    assert (await perform(store, spent, NOW)).result is EventResult.DONE
    with pytest.raises(UsageError, match="spent, expired or in use"):
        await undo(store, "t1", "wrong", "root", NOW)
    assert await pools(store, "bob") == {"creditsNew": 2 * USD}


@pytest.mark.parametrize("amount", [2 * USD, -2 * USD])
async def test_corrections_and_grants_can_be_undone(store, amount):
    await perform(store, Move("correction", "c1", "alice", "credits", amount, "recount", "root"), NOW)
    assert await pools(store, "alice") == {"credits": 8 * USD + amount}
    await undo(store, "c1", "recounted", "root", NOW)
    assert await pools(store, "alice") == {"credits": 8 * USD}
    await undo(store, "g2", "not due", "root", NOW)
    assert await pools(store, "alice") == {"credits": 4 * USD}


async def test_M2_no_more_goes_than_there_is(store):
    made = await perform(store, replace(MOVE, amount_pico=8 * USD + 1), NOW, wait_s=0)
    assert (made.result, made.rows) == (EventResult.SHORT, ())
    late = await perform(store, replace(MOVE, amount_pico=5 * USD), NOW + DAY, wait_s=0)
    assert late.result is EventResult.SHORT
    assert await pools(store, "bob") == {}


async def test_money_that_is_leased_is_waited_for_and_the_claim_goes(store):
    await store.claim_epoch("a" * 16, 1, "host", NOW)
    leased = await store.grant("alice", "ohmygpt", "a" * 16, 1, 0, 7 * USD, 7 * USD, NOW)
    assert leased.reason == ""
    short = await perform(store, MOVE, NOW, wait_s=0.1)
    assert short.result is EventResult.SHORT
    assert (await store.account("alice")).claims == ()
    parts = [part for part, _ in leased.added]
    await store.set_claim("alice", Claim("t1", "credits", None, 3 * USD))
    assert await store.give_back("alice", "a" * 16, 1, leased.op, parts, NOW) is not None
    assert (await perform(store, MOVE, NOW, wait_s=0.1)).result is EventResult.DONE
    assert (await store.account("alice")).claims == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": "no spaces"}, "is no key"),
        ({"reason": " "}, "say why"),
        ({"pool": "gold"}, "is no pool"),
        ({"to_pool": "gold"}, "is no pool"),
        ({"amount_pico": 0}, "zero or negative"),
        ({"amount_pico": -5}, "zero or negative"),
        ({"to_user": "alice", "to_pool": "credits"}, "another user or another pool"),
        ({"to_user": "nobody"}, "no user 'nobody'"),
        ({"user": "nobody"}, "no user 'nobody'"),
        ({"rate": Decimal("1e-30")}, "nothing would arrive"),
        ({"kind": "gift"}, "no kind"),
    ],
)
async def test_a_move_that_cannot_be_is_refused(store, changes, said):
    with pytest.raises(UsageError, match=said):
        await perform(store, replace(MOVE, **changes), NOW)


async def test_a_user_moves_his_own_credit_within_the_rules(store):
    own = replace(MOVE, to_user="alice", actor="alice", key="a1")
    made = await allocate(store, own, WAYS, NOW)
    assert made.result is EventResult.DONE
    assert await pools(store, "alice") == {"credits": 5 * USD, "creditsNew": 27 * USD // 10}
    assert (await allocate(store, own, WAYS, NOW)).result is EventResult.DUPLICATE
    refusals = {
        "not offered": replace(own, key="a2", to_pool="refCredits"),
        "not offered here": replace(own, key="a2", to_user="bob"),
        "between 1 and 5": replace(own, key="a2", amount_pico=6 * USD),
        "between": replace(own, key="a2", amount_pico=USD - 1),
    }
    for said, move in refusals.items():
        with pytest.raises(UsageError, match=said):
            await allocate(store, move, WAYS, NOW)
    assert (await allocate(store, replace(own, key="a3"), WAYS, NOW + 1)).result is EventResult.DONE
    with pytest.raises(UsageError, match="2 USD can still be moved"):
        await allocate(store, replace(own, key="a4"), WAYS, NOW + 2)
    fresh = replace(own, key="a5", amount_pico=2 * USD)
    assert (await allocate(store, fresh, WAYS, NOW + DAY + 2)).result is EventResult.DONE


async def test_moves_at_once_stay_within_the_day_together(store):
    """Eight wishes of 2 USD at once where 8 USD a day are allowed; what was unclear is asked again."""
    own = replace(MOVE, to_user="alice", actor="alice", amount_pico=2 * USD)
    await perform(store, Move("grant", "g3", "alice", "credits", 8 * USD, "test", "root"), NOW)

    async def wish(number):
        while True:
            try:
                return (await allocate(store, replace(own, key=f"a{number}"), WAYS, NOW)).result
            except StoreConflictError:
                continue
            except UsageError:
                return "refused"

    said = await asyncio.gather(*map(wish, range(8)))
    assert (said.count(EventResult.DONE), said.count("refused")) == (4, 4)
    assert (await pools(store, "alice"))["credits"] == 8 * USD


async def test_every_row_says_why_and_every_record_who(store):
    await perform(store, MOVE, NOW)
    await undo(store, "t1", "wrong", "eve", NOW)
    (row,) = await store.transactions("bob", 1)
    assert row.cause == "wrong: undoes t1"
    made, undone = await store.record("transfer", "t1"), await store.record("transfer", "t1.undo")
    assert (made.document["actor"], made.document["reason"]) == ("root", "asked for")
    assert (undone.document["actor"], undone.document["undoes"]) == ("eve", "t1")


async def test_rows_booked_by_another_event_are_not_taken_for_the_move(store):
    part = LotAmount("5" * 24, "credits", 7)
    row = (await perform(store, replace(MOVE, key="x"), NOW, dry_run=True)).rows[0]
    foreign = replace(row, type="earned_bonus", amount_pico=7, lots=(part,), reference="g9")
    await store.apply_event(Event((foreign,)), NOW)
    with pytest.raises(UsageError, match="use another key"):
        await perform(store, Move("grant", "g9", "alice", "credits", 8, "test", "root"), NOW)
