"""Opening balances are booked once, on top of what is there, and never to an account that waits for an
operator (M1, M4).
"""

import pytest

from farebox.base.errors import InvariantBrokenError
from farebox.ledger.opening import opening_row
from farebox.store.openings import PARKED_BY_IMPORT, Opening, OpeningResult


def opening(scene, user="alice", old=500, new=70, **changes):
    rows = tuple(
        opening_row(user, pool, amount, "old system", "import", scene.NOW)
        for pool, amount in (("credits", old), ("creditsNew", new))
    )
    plain = {
        "user": user,
        "role": "user",
        "is_active": True,
        "created_ms": 5,
        "rows": rows,
        "ends_ms": {"credits": scene.NOW + 1000},
        "bought_ms": {"credits": 7},
        "counters": {"total_spent_pico": 9, "totalInputTokens": 3},
    }
    scene.users.add(user)
    return Opening(**{**plain, **changes})


async def opened(scene, *openings):
    results = await scene.store.open_accounts(openings, scene.NOW)
    await scene.sound()
    return results


async def test_M1_M4_an_account_is_opened_once_with_its_balances_and_dates(scene):
    assert await opened(scene, opening(scene), opening(scene, "bob", 0, 0)) == [OpeningResult.CREATED] * 2
    assert await scene.balance("alice") == 500
    assert await scene.balance("alice", "creditsNew") == 70
    account = await scene.store.account("alice")
    assert {lot.pool: lot.expires_at_ms for lot in account.lots} == {
        "credits": scene.NOW + 1000,
        "creditsNew": None,
    }
    assert (await scene.store.lifetime("alice"))["total_spent_pico"] == 9
    assert await opened(scene, opening(scene)) == [OpeningResult.UNCHANGED]
    assert await opened(scene, opening(scene, old=501)) == [OpeningResult.DIFFERENT]
    assert await scene.balance("alice") == 500


async def test_M1_an_account_that_is_there_gets_its_opening_on_top(scene):
    await scene.user("alice", usd=1)
    for result in (OpeningResult.ADDED, OpeningResult.UNCHANGED):
        assert await opened(scene, opening(scene)) == [result]
        assert await scene.balance("alice") == scene.USD + 500
        assert (await scene.store.lifetime("alice"))["totalInputTokens"] == 3


async def test_M1_an_opening_without_counters_changes_none(scene):
    await scene.user("alice", usd=1)
    assert await opened(scene, opening(scene, counters={})) == [OpeningResult.ADDED]
    assert await scene.balance("alice") == scene.USD + 500
    assert (await scene.store.lifetime("alice"))["totalInputTokens"] == 0


async def test_nothing_to_import_imports_nothing(scene):
    assert await scene.store.import_keys([]) == 0
    assert await scene.store.import_logs([]) == set()
    assert await scene.store.open_accounts([], scene.NOW) == []


async def test_an_opening_that_was_only_tried_leaves_nothing(scene):
    await scene.user("bob", usd=1)
    tried = [opening(scene), opening(scene, "bob")]
    results = await scene.store.open_accounts(tried, scene.NOW, dry_run=True)
    assert results == [OpeningResult.CREATED, OpeningResult.ADDED]
    scene.users.discard("alice")
    assert await scene.store.account("alice") is None
    assert await scene.balance("bob") == scene.USD
    await scene.sound()


async def test_an_unusable_balance_makes_a_parked_account_until_it_is_imported_well(scene):
    why = f"{PARKED_BY_IMPORT}credits is NaN"
    spoilt = opening(scene, rows=(), parked=why)
    for _ in range(2):
        assert await opened(scene, spoilt) == [OpeningResult.PARKED]
        assert (await scene.store.account("alice")).parked == why
    assert await opened(scene, opening(scene)) == [OpeningResult.ADDED]
    assert (await scene.store.account("alice")).parked is None
    assert await scene.balance("alice") == 500


async def test_who_is_parked_for_another_reason_stays_parked_and_gets_nothing(scene, outside):
    await scene.user("alice", usd=1)
    outside.park("alice", "because")
    assert await opened(scene, opening(scene)) == [OpeningResult.PARKED]
    assert (await scene.store.account("alice")).parked == "because"
    assert await scene.balance("alice") == scene.USD


async def test_M4_nobody_is_opened_twice_in_one_call(scene):
    with pytest.raises(InvariantBrokenError, match="no user twice"):
        await scene.store.open_accounts([opening(scene), opening(scene)], scene.NOW)
    assert await scene.store.account("alice") is None
    scene.users.discard("alice")
