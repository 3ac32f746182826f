"""Lists and sums for people: in order, page by page, and the same whichever store answers."""

from farebox.base import limits
from farebox.store.rollups import Part
from farebox.store.statistics import LogQuery


async def test_an_empty_store_owns_nothing_and_lists_nobody(scene):
    wealth = await scene.store.wealth()
    assert (wealth.users, any(wealth.pools.values())) == (0, False)
    assert await scene.store.users("", 9) == []
    assert (await scene.store.search_logs(LogQuery(), 9)).rows == []
    assert await scene.store.audit_entries(None, 9) == []
    assert await scene.store.series_totals() == {}


async def test_users_are_listed_by_name_with_their_money_and_tokens(scene, outside):
    await scene.journal()
    for name in ("carol", "alice", "bob"):
        await scene.user(name, usd=1)
    (part,) = await scene.lease("alice", 5)
    await scene.book(scene.settlement("alice", 5, (part,)))
    await scene.store.set_user_active("bob", False, "test", scene.NOW)
    outside.park("carol", "because")
    first = await scene.store.users("", 2)
    assert [row.user for row in first] == ["alice", "bob"]
    assert [row.user for row in await scene.store.users("bob", 2)] == ["carol"]
    (alice, bob), (carol,) = first, await scene.store.users("bob", 1)
    assert (alice.amounts["credits"], alice.amounts["total_spent"]) == (scene.USD - 5, 5)
    assert alice.counts["totalInputTokens"] == 13_200
    assert (alice.is_active, bob.is_active) == (True, False)
    assert (bob.parked, carol.parked) == (None, "because")
    assert (await scene.store.wealth()).pools["credits"] == 3 * scene.USD - 5


async def test_the_audit_log_is_read_newest_first_by_who_and_about_what(scene):
    for number, (actor, subject) in enumerate([("op", "alice"), ("op", "bob"), ("other", "alice")]):
        await scene.store.audit(actor, "wallet.adjust", subject, {"number": number}, scene.NOW + number)
    entries = await scene.store.audit_entries(None, 9)
    assert [entry.details["number"] for entry in entries] == [2, 1, 0]
    assert [entry.created_ms for entry in entries] == [scene.NOW + 2, scene.NOW + 1, scene.NOW]
    older = await scene.store.audit_entries(entries[0].number, 1)
    assert [entry.details["number"] for entry in older] == [1]
    assert [one.subject for one in await scene.store.audit_entries(None, 9, actor="op")] == ["bob", "alice"]
    assert [one.actor for one in await scene.store.audit_entries(None, 9, subject="alice")] == ["other", "op"]


async def test_request_logs_are_searched_by_what_they_say_and_read_page_by_page(scene):
    plain = scene.settlement("alice", 5)
    rows = [
        plain,
        scene.settlement("alice", 5, model="opus", ended_ms=scene.NOW + 1),
        scene.settlement("bob", 5, wallet="openhands", ended_ms=scene.NOW + 2),
        scene.settlement("bob", 0, status=502, outcome="failed", ended_ms=scene.NOW + 3),
    ]
    assert await scene.store.log(rows, {}) == []
    expected = {
        LogQuery(): [3, 2, 1, 0],
        LogQuery(user="alice"): [1, 0],
        LogQuery(model="opus"): [1],
        LogQuery(wallet="openhands"): [2],
        LogQuery(wallet="ohmygpt"): [3, 1, 0],
        LogQuery(outcome="failed"): [3],
        LogQuery(failed=True): [3],
        LogQuery(failed=False, user="bob"): [2],
        LogQuery(from_ms=scene.NOW + 1, to_ms=scene.NOW + 3): [2, 1],
    }
    for query, places in expected.items():
        page = await scene.store.search_logs(query, 9)
        assert [row["_id"] for row in page.rows] == [rows[place].exchange for place in places], query
        assert page.next is None
    first = await scene.store.search_logs(LogQuery(), 3)
    rest = await scene.store.search_logs(LogQuery(before=first.next), 3)
    found = [row["_id"] for row in (*first.rows, *rest.rows)]
    assert found == [row.exchange for row in reversed(rows)]


async def test_M10_a_page_looks_at_so_many_rows_and_says_where_to_go_on(scene, monkeypatch):
    monkeypatch.setattr(limits, "log_rows_searched_max", 2)
    rows = [scene.settlement("alice", 5, ended_ms=scene.NOW + number) for number in range(5)]
    rows[0] = scene.settlement("alice", 5, model="opus")
    assert await scene.store.log(rows, {}) == []
    pages, query = [], LogQuery(model="opus")
    while not pages or pages[-1].next is not None:
        pages.append(await scene.store.search_logs(query, 9))
        query = LogQuery(model="opus", before=pages[-1].next)
    assert [[row["_id"] for row in page.rows] for page in pages] == [[], [], [rows[0].exchange]]


async def test_sums_by_step_leave_out_what_lies_between_the_parts(scene):
    hour_ms = 3_600_000
    begin_ms = scene.NOW - scene.NOW % hour_ms
    await scene.journal()
    records = [scene.settlement("alice", 5, ended_ms=begin_ms + hour * hour_ms) for hour in range(3)]
    await scene.store.roll_up(scene.J, 1, records, 0, 9)
    parts = [
        Part("users/quarter", begin_ms, begin_ms + hour_ms),
        Part("users/quarter", begin_ms + 2 * hour_ms, begin_ms + 3 * hour_ms),
    ]
    found = await scene.store.tallies_by_step(parts, hour_ms)
    assert {tally.start_ms: tally.sums.requests for tally in found} == {
        begin_ms: 1,
        begin_ms + 2 * hour_ms: 1,
    }


async def test_a_batch_without_exchanges_raises_no_sum(scene):
    await scene.journal()
    await scene.store.roll_up(scene.J, 1, [], 0, 9)
    assert await scene.store.series_totals() == {}
    assert [state.rolled for state in await scene.store.journal_states()] == [9]
