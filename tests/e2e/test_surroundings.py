"""Promise: when what surrounds Farebox fails, it says so in one line, goes on where it can, loses nothing.

Configuration, port, credential and data folder at the start; a locked store, a damaged store file, a full
disk.
"""

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e2e.deployment import Customer, Deployment
from e2e.raw_http import Answer, exchange, request
from e2e.small_disk import SmallDisk
from e2e.storefront import GPT, Storefront, price_pico
from farebox.run.demo.processes import DemoError, free_port, packaged_config, wait_until

CHAT = "/v1/chat/completions"
PRICE_PICO = price_pico(GPT, input=12, output=5)
ENVIRONMENT = {"FAREBOX_DEMO_UPSTREAM_KEY": "sk-upstream"}


# -- what is wrong at the start ------------------------------------------------------------


def document(folder: Path, **changes: Any) -> dict[str, Any]:
    """The demonstration's configuration on free ports."""
    made: dict[str, Any] = json.loads(packaged_config())
    made |= {"port": free_port(), "data_dir": str(folder / "data"), "console": {"port": free_port()}}
    return made | changes


def serve(folder: Path, text: bytes, environment: dict[str, str] = ENVIRONMENT) -> tuple[int, str]:
    """Exit status and standard error of `farebox serve` with this configuration."""
    config = folder / "config.json"
    config.write_bytes(text)
    ended = subprocess.run(
        [sys.executable, "-m", "farebox.run.cli", "serve", "--config", str(config), "--workers", "1"],
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"port": ', "is not JSON"),
        (b"[]", "one JSON object"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"port": 1, "port": 2}', "port"),
        (b"{" + b'"a":{' * 100_000, "nest"),
        (b"{}", "port"),
    ],
    ids=["cut", "list", "encoding", "twice", "deep", "empty"],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: bytes, said: str) -> None:
    status, error = serve(tmp_path, text)
    assert status == 1
    assert said in error
    assert all("config.json" in line for line in error.splitlines())


def test_every_fault_of_a_file_has_its_line(tmp_path: Path) -> None:
    broken = document(tmp_path, prot=1)
    broken["models"][0]["billing_upstream"] = "nowhere"
    broken["models"][1]["input_price_per_mtok"] = "cheap"
    broken["endpoints"][0]["base_url"] = "ftp://example"
    status, error = serve(tmp_path, json.dumps(broken).encode())
    assert status == 1
    for path in (
        "prot",
        "models[0].billing_upstream",
        "models[1].input_price_per_mtok",
        "endpoints[0].base_url",
    ):
        assert sum(f" {path}: " in line for line in error.splitlines()) == 1, path


def test_a_missing_file_and_a_missing_credential(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "farebox.run.cli", "serve", "--config", str(tmp_path / "absent.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "absent.json" in ended.stderr
    status, error = serve(tmp_path, json.dumps(document(tmp_path)).encode(), environment={})
    assert status == 1
    assert "FAREBOX_DEMO_UPSTREAM_KEY is not set" in error


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, error = serve(tmp_path, json.dumps(document(tmp_path, port=port)).encode())
    assert (status, error.count("\n")) == (1, 1)
    assert f"port {port} on 127.0.0.1 cannot be bound: Address already in use;" in error


@pytest.mark.parametrize(
    ("folder", "reason"), [("/sys", "ermi"), ("/proc/none/x", "No such file or directory")]
)
def test_a_socket_folder_that_cannot_be_written(tmp_path: Path, folder: str, reason: str) -> None:
    status, error = serve(tmp_path, json.dumps(document(tmp_path, worker_sockets=folder)).encode())
    assert (status, error.count("\n")) == (1, 1)
    assert f"{folder}/demo-0.sock cannot be bound" in error
    assert reason in error
    assert "create the folder and let this user write to it" in error


@pytest.mark.parametrize(
    ("text", "said"), [(None, "cannot be read: No such file"), ("junk", "holds no certificate in PEM form")]
)
def test_a_certificate_authority_that_is_missing(tmp_path: Path, text: str | None, said: str) -> None:
    authority = tmp_path / "ca.pem"
    if text is not None:
        authority.write_text(text)
    broken = document(tmp_path)
    broken["endpoints"][0] |= {"base_url": "https://127.0.0.1:9", "ca_file": str(authority)}
    status, error = serve(tmp_path, json.dumps(broken).encode())
    assert (status, error.count("\n")) == (1, 1)
    assert f"ca_file {authority} {said}" in error


def test_a_database_that_does_not_answer_at_the_start(tmp_path: Path) -> None:
    url = f"mongodb://127.0.0.1:{free_port()}/farebox"
    status, error = serve(tmp_path, json.dumps(document(tmp_path, store={"url": url})).encode())
    assert status == 1
    said = [line for line in error.splitlines() if "start the database, or correct its address" in line]
    assert len(said) == 1
    assert f"{url}: no server answers" in said[0]


def test_a_data_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, error = serve(
        tmp_path, json.dumps(document(tmp_path, data_dir=str(tmp_path / "file" / "x"))).encode()
    )
    assert (status, error.count("\n")) == (1, 1)
    assert str(tmp_path / "file" / "x") in error


@pytest.mark.parametrize("damage", ["noise", "header", "cut"])
def test_S14_a_damaged_store_stops_the_start_and_names_the_file(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "data" / "farebox.sqlite"
    file.parent.mkdir()
    whole = _small_database(tmp_path / "whole.sqlite")
    damaged = {
        "noise": bytes(range(256)) * 64,
        "header": b"SQLite format 4\0" + whole[16:],
        "cut": whole[: len(whole) // 2],
    }
    file.write_bytes(damaged[damage])
    status, error = serve(tmp_path, json.dumps(document(tmp_path)).encode())
    assert status == 1
    assert f"{file}: damaged, or not an SQLite database" in error
    assert "restore a backup" in error
    assert file.read_bytes() == damaged[damage]


def _small_database(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [("y" * 500,)] * 200)
    connection.commit()
    connection.close()
    return path.read_bytes()


# -- what goes wrong while running ------------------------------------------------------------


def ask(shop: Storefront, key: str, **script: Any) -> Answer:
    return exchange(shop.port, _request(key, **script))


def _request(key: str, **script: Any) -> bytes:
    said = [{"role": "user", "content": f"script: {json.dumps(script)}"}]
    body = json.dumps({"model": GPT, "max_tokens": 50, "messages": said}).encode()
    return request("POST", CHAT, body, authorization=f"Bearer {key}")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Storefront]:
    with Storefront(tmp_path) as storefront:
        yield storefront
        storefront.close_books()


def test_S_a_locked_store_stops_only_those_who_need_it(shop: Storefront) -> None:
    """Another program holds the database for some seconds, as a backup or a shell does."""
    leased, fresh = shop.new_customer(), shop.new_customer()
    for _ in range(4):
        assert ask(shop, leased.key).status == 200
    time.sleep(0.3)
    other = sqlite3.connect(shop.folder / "farebox.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA busy_timeout = 10000")
    other.execute("BEGIN EXCLUSIVE")
    try:
        refused = _in_thread(lambda: ask(shop, fresh.key))
        for _ in range(20):
            assert ask(shop, leased.key).status == 200
            time.sleep(0.05)
        answer = refused()
        assert answer.status == 503
        assert answer.error["code"] == "store_unavailable"
        assert int(answer.headers["retry-after"]) >= 1
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert wait_until(lambda: ask(shop, fresh.key).status == 200, 15.0)
    shop.charged(leased, [PRICE_PICO] * 24)
    shop.charged(fresh, [PRICE_PICO])


def _in_thread(work: Callable[[], Answer]) -> Callable[[], Answer]:
    """Begin `work` in a thread; call the result to wait for its answer."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()

    def wait() -> Answer:
        thread.join()
        return answers[0]

    return wait


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    small = SmallDisk(tmp_path)
    for name, value in small.environment().items():
        monkeypatch.setenv(name, value)
    yield small
    small.remove()


@pytest.mark.parametrize("left_bytes", [12 * 2**20, 0], ids=["below-the-reserve", "nothing-left"])
def test_J_a_full_disk_refuses_new_exchanges_and_settles_running_ones(
    disk: SmallDisk, left_bytes: int
) -> None:
    with Storefront(disk.folder) as shop:
        customer = shop.new_customer()
        assert ask(shop, customer.key).status == 200
        workers = shop.processes("worker_process")
        running = _in_thread(lambda: ask(shop, customer.key, first_delay_ms=2500))
        time.sleep(0.3)
        disk.fill(left_bytes)
        refused = _refused_at_last(shop, customer)
        assert refused.error["code"] == "journal_unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        answer = running()
        assert answer.status == (200 if left_bytes else 0)
        disk.free()
        assert wait_until(lambda: ask(shop, customer.key).status == 200, 10.0)
        assert shop.processes("worker_process") == workers
        shop.close_books()
        served = shop.upstream_count()
        shop.charged(customer, [PRICE_PICO] * served)


def _refused_at_last(shop: Storefront, customer: Customer) -> Answer:
    """The worker looks at its disk after a megabyte of its own writes, or when a write fails."""
    body = _request(customer.key)
    for _ in range(200):
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: exchange(shop.port, body), range(40)))
        refused = [answer for answer in answers if answer.status == 503]
        assert {answer.status for answer in answers} <= {0, 200, 503}
        if refused:
            return refused[0]
    pytest.fail("the full disk was never noticed")


def test_O05_when_the_supervisor_is_killed_its_children_end_and_a_new_one_can_start(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        deployment.farebox.kill()
        deployment.farebox.wait()

        def all_gone() -> bool:
            kinds = ("worker_process", "writer_process", "console_process")
            return not any(deployment.processes(kind) for kind in kinds)

        assert wait_until(all_gone, 20.0)
        deployment.start_farebox()
        assert deployment.verified().differences == []


def test_M1_a_data_directory_of_any_name_is_one_store_for_every_process(short_path: Path) -> None:
    folder = short_path / "100% of A%41 data"
    folder.mkdir()
    with Storefront(folder) as shop:
        assert ask(shop, shop.new_customer().key).status == 200
        assert shop.verified().differences == []
    assert [path.name for path in short_path.iterdir()] == [folder.name]


def test_a_data_directory_too_deep_for_sockets_is_refused_at_start(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20)
    folder.mkdir()
    with pytest.raises(DemoError, match=r"data_dir .* is \d+ bytes too long for the sockets in it"):
        Deployment(folder)
