"""Every page for every role: who may, what it shows, and that text from outside stays text.

The browser's side of it is in `test_browser`.
"""

import re
from collections.abc import AsyncIterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from aiohttp import ClientSession

from console.shopfront import DAY, EVIL_USER, HOUR, MODEL, PAYLOAD, USD, Shopfront, open_shopfront
from farebox.base.clock import wall_ms
from farebox.base.units import usd_from_pico
from farebox.console.pages import charts, words
from farebox.console.pages.site import HEADERS
from farebox.console.periods import PERIODS
from farebox.console.routes import USER
from farebox.console.server import PAGES

CARDS = ["Total", "Burned", "Ref", "New Credits", "New Burned", "Input", "Output", "Users", "Active"]
ROLES = ("admin", "support", "read-only", "alice")


class Markup(HTMLParser):
    """Notes what only a template may have written, or nothing at all."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"img", "style", "iframe", "object", "embed", "base"}:
            self.foreign.append((tag, "", None))
        if tag == "script" and dict(attrs) != {"type": "module", "src": "/static/farebox.js"}:
            self.foreign.append((tag, "", None))
        for name, value in attrs:
            is_place = name in {"href", "src", "action", "data-api", "data-then"}
            if name.startswith("on") or name == "style" or (is_place and (value or "")[:1] not in "/#"):
                self.foreign.append((tag, name, value))


def check_markup(text: str) -> None:
    """Nothing but our own tags and attributes, and no place outside of this host."""
    found = Markup()
    found.feed(text)
    assert found.foreign == []


@pytest.fixture
async def front(store, tmp_path: Path) -> AsyncIterator[Shopfront]:
    async with open_shopfront(store, tmp_path) as opened:
        yield opened


async def session(front: Shopfront, who: str) -> ClientSession:
    """A browser that has logged in."""
    client = ClientSession(front.url)
    async with client.post("/api/login", json={"key": front.tokens[who]}) as answer:
        assert answer.status == 200, await answer.text()
        client.cookie_jar.update_cookies({name: one.value for name, one in answer.cookies.items()})
        cookie = answer.cookies["farebox_session"].value
    await client.close()
    return ClientSession(front.url, cookies={"farebox_session": cookie})


def paths(front: Shopfront) -> dict[str, str]:
    """Each page's path as somebody would open it."""
    mine = next(one for one in front.exchanges if one.user == "alice")
    names = {"user": "alice", "exchange": mine.exchange}
    return {page.path: page.path.format(**names) for page in PAGES}


async def test_each_page_is_for_its_roles_and_keeps_to_itself(front: Shopfront) -> None:
    places = paths(front)
    async with ClientSession(front.url) as nobody:
        for page in PAGES:
            async with nobody.get(places[page.path], allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, "/login"), page.path
    for role in ROLES:
        async with await session(front, role) as client:
            for page in PAGES:
                async with client.get(places[page.path]) as answer:
                    allowed = (USER if role == "alice" else role) in page.roles
                    assert answer.status == (200 if allowed else 403), (role, page.path, await answer.text())
                    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
                    check_markup(await answer.text())


async def test_what_users_and_upstreams_say_is_text(front: Shopfront) -> None:
    async with await session(front, "admin") as client:
        for path in (
            "/overview?period=all",
            "/live",
            "/users",
            f"/users/{EVIL_USER.replace('<', '%3C').replace('>', '%3E')}",
            "/payments",
            "/prices",
            "/changes?actor=" + PAYLOAD.replace("<", "%3C"),
        ):
            async with client.get(path) as answer:
                text = await answer.text()
                assert answer.status == 200, (path, text)
                check_markup(text)
                shown = unescape(text)
                assert PAYLOAD[:20] in shown or EVIL_USER in shown, path
        async with client.get("/overview?period=%3Cscript%3E") as answer:
            assert answer.status == 400
            check_markup(await answer.text())


async def test_a_user_sees_no_exchange_but_his_own(front: Shopfront) -> None:
    others = next(one for one in front.exchanges if one.user == "bob")
    async with await session(front, "alice") as client:
        for path in (
            f"/exchanges/{others.exchange}",
            f"/exchanges/{others.exchange}?user=bob",
            "/exchanges/none",
        ):
            async with client.get(path) as answer:
                assert answer.status == 404, path
                assert others.model not in await answer.text()


async def test_a_charge_is_explained_to_operator_and_user_alike(front: Shopfront) -> None:
    mine = next(one for one in front.exchanges if one.user == "alice" and one.model == MODEL)
    seen = []
    for who in ("read-only", "alice"):
        async with await session(front, who) as client, client.get(f"/exchanges/{mine.exchange}") as answer:
            text = unescape(await answer.text())
            assert f"<strong>{usd_from_pico(mine.amount_pico)}</strong>" in text
            assert "the same to the last digit" in text
            seen.append(re.findall(r"<tr>.*?</tr>", text))
    operators, users = (set(rows) for rows in seen)
    assert users < operators
    assert all("upstream" in row for row in operators - users), (
        "the provider is the operator's business alone"
    )


def expected_cards(front: Shopfront, period: str, now_ms: int) -> dict[str, str]:
    """What the cards of a period say, added up by hand; days begin at 00:00 UTC on this console."""
    if period == "24h":
        begin_ms = now_ms - now_ms % DAY
    elif period == "all":
        begin_ms = 0
    else:
        begin_ms = now_ms - int(period[:-1]) * (DAY if period.endswith("d") else HOUR)
    within = [one for one in front.exchanges if one.ended_ms >= begin_ms]
    burned = {
        wallet: sum(one.amount_pico for one in within if one.wallet == wallet)
        for wallet in ("ohmygpt", "openhands")
    }
    spent = {
        pool: sum(one.amount_pico for one in front.exchanges if one.wallet == wallet)
        for pool, wallet in (("credits", "ohmygpt"), ("creditsNew", "openhands"))
    }
    return {
        "Total": f"{usd_from_pico(60 * USD - spent['credits'])} USD",
        "Burned": f"{usd_from_pico(burned['ohmygpt'])} USD",
        "Ref": "60 USD",
        "New Credits": f"{usd_from_pico(60 * USD - spent['creditsNew'])} USD",
        "New Burned": f"{usd_from_pico(burned['openhands'])} USD",
        "Input": str(sum(one.counts["input"] for one in within)),
        "Output": str(sum(one.counts["output"] for one in within)),
        "Users": "3",
        "Active": str(len({one.user for one in within})),
    }


async def test_every_card_equals_a_sum_by_hand_for_every_period(front: Shopfront) -> None:
    seen = []
    async with await session(front, "admin") as client:
        for period in PERIODS:
            before_ms = wall_ms()
            async with client.get(f"/overview?period={period}") as answer:
                text = await answer.text()
            possible = [expected_cards(front, period, at_ms) for at_ms in (before_ms, wall_ms())]
            cards = dict(re.findall(r"<dt>([^<]+)</dt><dd title=\"([^\"]*)\"", text))
            assert list(cards) == CARDS
            assert cards in possible, period
            seen.append(cards["New Burned"])
    assert len(set(seen)) > 5, "the cards follow the period"


async def test_a_page_under_a_foreign_name_is_refused(front: Shopfront) -> None:
    async with ClientSession(front.url) as client:
        async with client.get("/login", headers={"Host": "evil.example"}) as answer:
            assert answer.status == 403
            assert answer.headers["X-Frame-Options"] == "DENY"
        async with client.get("/static/farebox.js") as answer:
            tag = answer.headers["ETag"]
            assert answer.content_type == "text/javascript"
        async with client.get("/static/farebox.js", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
        async with client.get("/static/../site.py") as answer:
            assert answer.status == 404


async def test_what_fails_inside_is_a_page_and_a_line_in_the_log(
    front: Shopfront, monkeypatch, caplog
) -> None:
    async with await session(front, "admin") as client:
        monkeypatch.setattr(front.store, "price_versions", lambda: 1 // 0)
        async with client.get("/prices") as answer:
            text = await answer.text()
            assert (answer.status, answer.content_type) == (500, "text/html")
            assert "it is in the log" in text
            assert "ZeroDivisionError" not in text
    assert "GET /prices failed" in caplog.text


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "$0.00"),
        (1_234_500_000_000_000, "$1,234.50"),
        (-315_000_000, "-$0.000315"),
        (10**10, "$0.01"),
        (10**10 - 1, "$0.010000"),
        (1, "$0.000000"),
    ],
)
def test_amounts_for_people(pico: int, text: str) -> None:
    assert words.usd(pico) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(9999, "9,999"), (12_345, "12.3K"), (999_999, "999K"), (4_560_000, "4.5M"), (7 * 10**9, "7.0B")],
)
def test_counts_for_people(count: int, text: str) -> None:
    assert words.short(count) == text


def test_bars_stand_on_each_other_and_on_the_floor() -> None:
    drawn = charts.bars("T", ("a", "b"), [("x", (1, 3)), ("y", (0, 0)), ("z", (2, 0))], str)
    assert [(bar.part, bar.says) for bar in drawn.bars] == [(0, "x: a 1"), (1, "x: b 3"), (0, "z: a 2")]
    low, high, _ = drawn.bars
    assert low.y + low.height == drawn.height
    assert high.y + high.height == low.y
    assert high.y == 0
    assert drawn.rows == (("x", "1", "3"), ("y", "0", "0"), ("z", "2", "0"))
    assert charts.bars("T", ("a",), [], str).bars == ()
