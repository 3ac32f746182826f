"""Promise: every worker gets the sockets of its slot and service, and a socket that cannot be had is told."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from farebox.base.errors import UsageError
from farebox.config.load import load
from farebox.config.settings import Settings
from farebox.run.demo.processes import free_port, packaged_config
from farebox.run.listeners import listen


def settings(folder: Path, *changes: dict[str, Any]) -> Settings:
    """One service for each change, with a port and name of its own."""
    files = []
    for number, change in enumerate(changes):
        document = json.loads(packaged_config())
        for endpoint in document["endpoints"]:
            endpoint["base_url"] = "http://127.0.0.1:1"
        document |= {"port": free_port(), "name": f"s{number}", "data_dir": str(folder)} | change
        files.append(folder / f"{number}.json")
        files[-1].write_text(json.dumps(document))
    return load(files)


def test_only_services_that_ask_for_it_have_sockets_of_each_worker(tmp_path: Path) -> None:
    found = settings(tmp_path, {}, {"worker_sockets": str(tmp_path)}, {})
    listeners = listen(found, 2)
    try:
        for slot in range(2):
            first, second, third = listeners.of_slot(slot)
            assert [len(first), len(second), len(third)] == [1, 2, 1]
            assert second[1].getsockname() == str(tmp_path / f"s1-{slot}.sock")
            assert all(each.get_inheritable() for each in [*first, *second, *third])
    finally:
        listeners.close()
    assert list(tmp_path.glob("*.sock")) == []


def test_a_socket_left_by_a_dead_process_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    found = settings(tmp_path, {"worker_sockets": str(tmp_path)})
    first = listen(found, 1)
    with pytest.raises(UsageError, match=r"port .* cannot be bound: Address already in use"):
        listen(found, 1)
    other = settings(tmp_path, {"worker_sockets": str(tmp_path)})
    with pytest.raises(UsageError, match="in use by another process"):
        listen(other, 1)
    for listener in first.all():
        listener.close()
    assert (tmp_path / "s0-0.sock").exists()
    again = listen(other, 1)
    again.close()


def test_a_folder_that_is_missing_or_may_not_be_written_is_named_and_nothing_stays_bound(
    tmp_path: Path,
) -> None:
    found = settings(tmp_path, {"worker_sockets": str(tmp_path / "none")})
    with pytest.raises(UsageError, match="create the folder"):
        listen(found, 1)
    socket.create_server(("127.0.0.1", found.services[0].port)).close()


def test_a_socket_handed_over_that_nobody_asked_for_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = settings(tmp_path, {})
    with socket.create_server(("127.0.0.1", 0)) as stray:
        monkeypatch.setattr("farebox.run.notify._FIRST_DESCRIPTOR", stray.fileno())
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        with pytest.raises(UsageError, match="which no configuration names"):
            listen(found, 1)
        stray.detach()
