"""Logs for programs: each line is JSON of its own, names its exchange, and holds no key."""

import json
import logging
import os
from collections.abc import Iterator

import pytest

from farebox.base import log
from farebox.proxy.settlement_log import SettlementLog

EXCHANGE = "0198c0ffee00" + "ab" * 5 + "0000000001"
LINE = (
    f'settled {EXCHANGE} user=alice model=A model with "spaces" exact ok input=3@1.25 x1.05 '
    "amount=0.027405 creditsNew=0.027405 remaining~4.9\n"
)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_each_line_is_an_object_with_its_exchange_and_without_keys(root, monkeypatch, capsys) -> None:
    monkeypatch.setenv("FAREBOX_LOG_FORMAT", "json")
    log.set_up_logging()
    logging.getLogger("farebox.x").warning("%s: sent with %s\nand more", EXCHANGE, "sk-trollllm-" + "0" * 64)
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("farebox.y").exception("failed")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["exchange"]) == ("warning", "farebox.x", EXCHANGE)
    assert first["message"] == f"{EXCHANGE}: sent with [secret]\nand more"
    assert first["time"].endswith("+00:00")
    assert "exchange" not in second
    assert "ValueError: no" in second["message"]


def test_text_stays_text_unless_asked(root, monkeypatch, capsys) -> None:
    monkeypatch.delenv("FAREBOX_LOG_FORMAT", raising=False)
    log.set_up_logging()
    logging.getLogger("farebox.x").warning("plain")
    assert capsys.readouterr().err.endswith(" W farebox.x plain\n")


async def test_settlements_are_objects_too_with_exact_amounts() -> None:
    import asyncio

    reader, writer = os.pipe()
    settlements = SettlementLog(asyncio.get_running_loop(), lambda: None, writer, as_json=True)
    settlements.add(LINE)
    settlements.flush()
    os.close(writer)
    with os.fdopen(reader) as lines:
        (document,) = [json.loads(line) for line in lines]
    assert document["message"] == LINE.rstrip()
    assert {
        name: document[name] for name in ("exchange", "user", "model", "evidence", "outcome", "amount")
    } == {
        "exchange": EXCHANGE,
        "user": "alice",
        "model": 'A model with "spaces"',
        "evidence": "exact",
        "outcome": "ok",
        "amount": "0.027405",
    }


async def test_a_settlement_after_the_close_is_written_at_once_and_no_timer_is_left() -> None:
    import asyncio

    told: list[str] = []
    reader, writer = os.pipe()
    loop = asyncio.get_running_loop()
    settlements = SettlementLog(loop, lambda: told.append("counted"), writer)
    settlements.add(LINE)
    settlements.close()
    settlements.add(LINE)
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert list(lines) == [LINE, LINE]
    assert told == ["counted", "counted"]
    await asyncio.sleep(0.6)
    assert told == ["counted", "counted"]


def test_a_line_of_another_form_is_kept_whole() -> None:
    assert json.loads(log.settlement_as_json("something else\n", 0.0))["message"] == "something else"
