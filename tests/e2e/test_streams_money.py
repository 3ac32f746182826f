"""Promise M2, M3, M5: a stream never spends what its wallet does not hold, and holds follow it while it runs.

Real processes; a stream's wallet runs dry, grows, waits, or loses its key while the stream runs.
"""

import asyncio
import json
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from e2e.deployment import Customer, Deployment
from farebox.base.clock import wall_ms
from farebox.base.keys import key_digest
from farebox.base.limits import lease_idle_return_s
from farebox.run.demo.processes import wait_until
from farebox.store.base import Store

USD = 10**12
OUT_PICO = 10_500_000
IN_PICO = 1_312_500
WORD = "abcdefghijklmnopqrstuvwxyz0 "
ENDS = {"chat": b"data: [DONE]", "messages": b"event: message_stop"}
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
MODELS = {"chat": "gpt-5.1", "messages": "claude-sonnet-4-5"}


def asked(
    wire_format: str = "chat", max_tokens: int = 20_000, stream: bool = True, **script: Any
) -> dict[str, Any]:
    """A request whose script is `script`."""
    content = f"script: {json.dumps(script)}"
    return {
        "model": MODELS[wire_format],
        "max_tokens": max_tokens,
        "stream": stream,
        "messages": [{"role": "user", "content": content}],
    }


async def send(
    deployment: Deployment, customer: Customer, body: dict[str, Any], wire_format: str = "chat"
) -> tuple[int, bytes, str]:
    """Status, body and exchange id; the answer must end properly."""
    headers = {"Authorization": f"Bearer {customer.key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{deployment.base_url}{PATHS[wire_format]}", json=body) as response,
    ):
        return response.status, await response.read(), response.headers["x-request-id"]


def booked(deployment: Deployment, user: str) -> tuple[Any, int]:
    """The one log row and what was charged, once nothing is held any more."""
    deployment.settled([user])
    assert deployment.verified().differences == []
    (row,) = deployment.logs(user)
    return row, -sum(entry.amount_pico for entry in deployment.spent_rows(user))


@pytest.mark.parametrize("wire_format", ["chat", "messages"])
def test_M2_a_stream_whose_wallet_runs_dry_is_cut_validly_and_billed_for_what_was_sent(
    tmp_path: Path, wire_format: str
) -> None:
    with Deployment(tmp_path) as deployment:
        wallet_pico = 750 * {"chat": OUT_PICO, "messages": 15_750_000}[wire_format]
        customer = deployment.customer("alice", wallet_pico)
        script = {"prompt": 20, "completion": 6000, "chunks": 900, "delay_ms": 7}
        status, body, _ = asyncio.run(send(deployment, customer, asked(wire_format, **script), wire_format))
        assert status == 200
        assert ENDS[wire_format] in body[-200:]
        assert body.endswith(b"\n\n")
        assert body.count(b"word") < 900
        row, charged_pico = booked(deployment, "alice")
        assert (row["outcome"], row["evidence"]) == (
            "cut",
            "estimated" if wire_format == "chat" else "partial",
        )
        account = deployment.account("alice")
        assert account.balances["creditsNew"] == max(0, wallet_pico - charged_pico)
        assert account.written_off_pico == max(0, charged_pico - wallet_pico)
        assert wallet_pico // 3 < charged_pico < 2 * wallet_pico
        assert deployment.upstream_log()["open"] == 0


def test_M2_M9_an_encoded_stream_whose_wallet_runs_dry_is_broken_off_without_a_word_of_ours(
    tmp_path: Path,
) -> None:
    with Deployment(tmp_path) as deployment:
        customer = deployment.customer("alice", 750 * OUT_PICO)
        script = {"prompt": 20, "completion": 6000, "chunks": 900, "gzip": True}
        script |= {"piece_bytes": 6, "delay_ms": 7}

        async def packed() -> tuple[bytes, bool]:
            """What came before the connection ended; whether that was its proper end."""
            headers = {"Authorization": f"Bearer {customer.key}"}
            got = b""
            async with (
                aiohttp.ClientSession(headers=headers, auto_decompress=False) as session,
                session.post(f"{deployment.base_url}{PATHS['chat']}", json=asked(**script)) as response,
            ):
                assert (response.status, response.headers["content-encoding"]) == (200, "gzip")
                try:
                    async for data in response.content.iter_any():
                        got += data
                except aiohttp.ClientPayloadError:
                    return got, False
            return got, True

        got, ended = asyncio.run(packed())
        assert not ended
        events = zlib.decompressobj(wbits=31).decompress(got)
        assert 0 < events.count(b"word") < 900
        assert b"farebox_cut" not in got
        row, _ = booked(deployment, "alice")
        assert (row["outcome"], row["evidence"]) == ("cut", "estimated")


def test_M2_policy_finish_serves_on_up_to_its_cap_and_writes_off(tmp_path: Path) -> None:
    with Deployment(tmp_path, stream_dry={"policy": "finish", "cap": "0.1"}) as deployment:
        customer = deployment.customer("alice", 700 * OUT_PICO)
        script = {"prompt": 20, "completion": 1500, "chunks": 400, "delay_ms": 3}
        status, body, _ = asyncio.run(send(deployment, customer, asked(**script)))
        assert status == 200
        assert body.count(b"word") == 400
        row, charged_pico = booked(deployment, "alice")
        assert (row["outcome"], row["evidence"]) == ("ok", "exact")
        account = deployment.account("alice")
        assert account.balances["creditsNew"] == 0
        assert account.written_off_pico == 20 * IN_PICO + 1500 * OUT_PICO - 700 * OUT_PICO
        assert charged_pico == 20 * IN_PICO + 1500 * OUT_PICO


def test_M2_policy_finish_cuts_past_its_cap(tmp_path: Path) -> None:
    cap_pico = 500 * OUT_PICO
    with Deployment(tmp_path, stream_dry={"policy": "finish", "cap": f"0.{cap_pico:012d}"}) as deployment:
        customer = deployment.customer("alice", 700 * OUT_PICO)
        script = {"prompt": 20, "completion": 6000, "chunks": 2000, "delay_ms": 2}
        status, body, _ = asyncio.run(send(deployment, customer, asked(**script)))
        assert status == 200
        assert body.count(b"word") < 2000
        row, _ = booked(deployment, "alice")
        assert row["outcome"] == "cut"
        assert 0 <= deployment.account("alice").written_off_pico <= cap_pico


def test_M2_the_hold_of_a_long_stream_grows_with_it_and_outlasts_the_idle_return(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        customer = deployment.customer("alice", 1 * USD)
        pause_s = lease_idle_return_s + 2.5
        script = {
            "prompt": 20,
            "completion": 2000,
            "text": WORD * 260,
            "chunks": 260,
            "delay_ms": pause_s * 1000 / 260,
        }
        leased: list[int] = []

        async def watch() -> None:
            stream = asyncio.create_task(send(deployment, customer, asked(**script)))
            while not stream.done():
                await asyncio.sleep(0.5)
                account = await asyncio.to_thread(deployment.account, "alice")
                leased.append(sum(lot.leased_pico for lot in account.lots))
            status, body, _ = await stream
            assert status == 200
            assert body.count(b"abc") == 260

        asyncio.run(watch())
        running = [amount for amount in leased if amount]
        assert running[0] >= 512 * OUT_PICO
        assert running[-1] > 260 * len(WORD) // 4 * OUT_PICO
        _, charged_pico = booked(deployment, "alice")
        assert charged_pico == 20 * IN_PICO + 2000 * OUT_PICO


def test_MONEY_6_a_top_up_is_noticed_by_who_waits_within_a_second(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        customer = deployment.customer("alice", 600 * OUT_PICO)
        held = asked(max_tokens=500, stream=False, prompt=1, completion=1, first_delay_ms=4000)
        wanted = asked(max_tokens=500, stream=False, prompt=1, completion=1)

        async def story() -> float:
            first = asyncio.create_task(send(deployment, customer, held))
            await asyncio.sleep(0.5)
            second = asyncio.create_task(send(deployment, customer, wanted))
            await asyncio.sleep(0.3)
            assert not second.done()
            await asyncio.to_thread(deployment.top_up, "alice", 1 * USD, "creditsNew", "second")
            began_s = time.monotonic()
            assert (await second)[0] == 200
            waited_s = time.monotonic() - began_s
            assert not first.done()
            assert (await first)[0] == 200
            return waited_s

        assert asyncio.run(story()) < 1.5
        deployment.settled(["alice"])
        assert deployment.verified().differences == []


async def _revoke(store: Store, customer: Customer) -> None:
    await store.set_key_active(key_digest(customer.key), False, "test", wall_ms())


async def _disable(store: Store, customer: Customer) -> None:
    await store.set_user_active(customer.user, False, "test", wall_ms())


@pytest.mark.parametrize("change", [_revoke, _disable], ids=["A04-key-revoked", "A04-user-disabled"])
def test_A04_L17_a_change_of_account_takes_effect_soon_and_lets_running_streams_end(
    tmp_path: Path, change: Callable[[Store, Customer], Awaitable[None]]
) -> None:
    with Deployment(tmp_path) as deployment:
        customer = deployment.customer("alice", 1 * USD)
        short = asked(max_tokens=50, stream=False, prompt=1, completion=1)
        long = asked(max_tokens=400, prompt=1, completion=100, chunks=60, delay_ms=40)

        async def refused_after_s() -> float:
            stream = asyncio.create_task(send(deployment, customer, long))
            assert (await send(deployment, customer, short))[0] == 200
            await asyncio.to_thread(deployment.store, lambda store: change(store, customer))
            began_s = time.monotonic()
            while (await send(deployment, customer, short))[0] == 200:
                await asyncio.sleep(0.02)
            waited_s = time.monotonic() - began_s
            status, body, _ = await stream
            assert status == 200
            assert ENDS["chat"] in body
            return waited_s

        assert asyncio.run(refused_after_s()) < 2.0
        assert wait_until(lambda: deployment.upstream_log()["open"] == 0, 5.0)
        deployment.settled(["alice"])
        assert deployment.verified().differences == []
