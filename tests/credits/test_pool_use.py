"""What operators see of the pools' use is the ledger's own sums, on both stores alike."""

import pytest

from farebox.credits.moves import Move
from farebox.credits.pool_use import pools_document
from farebox.credits.transfers import perform
from store.conftest import Scene

NOW = 1_760_000_000_000
USD = 10**12
DAY = 86_400_000


async def give(store, key, user, pool, amount_pico, at_ms=NOW):
    await perform(store, Move("grant", key, user, pool, amount_pico, "test", "root"), at_ms)


@pytest.fixture
async def used(store):
    """Alice and Bob with both pools of a subscription; Alice spends more than her permanent credit."""
    for user in ("alice", "bob"):
        await store.create_user(user, "user", "test", NOW)
        await give(store, f"p-{user}", user, "credits_permanent", 3 * USD, NOW - 2 * DAY)
        await give(store, f"m-{user}", user, "credits_monthly", 5 * USD)
    scene = Scene(store)
    await scene.journal()
    takes = await scene.lease("alice", 4 * USD, wallet="subscription")
    spent = scene.settlement("alice", 4 * USD, takes, wallet="subscription")
    await store.book(scene.J, 1, [spent], NOW)


async def test_M7_each_pools_use_is_the_sum_of_its_rows(store, used):
    found = pools_document(await store.wealth(), await store.pool_use(0, NOW + DAY))
    assert found["credits_permanent"] == {
        "balance": "3",
        "spent_share": "75.0",
        "types": {
            "earned_bonus": {"amount": "6", "transactions": 2, "users": 2},
            "spent": {"amount": "-3", "transactions": 1, "users": 1},
        },
    }
    assert (found["credits_monthly"]["spent_share"], found["credits_monthly"]["balance"]) == ("25.0", "9")
    assert found["credits"] == {"balance": "0", "spent_share": "", "types": {}}


async def test_a_span_leaves_out_what_lies_before_it_and_sums_beyond_63_bits(store, used):
    await give(store, "big-1", "alice", "credits", 9_000_000 * USD)
    await give(store, "big-2", "bob", "credits", 9_000_000 * USD + 1)
    uses = {(use.pool, use.type): use for use in await store.pool_use(NOW, NOW + 1)}
    assert ("credits_permanent", "earned_bonus") not in uses
    assert uses["credits", "earned_bonus"].amount_pico == 18_000_000 * USD + 1
