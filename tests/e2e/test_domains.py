"""Promise: the two domains, deployed as shipped behind the real nginx, take from the right wallet each.

What nginx adds is checked with it: streams are not held back, limits are Farebox's own, keys stay with their
worker and out of the log, a POST is never sent twice, and what is malformed stops at one of the two.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e import long_streams
from e2e.deployment import Customer
from e2e.domains import (
    CHAT,
    CHAT2,
    MODEL,
    USD,
    Domains,
    make_certificate,
    request_head,
    rich,
    smoke,
    write_nginx_config,
)
from farebox.base.counters import read_counters
from farebox.run.demo.processes import wait_until
from needs import needs_program

MIB = 2**20

pytestmark = [pytest.mark.needs_nginx]


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domains]:
    nginx = needs_program("nginx")
    with Domains(tmp_path_factory.mktemp("domains"), nginx) as domains:
        yield domains


def chat(script: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    content = f"script: {json.dumps(script)}" if script else "Hello"
    return {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": content}], **members}


def pools_paid(domains: Domains, user: str) -> dict[str, int]:
    paid: dict[str, int] = {}
    for row in domains.spent_rows(user):
        paid[row.pool] = paid.get(row.pool, 0) - row.amount_pico
    return paid


def test_smoke_on_each_domain_takes_from_its_own_wallet_and_names_the_same_upstream(domains: Domains) -> None:
    customer = rich(domains, "smoke")
    first = smoke(domains, customer, CHAT, "--wallet", "openhands")
    second = smoke(domains, customer, CHAT2, "--wallet", "ohmygpt", "--format", "chat")
    assert (first["exit"], second["exit"]) == (0, 0), (first, second)
    assert (first["wallet"], first["pools"]) == ("openhands", "creditsNew")
    assert (second["wallet"], second["pools"]) == ("ohmygpt", "credits")
    assert first["upstream"] == second["upstream"] == "openhands"
    assert {log["creditType"] for log in domains.logs("smoke")} == {"openhands", "ohmygpt"}
    assert smoke(domains, customer, CHAT, "--wallet", "ohmygpt")["problems"] == [
        "wallet openhands paid instead of ohmygpt"
    ]
    assert "answered 401" in smoke(domains, Customer("none", "sk-wrong"), CHAT)["error"]


def test_chat2_goes_on_with_referral_credit_when_credits_are_spent(domains: Domains) -> None:
    customer = rich(domains, "both-pools")
    dear = chat({"prompt": 100, "completion": 150})
    assert domains.ask(CHAT2, "POST", "/v1/chat/completions", dear, customer.key)[0] == 200
    assert wait_until(lambda: len(domains.spent_rows("both-pools")) == 2, 20.0)
    paid = pools_paid(domains, "both-pools")
    assert paid["credits"] == USD // 1000
    assert paid["refCredits"] > 0
    assert "creditsNew" not in paid


def test_messages_and_chat_work_on_both_domains(domains: Domains) -> None:
    customer = rich(domains, "formats")
    body = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
    for domain in (CHAT, CHAT2):
        assert domains.ask(domain, "POST", "/v1/messages", body, customer.key)[0] == 200
        assert domains.ask(domain, "POST", "/v1/chat/completions", chat(), customer.key)[0] == 200
        assert domains.ask(domain, "GET", "/v1/models", None, customer.key)[0] == 200


def test_a_stream_is_not_held_back_by_nginx(domains: Domains) -> None:
    """The first events are read while the upstream still has most of its answer to give."""
    customer = rich(domains, "stream")
    script = {"prompt": 10, "completion": 60, "chunks": 60, "delay_ms": 50}
    body = json.dumps(chat(script, stream=True)).encode()
    with domains.open(CHAT) as connection:
        connection.sendall(request_head(CHAT, "POST", "/v1/chat/completions", len(body), customer.key) + body)
        seen = b""
        while seen.count(b"data: ") < 3:
            data = connection.recv(4096)
            assert data
            seen += data
        assert domains.upstream_log()["open"] == 1
        assert b"[DONE]" not in seen
        while b"[DONE]" not in seen:
            data = connection.recv(65536)
            assert data
            seen += data
    assert seen.count(b"data: ") >= 60


def test_a_key_stays_with_its_worker(domains: Domains) -> None:
    def counts() -> list[int]:
        files = sorted((domains.folder / "run").glob("worker-?.counters"))
        return [read_counters(path)["exchanges_total"] for path in files]

    def all_counted() -> bool:
        return sum(counts()) == domains.upstream_count()

    homes = set()
    for number in range(8):
        customer = domains.customer(f"keyed{number}", USD)
        assert wait_until(all_counted, 10.0)
        before = counts()
        for _ in range(5):
            assert domains.ask(CHAT, "POST", "/v1/chat/completions", chat(), customer.key)[0] == 200
        assert wait_until(all_counted, 10.0)
        added = [now - then for then, now in zip(before, counts(), strict=True)]
        assert sorted(added) == [0, 5]
        homes.add(added.index(5))
    assert homes == {0, 1}


@pytest.mark.parametrize(
    ("path", "shape"), [("/v1/chat/completions", "openai"), ("/v1/messages", "anthropic")]
)
def test_the_body_limit_is_the_same_in_front_and_behind(domains: Domains, path: str, shape: str) -> None:
    """50 MiB pass nginx and are judged by Farebox; one byte more is refused, in the caller's format."""
    customer = rich(domains, f"large-{shape}")
    start = b'{"model":"gpt-5.1","max_tokens":10,"messages":[{"role":"user","content":"'
    largest = start + b"a" * (50 * MIB - len(start) - 4) + b'"}]}'
    status, _, body = domains.ask(CHAT, "POST", path, largest, customer.key)
    assert status != 413, body
    with domains.open(CHAT) as connection:
        connection.sendall(request_head(CHAT, "POST", path, 50 * MIB + 1, customer.key))
        answer = connection.recv(65536)
        while b"}" not in answer.partition(b"\r\n\r\n")[2]:
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert error["error"]["message"] == "The request body is larger than 50 MiB."
    assert ("type" in error) == (shape == "anthropic")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: +5\r\n",
    ],
)
def test_smuggled_requests_stop_at_nginx_or_at_farebox(domains: Domains, head: bytes) -> None:
    seen = domains.upstream_count()
    hidden = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    with domains.open(CHAT) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: chat.example.com\r\nAuthorization: Bearer sk-x\r\n"
            b"Content-Type: application/json\r\n" + head + b"\r\n0\r\n\r\n" + hidden
        )
        answer = connection.recv(65536)
    assert answer[9:12] in {b"400", b"401", b"411", b"501"}, answer
    assert domains.upstream_count() == seen


def test_no_key_reaches_the_access_log_and_names_are_verified(domains: Domains) -> None:
    customer = rich(domains, "logged")
    status, headers, _ = domains.ask(CHAT, "POST", "/v1/chat/completions", chat(), customer.key)
    assert status == 200
    assert headers["strict-transport-security"]
    assert headers["x-content-type-options"] == "nosniff"
    domains.ask(CHAT, "GET", f"/v1/models?key={customer.key}")
    domains.ask(CHAT, "GET", "/v1/models", None, "", x_api_key=customer.key)
    log = domains.folder / "access.log"
    assert wait_until(lambda: log.read_text().count(headers["x-request-id"]) == 1, 10.0)
    for text in (log.read_text(), (domains.folder / "error.log").read_text()):
        assert "sk-trollllm" not in text
    assert all(json.loads(line)["path"].startswith("/") for line in log.read_text().splitlines())
    with pytest.raises(OSError, match=r"(?i)unrecognized|handshake|alert"):
        domains.open("chat.other.example").close()


def test_plain_http_is_sent_to_https_and_never_takes_a_post(domains: Domains) -> None:
    for method, status in (("GET", b"301"), ("POST", b"403")):
        with socket.create_connection(("127.0.0.1", domains.http_port), timeout=20) as connection:
            connection.sendall(request_head(CHAT, method, "/v1/models", 0, "sk-trollllm-x"))
            assert connection.recv(65536)[9:12] == status


def test_a_post_is_never_sent_twice(domains: Domains) -> None:
    """The worker that has the request is killed: nginx answers 502 in the caller's format, once."""
    customer = rich(domains, "killed")
    seen = domains.upstream_count()
    body = json.dumps(chat({"prompt": 10, "completion": 10, "first_delay_ms": 20_000})).encode()
    with domains.open(CHAT) as connection:
        connection.sendall(request_head(CHAT, "POST", "/v1/chat/completions", len(body), customer.key) + body)
        assert wait_until(lambda: domains.upstream_count() == seen + 1, 20.0)
        for process in domains.processes("worker_process"):
            os.kill(process, signal.SIGKILL)
        answer = connection.recv(65536)
        while b"}" not in answer.partition(b"\r\n\r\n")[2]:
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 502")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "unavailable"
    assert wait_until(
        lambda: domains.ask(CHAT, "POST", "/v1/chat/completions", chat(), customer.key)[0] == 200, 30.0
    )
    assert wait_until(lambda: len(domains.spent_rows("killed")) == 2, 20.0)
    assert domains.upstream_count() == seen + 2
    assert domains.verified().differences == []


def nginx_check(folder: Path) -> tuple[int, str]:
    """Status and words of nginx's own check of the shipped file, with certificates in a folder."""
    write_nginx_config(folder / "nginx.conf", folder, 8443, 8080)
    command = [needs_program("nginx"), "-t", "-c", str(folder / "nginx.conf")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    return checked.returncode, checked.stderr


def test_the_shipped_file_passes_nginx_own_check_without_a_warning(tmp_path: Path) -> None:
    for name in ("chat", "chat2"):
        make_certificate(tmp_path, name)
    status, said = nginx_check(tmp_path)
    assert status == 0, said
    assert "warn" not in said


@pytest.mark.parametrize("missing", ["chat.crt", "chat2.key"])
def test_a_missing_certificate_is_named_by_nginx_own_check(tmp_path: Path, missing: str) -> None:
    for name in ("chat", "chat2"):
        make_certificate(tmp_path, name)
    (tmp_path / missing).unlink()
    status, said = nginx_check(tmp_path)
    assert status == 1
    faults = [line for line in said.splitlines() if "[emerg]" in line]
    assert len(faults) == 1
    assert f'"{tmp_path / missing}"' in faults[0]
    assert "No such file or directory" in faults[0]


def test_streams_outlive_the_workers_behind_nginx(domains: Domains) -> None:
    """The short form of `make long-streams`: the workers are replaced at least once amidst the streams.

    The last test here: until the replaced workers have gone, a key's requests may go to two of them.
    """
    customer = rich(domains, "outlives")
    domains.top_up("outlives", USD, "credits", "outlives")
    report = long_streams.run(domains, customer, words=60, interval_s=0.1, replace_every_s=0.5)
    assert report.wrong == []
    assert report.figures["replacements of all workers"]
