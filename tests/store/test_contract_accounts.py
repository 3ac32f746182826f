"""Accounts, keys, price books, changes, audit: what is written is read back, and nothing is taken for an
operator.
"""

import pytest

from farebox.base import limits
from farebox.base.records import POOLS
from farebox.store.base import Change


async def test_a_keys_limits_are_changed_and_told(scene):
    await scene.user("alice")
    await scene.store.create_key(scene.key("alice"), "test", scene.NOW)
    before = (await scene.store.changes_after(0, 100))[-1].number
    assert await scene.store.set_key_limits("d1", 5, ("sonnet",), "test", scene.NOW)
    changed = await scene.store.key("d1")
    assert (changed.requests_per_minute, changed.allowed_models) == (5, ("sonnet",))
    (change,) = await scene.store.changes_after(before, 100)
    assert (change.kind, change.subject) == ("key", "d1")
    assert await scene.store.set_key_limits("d1", None, None, "test", scene.NOW)
    assert await scene.store.key("d1") == scene.key("alice")
    assert not await scene.store.set_key_limits("d9", 5, None, "test", scene.NOW)


async def test_a_new_account_has_empty_pools(scene):
    assert await scene.store.create_user("alice", "admin", "cli", scene.NOW)
    account = await scene.store.account("alice")
    assert account.balances == dict.fromkeys(POOLS, 0)
    assert (account.is_active, account.parked, account.lots, account.rev) == (True, None, (), 0)
    assert not await scene.store.create_user("alice", "user", "cli", scene.NOW)
    assert await scene.store.account("nobody") is None


async def test_disabling_is_told_to_workers_and_can_be_undone(scene):
    await scene.user("alice")
    number = (await scene.store.changes_after(0, 10))[-1].number
    assert await scene.store.set_user_active("alice", False, "cli", scene.NOW)
    assert not (await scene.store.account("alice")).is_active
    assert await scene.store.set_user_active("alice", True, "cli", scene.NOW)
    assert (await scene.store.account("alice")).is_active
    assert not await scene.store.set_user_active("nobody", True, "cli", scene.NOW)
    changes = await scene.store.changes_after(number, 10)
    assert [(change.kind, change.subject) for change in changes] == [("user", "alice")] * 2


async def test_all_accounts_are_read_in_the_order_of_their_names(scene, monkeypatch):
    monkeypatch.setattr(limits, "accounts_page_max", 2)
    for name in ("dora", "alice", "carl", "bert", "emil"):
        await scene.user(name)
    assert [one.user async for one in scene.store.accounts()] == ["alice", "bert", "carl", "dora", "emil"]
    assert [one.user async for one in scene.store.accounts("bert")] == ["carl", "dora", "emil"]


async def test_keys_are_found_by_digest_with_their_owner(scene):
    await scene.user("alice")
    key = scene.key("alice", "d1", allowed_models=("sonnet",), requests_per_minute=5, expires_at_ms=99)
    assert await scene.store.create_key(key, "cli", scene.NOW)
    assert await scene.store.key("d1") == key
    assert not await scene.store.create_key(key, "cli", scene.NOW)
    assert not await scene.store.create_key(scene.key("nobody", "d2"), "cli", scene.NOW)
    assert await scene.store.key("d2") is None


async def test_a_revoked_key_and_a_disabled_owner_are_seen(scene):
    await scene.user("alice")
    await scene.store.create_key(scene.key("alice", "d1"), "cli", scene.NOW)
    number = (await scene.store.changes_after(0, 10))[-1].number
    assert await scene.store.set_key_active("d1", False, "cli", scene.NOW)
    assert not (await scene.store.key("d1")).key_active
    assert await scene.store.set_key_active("d1", True, "cli", scene.NOW)
    assert (await scene.store.key("d1")).key_active
    assert not await scene.store.set_key_active("d9", True, "cli", scene.NOW)
    await scene.store.set_user_active("alice", False, "cli", scene.NOW)
    assert not (await scene.store.key("d1")).user_active
    kinds = [(change.kind, change.subject) for change in await scene.store.changes_after(number, 10)]
    assert kinds == [("key", "d1"), ("key", "d1"), ("user", "alice")]


async def test_a_users_keys_come_newest_first(scene):
    await scene.user("alice")
    for number, digest in enumerate(("d1", "d2", "d3")):
        await scene.store.create_key(scene.key("alice", digest), "cli", scene.NOW + number)
    assert [key.digest for key in await scene.store.keys_of("alice")] == ["d3", "d2", "d1"]
    assert [key.digest for key in await scene.store.keys_of("alice", "d3", 1)] == ["d2"]
    assert [key.digest for key in await scene.store.keys_of("alice", "d2")] == ["d1"]
    assert await scene.store.keys_of("alice", "d1", 5) == []
    assert await scene.store.keys_of("alice", "none", 5) == []
    assert await scene.store.keys_of("nobody") == []


async def test_a_price_book_has_one_version_per_content(scene):
    assert await scene.store.put_price_book({"a": "1"}, "h1", 10) == 1
    assert await scene.store.put_price_book({"a": "2"}, "h2", 20) == 2
    assert await scene.store.put_price_book({"a": "1"}, "h1", 30) == 1
    assert await scene.store.price_book(1) == {
        "a": "1",
        "version": 1,
        "content_hash": "h1",
        "effective_ms": 10,
    }
    assert await scene.store.price_book(3) is None
    assert await scene.store.price_versions() == [(1, "h1", 10), (2, "h2", 20)]


async def test_changes_rise_and_are_read_in_pieces(scene):
    for number in range(5):
        await scene.store.append_change("user", f"user{number}", "j")
    changes = await scene.store.changes_after(0, 3)
    assert changes == [Change(number + 1, "user", f"user{number}", "j") for number in range(3)]
    assert [change.number for change in await scene.store.changes_after(3, 3)] == [4, 5]


async def test_M10_the_change_feed_keeps_a_bounded_tail(scene, monkeypatch):
    monkeypatch.setattr(limits, "changes_kept_max", 3)
    for number in range(10):
        await scene.store.append_change("user", f"user{number}")
    assert [change.number for change in await scene.store.changes_after(0, 100)] == [8, 9, 10]


async def test_what_operators_do_is_in_the_audit_log(scene, outside):
    await scene.user("alice")
    await scene.store.create_key(scene.key("alice", "d1"), "cli", scene.NOW)
    await scene.store.set_key_active("d1", False, "cli", scene.NOW)
    await scene.store.audit("root", "lease.release", "j", {"lost": True}, scene.NOW)
    rows = outside.audit_rows()
    assert [row[1] for row in rows] == ["user.create", "key.create", "key.revoke", "lease.release"]
    assert rows[-1] == ("root", "lease.release", "j", {"lost": True})


@pytest.mark.parametrize(
    "name",
    ['{"$ne": null}', "$where", "a.b", "' OR 1=1 --", "alice'; DROP TABLE users; --", "%", "alice:spent"],
)
async def test_S21_text_from_outside_is_never_part_of_a_query(scene, name):
    await scene.user("alice", usd=1)
    await scene.store.create_key(scene.key("alice", "d1"), "cli", scene.NOW)
    assert await scene.store.account(name) is None
    assert await scene.store.key(name) is None
    assert await scene.store.keys_of(name) == []
    assert await scene.store.transactions(name, 5) == []
    assert await scene.store.transactions("alice", 5, name) == []
    assert await scene.store.request_logs(name, 5) == []
    assert await scene.store.request_log(name) is None
    assert await scene.store.row_ids([(name, name), ("alice", name)]) == set()
    assert not await scene.store.set_user_active(name, False, "cli", scene.NOW)
    assert await scene.store.resolve_parked(name, None, "cli", scene.NOW) is None
    assert [one.user async for one in scene.store.accounts()] == ["alice"]


async def test_ledger_rows_come_newest_first_in_pages(scene):
    await scene.user("alice")
    for amount in range(1, 6):
        await scene.credit("alice", amount)
    first = await scene.store.transactions("alice", 2)
    assert [row.amount_pico for row in first] == [5, 4]
    rest = await scene.store.transactions("alice", 9, first[-1].id)
    assert [row.amount_pico for row in rest] == [3, 2, 1]
    account, rows = await scene.store.account_with_rows("alice")
    assert rows == first + rest
    assert account == await scene.store.account("alice")
    assert await scene.store.account_with_rows("nobody") is None
    by_pool: dict[str, int] = {}
    for row in rows:
        by_pool[row.pool] = by_pool.get(row.pool, 0) + row.amount_pico
    assert await scene.store.account_with_sums("alice") == (account, by_pool, len(rows))
    assert await scene.store.account_with_sums("nobody") is None
