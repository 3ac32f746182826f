"""Promise: what an operator does at the command line is booked once, explained, and refused clearly when it
is wrong.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Farebox = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def farebox(tmp_path: Path) -> Farebox:
    """Run a command on a fresh store, as its own process."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"FAREBOX_STORE": f"sqlite:///{tmp_path}/farebox.sqlite", "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-m", "farebox.run.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return run


def document(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith("farebox: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def grant(farebox: Farebox, amount: str, *more: str) -> subprocess.CompletedProcess[str]:
    return farebox("wallet", "grant", "alice", "--pool", "credits", "--amount", amount, "--json", *more)


def test_M4_a_repeated_grant_credits_once(farebox: Farebox) -> None:
    farebox("user", "add", "alice")
    assert document(grant(farebox, "5.25", "--reference", "order-1", "--expires", "7d"))["result"] == "done"
    assert (
        document(grant(farebox, "5.25", "--reference", "order-1", "--expires", "7d"))["result"] == "duplicate"
    )
    assert "other content" in refusal(grant(farebox, "6", "--reference", "order-1"))
    assert document(farebox("wallet", "show", "alice", "--json"))["pools"]["credits"] == "5.25"


def test_M4_a_repeated_transfer_moves_once_and_keeps_the_expiry(farebox: Farebox) -> None:
    farebox("user", "add", "alice")
    farebox("user", "add", "bob")
    grant(farebox, "2", "--expires", "2090-01-01")
    grant(farebox, "2", "--expires", "2091-01-01")
    move = (
        "wallet",
        "transfer",
        "alice",
        "bob",
        "--pool",
        "credits",
        "--json",
        "--reference",
        "t1",
        "--amount",
    )
    assert document(farebox(*move, "3"))["result"] == "done"
    assert document(farebox(*move, "3"))["result"] == "duplicate"
    assert "was used for 3 USD" in refusal(farebox(*move, "2"))
    assert document(farebox("wallet", "show", "alice", "--json"))["pools"]["credits"] == "1"
    (lot,) = document(farebox("wallet", "show", "bob", "--json"))["lots"]
    assert (lot["left"], lot["expires_at"]) == ("3", "2090-01-01T00:00:00Z")
    assert document(farebox("verify", "--json"))["clean"] is True


def test_M2_no_command_takes_more_than_there_is(farebox: Farebox) -> None:
    farebox("user", "add", "alice")
    grant(farebox, "1")
    down = ("wallet", "adjust", "alice", "--pool", "credits", "--reason", "mistake", "--json")
    assert "less than 1.000000000001 USD" in refusal(farebox(*down, "--amount=-1.000000000001"))
    assert document(farebox(*down, "--amount=-0.999999999999"))["result"] == "done"
    (newest, _) = document(farebox("transactions", "show", "alice", "--json"))
    assert (newest["type"], newest["amount"], newest["cause"]) == ("adjustment", "-0.999999999999", "mistake")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("user", "add", "Bad Name"), "no user name"),
        (("user", "disable", "nobody"), "no user 'nobody'"),
        (("key", "create", "nobody"), "no user 'nobody'"),
        (("wallet", "grant", "alice", "--pool", "gold", "--amount", "1"), "no pool"),
        (("wallet", "grant", "alice", "--pool", "credits", "--amount", "1e-13"), "decimals"),
        (("wallet", "grant", "alice", "--pool", "credits", "--amount", "0"), "must not be zero"),
        (
            ("wallet", "grant", "alice", "--pool", "credits", "--amount", "1", "--expires", "2001-01-01"),
            "future",
        ),
        (("wallet", "grant", "nobody", "--pool", "credits", "--amount", "1"), "no user 'nobody'"),
        (("lease", "release", "--lost", "0123456789abcdef"), "no journal"),
        (("quarantine", "void", "abc"), "nothing of the id"),
        (("explain", "abc"), "no exchange"),
        (("prices", "show"), "no price book yet"),
        (("nonsense",), "No such command"),
        (("wallet", "grant"), "Missing"),
    ],
)
def test_a_refusal_is_one_clear_line(farebox: Farebox, arguments: tuple[str, ...], said: str) -> None:
    farebox("user", "add", "alice")
    assert said in refusal(farebox(*arguments))


def test_M11_a_key_is_shown_once_and_stored_as_its_digest(farebox: Farebox, tmp_path: Path) -> None:
    farebox("user", "add", "alice")
    made = document(farebox("key", "create", "alice", "--json", "--rpm", "7", "--model", "gpt-5.1"))
    listed = farebox("key", "list", "alice", "--json").stdout
    assert made["digest"] in listed
    assert made["key"] not in listed
    assert made["key"] not in farebox("user", "show", "alice").stdout
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert made["key"].encode() not in stored
    turned = document(farebox("key", "rotate", made["digest"], "--json"))
    assert (turned["requests_per_minute"], turned["allowed_models"]) == (7, ["gpt-5.1"])
    states = {
        key["digest"]: key["active"] for key in json.loads(farebox("key", "list", "alice", "--json").stdout)
    }
    assert states == {made["digest"]: False, turned["digest"]: True}


def test_a_store_that_is_not_there_is_not_made_by_reading(tmp_path: Path, farebox: Farebox) -> None:
    assert "there is no store" in refusal(farebox("verify"))
    assert list(tmp_path.iterdir()) == []
