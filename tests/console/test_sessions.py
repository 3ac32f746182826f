"""Sessions of browsers: what opens one, what ends it, and that no other site, name or guesser can use one."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, CookieJar
from yarl import URL

from credits.desk import Desk, running_desk
from farebox.base import limits
from farebox.base.clock import wall_ms
from farebox.base.keys import key_digest
from farebox.console import passwords
from farebox.console.answers import Declined
from farebox.console.lockout import Attempts
from farebox.console.routes import ANYONE
from farebox.console.server import ROUTES
from farebox.credits.admins import revoke_admin

STORES = ("sqlite",)
"""What is over HTTP does not depend on the store."""
PASSWORD = "correct horse battery"
SECOND = 1000


class Browser:
    """Keeps cookies, knows the session's CSRF token, and comes from where it says."""

    def __init__(self, url: str, client: ClientSession) -> None:
        self.url, self.client, self.csrf = url, client, ""

    async def send(self, method: str, path: str, body: object = None, **headers: str):
        sent = {"Idempotency-Key": f"key-{path}-0001", **headers}
        if self.csrf:
            sent.setdefault("X-CSRF-Token", self.csrf)
        async with self.client.request(method, self.url + path, json=body, headers=sent) as answer:
            return answer.status, await answer.json(), answer

    def token(self) -> str:
        """The session, as only this browser knows it."""
        return self.client.cookie_jar.filter_cookies(URL(self.url))["farebox_session"].value

    async def log_in(self, **body: str):
        status, document, answer = await self.send("POST", "/api/login", body)
        self.csrf = document.get("csrf", "")
        return status, document, answer


@pytest.fixture
async def desk(store, tmp_path) -> AsyncIterator[Desk]:
    async with running_desk(store, tmp_path) as desk:
        yield desk


@pytest.fixture
async def browser(desk) -> AsyncIterator[Browser]:
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as client:
        yield Browser(desk.url, client)


async def test_a_token_opens_a_session_and_logging_out_ends_it(desk, browser):
    status, document, answer = await browser.log_in(key=desk.tokens["support"])
    assert (status, document["role"], document["name"]) == (200, "support", "eve-support")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert (await browser.send("GET", "/api/session"))[1] == document
    assert (await browser.send("GET", "/api/admin/payments"))[0] == 200
    kept = browser.token()
    assert (await browser.send("POST", "/api/logout", {}))[0] == 200
    assert (await browser.send("GET", "/api/session"))[0] == 401
    assert (await browser.send("GET", "/api/session", Cookie=f"farebox_session={kept}"))[0] == 401


async def test_behind_tls_the_cookie_is_secure(desk, browser):
    answer = await browser.send(
        "POST", "/api/login", {"key": desk.tokens["admin"]}, **{"X-Forwarded-Proto": "https"}
    )
    assert "Secure" in answer[2].headers["Set-Cookie"]


async def test_an_api_key_and_a_password_open_the_users_own_session(desk, browser):
    status, document, _ = await browser.log_in(key=desk.tokens["user"])
    assert (status, document["role"], document["name"]) == (200, "user", "alice")
    assert (await browser.send("GET", "/api/wallet"))[1]["user"] == "alice"
    assert (await browser.send("GET", "/api/admin/payments"))[0] == 403
    assert (await browser.send("POST", "/api/password", {"password": PASSWORD}))[0] == 200
    assert (await browser.log_in(user="alice", password="wrong" + PASSWORD))[0] == 401
    assert (await browser.log_in(user="bob", password=PASSWORD))[0] == 401
    assert (await browser.log_in(user="alice", password=PASSWORD))[0] == 200
    assert (await browser.send("GET", "/api/wallet"))[1]["user"] == "alice"
    sent = {"Idempotency-Key": "another-key"}
    assert (await browser.send("POST", "/api/password", {"password": PASSWORD + "2"}, **sent))[0] == 200
    assert (await browser.send("GET", "/api/wallet"))[0] == 401


@pytest.mark.parametrize("how", ["admin revoked", "key revoked", "user disabled", "expired"])
async def test_a_session_ends_with_what_it_began_with(desk, browser, how, monkeypatch):
    if how == "expired":
        monkeypatch.setattr(limits, "session_lasts_s", -1)
    who = "admin" if how == "admin revoked" else "user"
    assert (await browser.log_in(key=desk.tokens[who]))[0] == 200
    now_ms = wall_ms()
    if how != "expired":
        assert (await browser.send("GET", "/api/session"))[0] == 200
    if how == "admin revoked":
        await revoke_admin(desk.store, "eve-admin", "test", now_ms)
    elif how == "key revoked":
        await desk.store.set_key_active(key_digest(desk.tokens["user"]), False, "test", now_ms)
    elif how == "user disabled":
        await desk.store.set_user_active("alice", False, "test", now_ms)
    assert (await browser.send("GET", "/api/session"))[0] == 401


GRANT = {"pool": "credits", "amount": "5", "reason": "because"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"X-CSRF-Token": ""}, "csrf"),
        ({"X-CSRF-Token": "0" * 64}, "csrf"),
        ({"Origin": "https://evil.example"}, "origin"),
        ({"Origin": "null"}, "origin"),
        ({"Origin": "http://[x"}, "origin"),
        ({"Sec-Fetch-Site": "cross-site"}, "origin"),
        ({"Sec-Fetch-Site": "same-site"}, "origin"),
        ({"Host": "evil.example"}, "host"),
        ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, "host"),
        ({"Host": "[::1"}, "host"),
    ],
)
async def test_no_other_site_and_no_other_name_can_use_a_session(desk, browser, headers, code):
    assert (await browser.log_in(key=desk.tokens["admin"]))[0] == 200
    before = await desk.store.account("alice")
    kept = browser.token()
    cookie = {"Cookie": f"farebox_session={kept}"}
    path = "/api/admin/users/alice/grants"
    status, document, _ = await browser.send("POST", path, GRANT, **headers, **cookie)
    assert (status, document["error"]["code"]) == (403, code)
    assert await desk.store.account("alice") == before
    same = {"Origin": desk.url, "Sec-Fetch-Site": "same-origin"}
    assert (await browser.send("POST", path, GRANT, **same))[0] == 200


@pytest.mark.parametrize("role", ["admin", "support", "read-only", "user"])
async def test_every_route_with_every_role_and_every_bad_session(desk, browser, role):
    """Nothing is sent that could succeed: bodies are empty, so whoever may is told what is missing."""
    assert (await browser.log_in(key=desk.tokens[role]))[0] == 200
    token, csrf = browser.token(), browser.csrf
    chance = random.Random(role)
    forged = [
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token[1:],
        token + token,
        csrf,
        key_digest(token),
    ]
    browser.client.cookie_jar.clear()
    for route in ROUTES:
        if ANYONE in route.roles or route.path == "/api/logout":
            continue
        path = re.sub(r"{\w+}", "none", route.path)
        body = None if route.method == "GET" else {"not": "a field"}
        bad = {"Cookie": f"farebox_session={chance.choice(forged)}", "X-CSRF-Token": csrf}
        assert (await browser.send(route.method, path, body, **bad))[0] == 401, route
        good = {"Cookie": f"farebox_session={token}"}
        if route.method != "GET":
            status, document, _ = await browser.send(
                route.method, path, body, **good, **{"X-CSRF-Token": "x"}
            )
            assert (status, document["error"]["code"]) == (403, "csrf"), route
        for place, code in (({"Host": "evil.example"}, "host"), ({"Host": ""}, "host")):
            status, document, _ = await browser.send(route.method, path, body, **good, **place)
            assert (status, document["error"]["code"]) == (403, code), route
        status, document, _ = await browser.send(route.method, path, body, **good)
        if role not in route.roles:
            assert (status, document["error"]["code"]) == (403, "forbidden"), route
        else:
            assert status not in {401, 403, 500}, (route, document)


async def test_nobody_is_logged_in_from_another_site(desk, browser):
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        status, _, answer = await browser.send("POST", "/api/login", {"key": desk.tokens["admin"]}, **headers)
        assert status == 403
        assert "Set-Cookie" not in answer.headers


async def test_a_forged_session_is_nobodys(desk, browser):
    for token in ("x", "x" * 5000, "\u00e9", desk.tokens["admin"], key_digest("x")):
        cookie = {"Cookie": f"farebox_session={token}"}
        assert (await browser.send("GET", "/api/session", **cookie))[0] == 401


async def test_who_guesses_is_locked_out_and_audited(desk, browser):
    for _ in range(limits.login_failures_max):
        assert (await browser.log_in(user="alice", password="a guess, and wrong"))[0] == 401
    status, document, answer = await browser.log_in(key=desk.tokens["admin"])
    assert (status, document["error"]["code"]) == (429, "locked_out")
    assert 0 < int(answer.headers["Retry-After"]) <= limits.login_lockout_s
    elsewhere = {"X-Forwarded-For": "192.0.2.1, 198.51.100.7"}
    assert (await browser.send("POST", "/api/login", {"key": desk.tokens["admin"]}, **elsewhere))[0] == 200
    wrong = {"user": "alice", "password": PASSWORD}
    assert (await browser.send("POST", "/api/login", wrong, **elsewhere))[0] == 429
    locked = [one for one in await desk.store.audit_entries(None, 50) if one.action == "login.locked"]
    assert [one.subject for one in locked] == ["user alice"]


async def test_M11_neither_session_nor_password_is_in_the_store(desk, browser, tmp_path):
    await browser.log_in(key=desk.tokens["user"])
    await browser.send("POST", "/api/password", {"password": PASSWORD})
    token = browser.token()
    files = [path.read_bytes() for path in tmp_path.glob("store.db*")]
    assert files
    for secret in (token, browser.csrf, PASSWORD, desk.tokens["user"]):
        assert all(secret.encode() not in content for content in files)


def test_a_lockout_ends_by_itself_and_forgets_who_proves_himself():
    attempts = Attempts()
    for number in range(limits.login_failures_max - 1):
        assert not attempts.failed(["user a", "address b"], number)
    assert attempts.wait_s(["user a"], 10) == 0
    attempts.succeeded("user a")
    assert attempts.failed(["user a", "address b"], 10)
    lasts_ms = int(limits.login_lockout_s * SECOND)
    assert attempts.wait_s(["user a"], 11) == 0
    assert attempts.wait_s(["user a", "address b"], 10) == limits.login_lockout_s
    assert attempts.wait_s(["address b"], 9 + lasts_ms) == 1
    assert attempts.wait_s(["address b"], 10 + lasts_ms) == 0


def test_tries_that_are_being_checked_count_as_failures():
    attempts = Attempts()
    for number in range(limits.login_failures_max):
        assert attempts.wait_s(["user a", f"address {number}"], 0) == 0
        attempts.begin(["user a", f"address {number}"])
    assert attempts.wait_s(["user a", "address x"], 0) == 1
    attempts.end(["user a", "address 0"])
    assert attempts.wait_s(["user a", "address x"], 0) == 0
    attempts.end(["user nobody"])


async def test_a_key_of_ones_own_forgets_no_guess_at_another_users_password(desk, browser):
    guess = {"user": "alice", "password": "wrong horse battery"}
    for _ in range(limits.login_failures_max - 1):
        assert (await browser.send("POST", "/api/login", guess))[0] == 401
    both = {"key": desk.tokens["user"], "user": "alice"}
    assert (await browser.send("POST", "/api/login", both))[0] == 422
    assert (await browser.send("POST", "/api/login", {"key": desk.tokens["user"]}))[0] == 200
    assert (await browser.send("POST", "/api/login", guess))[0] == 401
    assert (await browser.send("POST", "/api/login", guess))[0] == 429


async def test_guesses_at_once_are_no_more_than_one_after_the_other(desk, browser):
    guess = {"user": "alice", "password": "wrong horse battery"}
    answers = await asyncio.gather(*(browser.send("POST", "/api/login", guess) for _ in range(30)))
    statuses = Counter(status for status, *_ in answers)
    assert statuses == {401: limits.login_failures_max, 429: 30 - limits.login_failures_max}


async def test_M10_only_so_many_passwords_wait_to_be_checked(desk, monkeypatch):
    monkeypatch.setattr(limits, "password_checks_waiting_max", 2)
    checks = [passwords.check_password(desk.store, "alice", PASSWORD) for _ in range(4)]
    found = await asyncio.gather(*checks, return_exceptions=True)
    assert [type(one) for one in found] == [type(None), type(None), Declined, Declined]
    assert await passwords.check_password(desk.store, "alice", PASSWORD) is None


def test_M10_of_many_names_the_quietest_is_forgotten(monkeypatch):
    monkeypatch.setattr(limits, "login_names_remembered_max", 2)
    monkeypatch.setattr(limits, "login_failures_max", 1)
    attempts = Attempts()
    for name in ("a", "b", "c"):
        attempts.failed([name], 0)
    assert [attempts.wait_s([name], 0) > 0 for name in ("a", "b", "c")] == [False, True, True]
