"""Promise: what an operator does at the command line is booked once, explained, and refused clearly when it
is wrong.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

GRANT = ("wallet", "grant", "alice", "--pool", "credits", "--amount")


def test_M4_a_repeated_grant_credits_once(farebox: Any) -> None:
    farebox("user", "add", "alice")
    assert farebox.document(*GRANT, "5.25", "--reference", "order-1", "--expires", "7d")["result"] == "done"
    assert (
        farebox.document(*GRANT, "5.25", "--reference", "order-1", "--expires", "7d")["result"] == "duplicate"
    )
    assert "was used for 5.25 USD" in farebox.refusal(*GRANT, "6", "--reference", "order-1")
    assert farebox.document("wallet", "show", "alice")["pools"]["credits"] == "5.25"


def test_M4_a_repeated_transfer_moves_once_and_keeps_the_expiry(farebox: Any) -> None:
    farebox("user", "add", "alice")
    farebox("user", "add", "bob")
    farebox(*GRANT, "2", "--expires", "2090-01-01")
    farebox(*GRANT, "2", "--expires", "2091-01-01")
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
    assert farebox.document(*move, "3")["result"] == "done"
    assert farebox.document(*move, "3")["result"] == "duplicate"
    assert "was used for 3 USD" in farebox.refusal(*move, "2")
    assert farebox.document("wallet", "show", "alice")["pools"]["credits"] == "1"
    (lot,) = farebox.document("wallet", "show", "bob")["lots"]
    assert (lot["left"], lot["expires_at"]) == ("3", "2090-01-01T00:00:00Z")
    assert farebox.document("verify")["clean"] is True


def test_M2_no_command_takes_more_than_there_is(farebox: Any) -> None:
    farebox("user", "add", "alice")
    farebox(*GRANT, "1")
    down = ("wallet", "adjust", "alice", "--pool", "credits", "--reason", "mistake")
    assert "less than 1.000000000001 USD" in farebox.refusal(*down, "--amount=-1.000000000001")
    assert farebox.document(*down, "--amount=-0.999999999999")["result"] == "done"
    (newest, _) = farebox.document("transactions", "show", "alice")
    assert (newest["type"], newest["amount"], newest["cause"]) == ("adjustment", "-0.999999999999", "mistake")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("user", "add", "Bad Name"), "no user name"),
        (("user", "disable", "nobody"), "no user 'nobody'"),
        (("key", "create", "nobody"), "no user 'nobody'"),
        (("key", "create", "nobody", "--rpm", "9" * 30), "less than or equal to 1000000"),
        (("key", "list", "nobody"), "no user 'nobody'"),
        (("logs", "show", "nobody"), "no user 'nobody'"),
        (("transactions", "show", "nobody"), "no user 'nobody'"),
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
def test_a_refusal_is_one_clear_line(farebox: Any, arguments: tuple[str, ...], said: str) -> None:
    farebox("user", "add", "alice")
    assert said in farebox.refusal(*arguments)


def test_M11_a_key_is_shown_once_and_stored_as_its_digest(farebox: Any, tmp_path: Path) -> None:
    farebox("user", "add", "alice")
    made = farebox.document("key", "create", "alice", "--rpm", "7", "--model", "gpt-5.1")
    listed = farebox("key", "list", "alice", "--json").stdout
    assert made["digest"] in listed
    assert made["key"] not in listed
    assert made["key"] not in farebox("user", "show", "alice").stdout
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert made["key"].encode() not in stored
    turned = farebox.document("key", "rotate", made["digest"])
    assert (turned["requests_per_minute"], turned["allowed_models"]) == (7, ["gpt-5.1"])
    limited = farebox.document("key", "limit", turned["digest"], "--rpm", "9")
    assert (limited["requests_per_minute"], limited["allowed_models"]) == (9, None)
    assert limited == farebox.document("key", "list", "alice")[0]
    states = {
        key["digest"]: key["active"] for key in json.loads(farebox("key", "list", "alice", "--json").stdout)
    }
    assert states == {made["digest"]: False, turned["digest"]: True}


def test_a_store_that_is_not_there_is_not_made_by_reading(tmp_path: Path, farebox: Any) -> None:
    assert "there is no store" in farebox.refusal("verify")
    assert list(tmp_path.iterdir()) == []


def test_S18_a_foreign_write_is_adopted_once_and_explained(farebox: Any) -> None:
    farebox("user", "add", "alice")
    farebox(*GRANT, "1")
    assert farebox.document("wallet", "adopt", "alice")["result"] == "duplicate"
    assert "no user 'nobody'" in farebox.refusal("wallet", "adopt", "nobody")
    with sqlite3.connect(farebox.path) as by_hand:
        by_hand.execute("UPDATE pools SET balance_pico = balance_pico - 250000000000 WHERE pool = 'credits'")
    by_hand.close()
    found = farebox("verify", "--repair-plan")
    assert found.returncode == 1
    assert "repair plan (nothing was changed)" in found.stdout
    assert "farebox wallet adopt" in found.stdout
    assert farebox("verify").returncode == 1
    adopted = farebox.document("wallet", "adopt", "alice")
    assert (adopted["result"], adopted["adopted"]) == ("done", {"credits": "-0.25"})
    (newest, _) = farebox.document("transactions", "show", "alice")
    assert (newest["type"], newest["amount"]) == ("adjustment", "-0.25")
    assert farebox("verify").returncode == 0
