"""Promise: payments, referrals and the console's tokens are handled at the command line as over HTTP."""

from typing import Any


def test_a_payment_by_hand_is_credited_once_and_shown(farebox: Any) -> None:
    farebox("user", "add", "alice")
    farebox("user", "add", "bob")
    assert farebox.document("referral", "add", "alice", "--referrer", "bob")["status"] == "waiting"
    assert farebox.document("referral", "show", "alice")["referrer"] == "bob"
    assert "nobody is noted" in farebox.refusal("referral", "show", "bob")
    add = (
        "payment",
        "add",
        "alice",
        "--credits",
        "25",
        "--receipt",
        "r1",
        "--note",
        "cash",
        "--amount",
        "25",
    )
    assert farebox.document(*add)["status"] == "credited"
    assert farebox.document(*add)["creditsAfter"] == "25"
    assert "another reference" in farebox.refusal(*(part if part != "25" else "26" for part in add))
    assert "more than 0" in farebox.refusal(*(part if part != "25" else "-1" for part in add))
    (listed,) = farebox.document("payment", "list", "--status", "credited", "--user", "alice")
    assert listed == farebox.document("payment", "show", "manual:r1")
    wallet = farebox.document("wallet", "show", "alice")
    assert wallet["pools"]["creditsNew"] == "25"
    assert wallet["lots"][0]["expires_at"] is not None
    assert "creditsNew" in farebox("wallet", "show", "alice").stdout
    assert farebox.document("verify")["clean"] is True


def test_only_a_payment_under_review_is_decided(farebox: Any) -> None:
    farebox("user", "add", "alice")
    farebox("payment", "add", "alice", "--credits", "5", "--receipt", "r1", "--note", "cash")
    assert "only one under review" in farebox.refusal("payment", "accept", "manual:r1", "--note", "why")
    assert "no payment" in farebox.refusal("payment", "refuse", "manual:r2", "--note", "why")


def test_tokens_are_made_listed_and_revoked(farebox: Any) -> None:
    made = farebox.document("admin", "create", "eve", "--role", "support", "--expires", "90d")
    assert made["token"].startswith("fbx-admin-")
    assert "token already" in farebox.refusal("admin", "create", "eve")
    assert "is no role" in farebox.refusal("admin", "create", "carl", "--role", "king")
    assert made["token"] not in farebox("admin", "list").stdout
    assert farebox.document("admin", "revoke", "eve")["status"] == "revoked"
    (listed,) = farebox.document("admin", "list")
    assert (listed["name"], listed["role"], listed["status"]) == ("eve", "support", "revoked")
