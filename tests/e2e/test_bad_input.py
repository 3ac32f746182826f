"""Promise: whatever a client sends, it gets a clear error in its format; nothing is lost, the process lives.

Each case is sent as bytes to a running Farebox. None may reach the upstream; afterwards a proper request is
served by the same worker, and at the end the books are closed without a difference.
"""

import json
import socket
from collections.abc import Iterator

import orjson
import pytest

from e2e.deployment import Customer
from e2e.raw_http import Answer, exchange, request
from e2e.storefront import GPT, SONNET, Storefront, price_pico

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
MODELS = {CHAT: GPT, MESSAGES: SONNET, RESPONSES: GPT}
ROUTES = pytest.mark.parametrize("path", list(MODELS))
FILLER = b"x" * 2**20


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storefront]:
    with Storefront(tmp_path_factory.mktemp("bad-input")) as storefront:
        yield storefront
        storefront.close_books()


@pytest.fixture(scope="module")
def customer(shop: Storefront) -> Customer:
    return shop.new_customer()


@pytest.fixture(autouse=True)
def lives_on(shop: Storefront, customer: Customer) -> Iterator[None]:
    """Nothing of the case reached the upstream; the same worker serves the next, framed oddly but rightly."""
    workers, seen = shop.processes("worker_process"), shop.upstream_count()
    yield
    assert shop.upstream_count() == seen
    assert shop.processes("worker_process") == workers
    body = good(CHAT)
    parts = [b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:30], body[30:])]
    framing = {"content_length": "", "transfer_encoding": "chunked"}
    assert post(shop, customer, CHAT, b"", *parts, b"0\r\n\r\n", **framing).status == 200


def good(path: str, **members: object) -> bytes:
    said = {"role": "user", "content": "hello"}
    asked: dict[str, object] = (
        {"input": "hello"} if path == RESPONSES else {"messages": [said], "max_tokens": 20}
    )
    return json.dumps({"model": MODELS[path], **asked, **members}).encode()


def post(shop: Storefront, customer: Customer, path: str, *parts: bytes, **headers: str) -> Answer:
    """Send the parts after a head that declares the first one's length, unless `headers` say otherwise."""
    headers = {"authorization": f"Bearer {customer.key}", **headers}
    return exchange(shop.port, request("POST", path, parts[0] if parts else b"", **headers), *parts[1:])


def refused(answer: Answer, status: int, path: str) -> str:
    """Check the status and the route's error format; the message."""
    assert answer.status == status, answer
    document = orjson.loads(answer.body)
    if path == MESSAGES:
        assert document["type"] == "error"
        assert set(document["error"]) >= {"type", "message"}
    else:
        assert set(document) == {"error"}
    assert document["error"]["type"]
    message: str = document["error"]["message"]
    assert message
    return message


# -- bodies ------------------------------------------------------------


@ROUTES
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b'{"model": "gpt-5.1"} trailing',
        b'{"model": "gpt-5.1",}',
        b"{'model': 'gpt-5.1'}",
        b'{"model": NaN}',
        b"\xef\xbb\xbf{}",
        b'{"model": "gpt-5.1", "x": "\xff\xfe"}',
        b'{"model": "gpt-5.1", "x": "\xed\xa0\x80"}',
        b'{"model": "gpt-5.1", "x": "a\nb"}',
        b'{"model": "gpt-5.1", "x": 01}',
        b"\x00" * 64,
        b"model=gpt-5.1&x=y",
    ],
)
def test_malformed_json(shop: Storefront, customer: Customer, path: str, body: bytes) -> None:
    refused(post(shop, customer, path, body), 400, path)


@ROUTES
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"[{}, "], ids=["arrays", "objects", "mixed"])
def test_nesting_of_100000(shop: Storefront, customer: Customer, path: str, opening: bytes) -> None:
    deep = b'{"model": "%s", "x": ' % MODELS[path].encode() + opening * 100_000
    refused(post(shop, customer, path, deep), 400, path)


@ROUTES
@pytest.mark.parametrize(
    "members",
    [
        {"model": None},
        {"model": 5},
        {"model": ["gpt-5.1"]},
        {"model": ""},
        {"stream": "yes"},
        {"stream": 1},
        {"max_tokens": "many", "max_output_tokens": "many"},
        {"max_tokens": -1, "max_output_tokens": -1},
        {"max_tokens": 1.5, "max_output_tokens": 1.5},
        {"max_tokens": 10**30, "max_output_tokens": 10**30},
        {"max_tokens": True, "max_output_tokens": True},
    ],
    ids=lambda members: str(next(iter(members.items()))),
)
def test_wrong_types(shop: Storefront, customer: Customer, path: str, members: dict[str, object]) -> None:
    answer = post(shop, customer, path, good(path, **members))
    refused(answer, 404 if members.get("model") == "" and answer.status == 404 else 400, path)


@ROUTES
def test_unknown_model(shop: Storefront, customer: Customer, path: str) -> None:
    message = refused(post(shop, customer, path, good(path, model="gpt-unknown\r\nX: y")), 404, path)
    assert "gpt-unknown" in message
    message = refused(post(shop, customer, path, good(path, model="m" * 5000)), 400, path)
    assert len(message) < 500


@ROUTES
@pytest.mark.parametrize("member", ["model", "max_tokens", "stream", "service_tier"])
def test_B_duplicated_members_that_matter_are_refused(
    shop: Storefront, customer: Customer, path: str, member: str
) -> None:
    name = "max_output_tokens" if member == "max_tokens" and path == RESPONSES else member
    value = {
        "model": json.dumps(MODELS[path]),
        "max_tokens": "5",
        "stream": "false",
        "service_tier": '"auto"',
    }
    twice = b'{"%s": %s, "%s": %s, ' % (
        name.encode(),
        value[member].encode(),
        name.encode(),
        value[member].encode(),
    )
    rest = json.loads(good(path))
    rest.pop(name, None)
    refused(post(shop, customer, path, twice + json.dumps(rest).encode()[1:]), 400, path)


@ROUTES
def test_100_MB_declared_is_refused_before_it_is_read(
    shop: Storefront, customer: Customer, path: str
) -> None:
    answer = post(shop, customer, path, b"", content_length=str(100 * 2**20))
    refused(answer, 413, path)
    answer = post(shop, customer, path, b"", *[FILLER] * 100, content_length=str(100 * 2**20))
    refused(answer, 413, path)


@ROUTES
def test_100_MB_in_chunks_is_cut_off(shop: Storefront, customer: Customer, path: str) -> None:
    chunk = b"%x\r\n%b\r\n" % (len(FILLER), FILLER)
    answer = post(shop, customer, path, b"", *[chunk] * 100, content_length="", transfer_encoding="chunked")
    refused(answer, 413, path)


# -- chunks and heads ------------------------------------------------------------


@pytest.mark.parametrize(
    "framed",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}XX0\r\n\r\n",
        b"3\r\n{}\r\n0\r\n\r\n",
        b"2\n{}\n0\n\n",
        b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    ],
)
def test_H_chunked_oddities(shop: Storefront, customer: Customer, framed: bytes) -> None:
    answer = post(shop, customer, CHAT, b"", framed, content_length="", transfer_encoding="chunked")
    refused(answer, 400, CHAT)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Content-Length: 2\r\nContent-Length: 3\r\n", 400),
        (b"Content-Length: +2\r\n", 400),
        (b"Transfer-Encoding: gzip, chunked\r\n", 400),
        (b"Transfer-Encoding : chunked\r\n", 400),
        (b"X: " + b"y" * 100_000 + b"\r\n", 431),
        (b"X: y\r\n" * 5_000, 400),
        (b"X: a\x00b\r\n", 400),
        (b"X-Api-Key: a\x01b\r\n", 400),
        (b" folded: x\r\n", 400),
    ],
    ids=["both", "two-lengths", "plus", "codings", "space", "long", "many", "nul", "control", "folded"],
)
def test_H_heads_that_are_ambiguous_or_too_large(
    shop: Storefront, customer: Customer, lines: bytes, status: int
) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n" % (
        CHAT.encode(),
        customer.key.encode(),
    )
    answer = exchange(shop.port, head + lines + b"Content-Type: application/json\r\n\r\n{}")
    assert answer.status == status
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "start",
    [
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET http://other.example/v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["no-version", "tls", "http2", "version", "absolute", "long-path"],
)
def test_H_not_http(shop: Storefront, start: bytes) -> None:
    answer = exchange(shop.port, start, b"\r\n\r\n")
    assert 400 <= answer.status < 500
    assert answer.error["message"]


def test_H_websocket_upgrade(shop: Storefront, customer: Customer) -> None:
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}
    answer = exchange(
        shop.port,
        request(
            "GET",
            "/v1/responses",
            authorization=f"Bearer {customer.key}",
            sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
            **upgrade,
        ),
    )
    assert "WebSocket" in refused(answer, 400, RESPONSES)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/images/generations", 404),
        ("POST", "/v1/audio/transcriptions", 404),
        ("POST", "/v1/messages/batches", 404),
        ("GET", "/v1/responses/resp_1", 404),
        ("DELETE", "/v1/responses/resp_1", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "//v1/chat/completions", 404),
        ("POST", "/v1/../v1/chat/completions", 404),
        ("POST", "/v1/chat%2fcompletions", 404),
        ("POST", "/V1/chat/completions", 404),
        ("GET", "/admin", 404),
        ("GET", "/metrics", 404),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("TRACE", "/v1/models", 405),
    ],
)
def test_B20_unknown_routes_and_methods(
    shop: Storefront, customer: Customer, method: str, path: str, status: int
) -> None:
    answer = exchange(shop.port, request(method, path, b"{}", authorization=f"Bearer {customer.key}"))
    refused(answer, status, MESSAGES if path.startswith(MESSAGES) else CHAT)


# -- keys ------------------------------------------------------------


@ROUTES
def test_A_keys_in_the_query_are_refused_and_not_repeated(
    shop: Storefront, customer: Customer, path: str
) -> None:
    for name in ("key", "api_key", "access_token"):
        answer = post(shop, customer, f"{path}?{name}={customer.key}", good(path))
        refused(answer, 400, path)
        assert customer.key not in answer.body.decode()
    assert customer.key not in (shop.folder / "farebox.log").read_text()


@ROUTES
def test_A_duplicated_keys(shop: Storefront, customer: Customer, path: str) -> None:
    other = shop.new_customer()
    refused(post(shop, customer, path, b"{}", x_api_key=other.key), 400, path)
    head = f"authorization: Bearer {other.key}\r\nauthorization: Bearer {customer.key}"
    refused(post(shop, customer, path, b"{}", authorization="", cookie=f"a=b\r\n{head}"), 400, path)


@ROUTES
@pytest.mark.parametrize("key", ["x" * 5000, "\xe4\xf6\xfc", "a\tb"])
def test_A_keys_that_cannot_be_keys(shop: Storefront, path: str, key: str) -> None:
    answer = post(shop, Customer("", key), path, good(path))
    assert refused(answer, answer.status, path)
    assert answer.status in {400, 401}


# -- fields that change the price ------------------------------------------------------------


def test_A_background_is_refused(shop: Storefront, customer: Customer) -> None:
    assert "background" in refused(
        post(shop, customer, RESPONSES, good(RESPONSES, background=True)), 400, RESPONSES
    )


@ROUTES
@pytest.mark.parametrize("tier", ["priority", "flex", "PRIORITY", 5, ["priority"]])
def test_unpriced_service_tiers(shop: Storefront, customer: Customer, path: str, tier: object) -> None:
    refused(post(shop, customer, path, good(path, service_tier=tier)), 400, path)


@pytest.mark.parametrize(
    ("path", "tool"),
    [
        (RESPONSES, {"type": "web_search"}),
        (RESPONSES, {"type": "code_interpreter", "container": {"type": "auto"}}),
        (RESPONSES, {"type": "brand_new_tool"}),
        (MESSAGES, {"type": "web_search_20250305", "name": "web_search"}),
        (MESSAGES, {"type": "brand_new_tool_2030", "name": "x"}),
        (CHAT, {"type": "web_search"}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["type"],
)
def test_unpriced_hosted_tools(
    shop: Storefront, customer: Customer, path: str, tool: dict[str, object]
) -> None:
    assert "tool" in refused(post(shop, customer, path, good(path, tools=[tool])), 400, path)


# -- clients that misbehave ------------------------------------------------------------


def test_C_a_client_that_leaves_in_mid_body_costs_nothing(shop: Storefront) -> None:
    other = shop.new_customer()
    head = request("POST", CHAT, good(CHAT), authorization=f"Bearer {other.key}", content_length="5000")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", shop.port)) as connection:
            connection.sendall(head)
    assert shop.logs(other.user) == []


def test_the_good_requests_between_were_charged(shop: Storefront, customer: Customer) -> None:
    assert post(shop, customer, CHAT, b"{").status == 400
    rows = shop.spent_rows(customer.user)
    assert {-row.amount_pico for row in rows} == {price_pico(GPT, input=12, output=5)}
