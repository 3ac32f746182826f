"""Promise: the commands from and to the replaced system say what they did, and their exit status says whether
somebody has to look.
"""

from pathlib import Path
from typing import Any

import bson
import pytest

from credits.legacy_data import write_bson


@pytest.fixture
def dump(tmp_path: Path) -> str:
    folder = tmp_path / "dump"
    folder.mkdir()
    users = [{"_id": "alice", "credits": 5.25, "apiKey": "sk-trollllm-1"}, {"_id": "bob", "credits": 2}]
    write_bson(folder / "usersNew.bson", iter(users))
    return str(folder)


def test_a_migration_there_and_back(farebox: Any, dump: str, tmp_path: Path) -> None:
    tried = farebox.document("import-legacy", dump, "--dry-run")
    assert (tried["dry_run"], tried["sums"]["credits"]["booked"]) == (True, "7.25")
    assert not farebox.path.exists()
    done = farebox("import-legacy", dump, "--json")
    assert done.returncode == 0
    assert "usersNew: 100 %" in done.stderr
    shown = farebox("import-legacy", dump).stdout
    assert "booked before" in shown
    assert "users unchanged: 2" in shown
    assert farebox.document("wallet", "show", "alice")["pools"]["credits"] == "5.25"
    assert farebox.document("verify")["clean"] is True
    exported = farebox.document("export", str(tmp_path / "out"))
    assert exported["rows"] == {"balances": 2, "transactions": 2, "request_logs": 0}
    assert "is complete" in farebox.refusal("export", str(tmp_path / "out"))
    back = farebox.document("rollback-legacy", "--to", str(tmp_path / "back"), "--from", dump)
    assert (back["users"], back["pools"], back["keys_missing"]) == (2, {"credits": "7.25"}, 0)
    users = bson.decode_all((tmp_path / "back" / "usersNew.bson").read_bytes())
    assert [(user["_id"], user["credits"]) for user in users] == [("alice", 5.25), ("bob", 2.0)]


def test_what_has_to_be_looked_at_is_named_and_in_the_status(farebox: Any, dump: str) -> None:
    write_bson(Path(dump) / "usersNew.bson", iter([{"_id": "carol", "credits": -1.0}, {"_id": "dave"}]))
    done = farebox("import-legacy", dump)
    assert done.returncode == 1
    assert "user carol: parked: import: credits is negative" in done.stdout
    assert "users created: 1" in done.stdout
    assert "carol is parked" in farebox.refusal(
        "wallet", "grant", "carol", "--pool", "credits", "--amount", "1"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import-legacy", "/nowhere"), "no folder"),
        (("import-legacy", "DUMP", "--usd-per-credit", "much"), "is no rate"),
        (("rollback-legacy", "--to", "DUMP"), "there is no store"),
        (("rollback-legacy", "--to", "back", "--in-place"), "say where to"),
        (("rollback-legacy", "--in-place", "--from", "DUMP"), "say where to"),
        (("rollback-legacy", "--in-place"), "only a store in MongoDB"),
        (("export", "out"), "there is no store"),
    ],
)
def test_a_refusal_is_one_clear_line(farebox: Any, dump: str, arguments: tuple[str, ...], said: str) -> None:
    given = [dump if argument == "DUMP" else argument for argument in arguments]
    assert said in farebox.refusal(*given)
