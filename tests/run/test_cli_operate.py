"""Promise: an operator sees what waits and what is held, decides it once, and `verify` tells when money does
not add up.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from farebox.base.clock import wall_ms
from farebox.base.records import LotAmount, Settlement
from farebox.credits.accounts import create_user
from farebox.credits.moves import Move
from farebox.credits.transfers import perform
from farebox.meter import new_price_book, plain_models
from farebox.store import open_store
from farebox.store.base import Booked, Store

JOURNAL = "0123456789abcdef"
USD = 10**12
PRICES = {"sonnet": {"lines": {"input": "3", "output": "15", "cache_read": "0.3"}, "multiplier": "1.05"}}


def on_store(path: Path, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        store = open_store(f"sqlite:///{path}")
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(session())


def settlement(exchange: str, takes: tuple[LotAmount, ...], amount_pico: int, quarantine: str) -> Settlement:
    now_ms = wall_ms()
    return Settlement(
        exchange=exchange,
        user="alice",
        wallet="ohmygpt",
        key="digest",
        model="sonnet",
        wire_format="messages",
        price_version=1,
        multiplier="1.05",
        evidence="exact",
        flags=(),
        counts={"input": 1000, "output": 500},
        others={},
        input_total=1000,
        variant="",
        amount_pico=amount_pico,
        takes=takes,
        quarantine=quarantine,
        outcome="ok",
        status=200,
        upstream="main",
        upstream_model="sonnet",
        upstream_request="req_1",
        stream=False,
        started_ms=now_ms,
        first_byte_ms=now_ms,
        ended_ms=now_ms,
    )


async def play(store: Store) -> None:
    """Alice has 5 USD; one exchange of 0.011025 USD is booked, one is quarantined with 0.5 USD reserved."""
    now_ms = wall_ms()
    await create_user(store, "alice", "user", "test", now_ms)
    await perform(store, Move("grant", "r", "alice", "credits", 5 * USD, "test", "test"), now_ms)
    book = new_price_book(PRICES, 0, now_ms)
    await store.put_price_book({"models": plain_models(book.models)}, book.content_hash, now_ms)
    await store.claim_epoch(JOURNAL, 1, "host", now_ms)
    granted = await store.grant("alice", "ohmygpt", JOURNAL, 1, 0, 2 * USD, 2 * USD, now_ms)
    ((lot, _),) = granted.added
    charged = settlement("e1", (lot._replace(amount_pico=11_025_000_000),), 11_025_000_000, "")
    waiting = settlement("e2", (lot._replace(amount_pico=USD // 2),), 0, "no price for web_search")
    assert await store.book(JOURNAL, 1, [charged, waiting], now_ms) == [Booked.BOOKED, Booked.PARKED]
    await store.log([charged, waiting], {})


@pytest.fixture
def played(farebox: Any) -> Any:
    on_store(farebox.path, play)
    return farebox


def test_M7_explain_recomputes_a_charge_from_its_own_row(played: Any) -> None:
    document = played.document("explain", "e1")
    assert (document["user"], document["amount"], document["recomputed"]) == ("alice", "0.011025", "0.011025")
    assert {line["kind"]: line["amount"] for line in document["lines"]} == {
        "input": "0.003",
        "output": "0.0075",
    }
    assert [row["amount"] for row in document["transactions"]] == ["-0.011025"]
    assert "0.011025 USD" in played("explain", "e1").stdout
    assert played.document("logs", "show", "alice")[0]["model"] == "sonnet"
    assert played.document("audit")["charges"] == 1


def test_M3_a_quarantined_settlement_is_decided_once(played: Any) -> None:
    (waiting,) = played.document("quarantine", "list")
    assert (waiting["exchange"], waiting["reserved"], waiting["reason"]) == (
        "e2",
        "0.5",
        "no price for web_search",
    )
    assert played.document("quarantine", "settle", "e2", "--amount", "0.25")["amount"] == "0.25"
    assert "nothing of the id" in played.refusal("quarantine", "void", "e2")
    assert played.document("wallet", "show", "alice")["pools"]["credits"] == "4.738975"
    assert played.document("quarantine", "list") == []
    assert played.document("verify")["clean"] is True


def test_M3_a_voided_settlement_costs_nothing(played: Any) -> None:
    played.document("quarantine", "void", "e2")
    assert played.document("wallet", "show", "alice")["pools"]["credits"] == "4.988975"
    assert played.document("verify")["parked_total"] == 0


def test_leases_of_a_live_journal_are_not_released_by_mistake(played: Any) -> None:
    (journal,) = played.document("lease", "list")
    assert journal["leased"] == {"alice": "1.488975"}
    assert "sign of life" in played.refusal("lease", "release", "--lost", JOURNAL)
    assert played.document("lease", "release", "--lost", JOURNAL, "--force")["users"] == ["alice"]
    (journal,) = played.document("lease", "list")
    assert (journal["state"], journal["leased"]) == ("lost", {})
    played.document(
        "wallet", "adjust", "alice", "--pool", "credits", "--amount=-4.488975", "--reason", "all free"
    )
    assert played.document("verify")["clean"] is True


def test_prices_shows_what_applied(played: Any) -> None:
    assert [version["version"] for version in played.document("prices", "list")] == [1]
    shown = played.document("prices", "show")
    assert shown["models"]["sonnet"]["multiplier"] == "1.05"
    assert "it has sonnet" in played.refusal("prices", "show", "--model", "opus")


def test_M1_verify_names_a_balance_that_something_else_wrote(played: Any) -> None:
    with sqlite3.connect(played.path) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "lots" in tables
        connection.execute("UPDATE lots SET left_pico = left_pico + 1 WHERE user = 'alice'")
    connection.close()
    report = played.document("verify", status=1)
    assert report["clean"] is False
    assert any("alice" in difference for difference in report["differences"])
    shown = played("verify")
    assert shown.returncode == 1
    assert "M1" in shown.stdout
