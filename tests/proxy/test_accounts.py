"""Promise A04: a key is known by its whole digest, and what changed is asked again."""

import asyncio

import pytest

from farebox.base import limits
from farebox.base.errors import StoreDownError
from farebox.base.records import KeyRecord
from farebox.proxy.accounts import Accounts


def record(digest: str, user: str = "alice") -> KeyRecord:
    return KeyRecord(digest, user, "sk-", "", True, True, "user", None, None)


class LookUp:
    """Counts what is asked; holds answers back while `gate` is closed."""

    def __init__(self, **known: KeyRecord) -> None:
        self.known = known
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, digest: str) -> KeyRecord | None:
        self.asked.append(digest)
        answer = self.known.get(digest)
        await self.gate.wait()
        return answer


async def test_A04_a_known_key_is_asked_once_until_it_changes() -> None:
    look_up = LookUp(d1=record("d1"), d2=record("d2"))
    accounts = Accounts(look_up)
    assert accounts.get("d1") is None
    assert (await accounts.find("d1", 0.0)) == accounts.get("d1")
    await accounts.find("d2", 0.0)
    accounts.forget_key("d1")
    assert (accounts.get("d1"), accounts.get("d2")) == (None, record("d2"))
    await accounts.find("d1", 0.0)
    accounts.forget_user("alice")
    assert (accounts.get("d1"), accounts.get("d2")) == (None, None)
    await accounts.find("d1", 0.0)
    accounts.forget_all()
    accounts.forget_key("d1")
    assert accounts.get("d1") is None
    assert look_up.asked == ["d1", "d2", "d1", "d1"]


async def test_K5_unknown_keys_are_remembered_briefly_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "unknown_key_cache_entries_max", 1)
    look_up = LookUp()
    accounts = Accounts(look_up)
    assert await accounts.find("x", 0.0) is None
    assert await accounts.find("x", limits.unknown_key_cache_s - 0.1) is None
    assert look_up.asked == ["x"]
    look_up.known["x"] = record("x")
    accounts.forget_key("x")
    assert await accounts.find("x", 1.0) == record("x")
    await accounts.find("y", 1.0)
    await accounts.find("z", 1.0)
    await accounts.find("y", 1.0)
    assert look_up.asked == ["x", "x", "y", "z", "y"]


async def test_A04_a_change_while_a_look_up_runs_is_not_missed() -> None:
    look_up = LookUp(d1=record("d1"))
    look_up.gate.clear()
    accounts = Accounts(look_up)
    early = [asyncio.create_task(accounts.find("d1", 0.0)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    accounts.forget_key("d1")
    look_up.known.clear()
    late = asyncio.create_task(accounts.find("d1", 0.0))
    await asyncio.sleep(0)
    look_up.gate.set()
    assert await asyncio.gather(*early) == [record("d1")] * 3
    assert await late is None
    assert accounts.get("d1") is None
    assert look_up.asked == ["d1", "d1"]


async def test_M10_the_oldest_record_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "account_cache_entries_max", 2)
    accounts = Accounts(LookUp(**{name: record(name) for name in ("a", "b", "c")}))
    for name in ("a", "b", "c"):
        await accounts.find(name, 0.0)
    assert [accounts.get(name) is not None for name in ("a", "b", "c")] == [False, True, True]


async def test_a_store_that_is_away_is_told_and_not_remembered() -> None:
    async def away(digest: str) -> KeyRecord | None:
        raise StoreDownError("away")

    accounts = Accounts(away)
    for _ in range(2):
        with pytest.raises(StoreDownError):
            await accounts.find("d", 0.0)
