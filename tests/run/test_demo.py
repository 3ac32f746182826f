"""Promise: `farebox demo` shows what happened and nothing else: it ends with 0 only when upstream, charge,
balance and verify agree, it serves a person's own client while it is up, and it leaves nothing behind.
"""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from farebox.run.demo.exchanges import exchanges
from farebox.run.demo.processes import DemoError
from farebox.run.demo.show import _check

COMMAND = [sys.executable, "-m", "farebox.run.cli", "demo"]


@pytest.fixture
def environment(short_path: Path) -> Iterator[dict[str, str]]:
    yield {"TMPDIR": str(short_path), "PATH": "/usr/bin:/bin"}
    assert list(short_path.iterdir()) == [], "the demo's folder is gone"


def test_M7_once_explains_every_exchange_and_ends_clean(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--once"], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"USD charged \(exact\); balance \S+ -> \S+", done.stdout)) == len(exchanges())
    assert "= 0.027405 USD charged" in done.stdout
    assert "verify: clean" in done.stdout
    shown, _, _ = done.stdout.partition("base URL")
    assert max(map(len, shown.splitlines())) <= 100


def test_M5_a_client_of_ones_own_is_charged_while_it_stays_up(environment: dict[str, str]) -> None:
    demo = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True, env=environment)
    assert demo.stdout is not None
    said = ""
    for line in demo.stdout:
        said += line
        if "running until Ctrl-C" in line:
            break
    url, key = re.findall(r"base URL +(\S+)", said)[0], re.findall(r"key +(sk-\S+)", said)[0]
    body = {"model": "gpt-5.1", "messages": [{"role": "user", "content": "Hello"}]}
    answer = httpx.post(f"{url}/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
    pages, token = re.findall(r"pages +(\S+)", said)[0], re.findall(r"operator +(fbx-admin-\S+)", said)[0]
    logins = [httpx.post(f"{pages}/api/login", json={"key": one}).json()["role"] for one in (key, token)]
    demo.send_signal(signal.SIGINT)
    rest = demo.stdout.read()
    demo.stdout.close()
    assert answer.status_code == 200
    assert logins == ["user", "admin"]
    assert answer.json()["usage"]["prompt_tokens"] == 12
    assert (demo.wait(), rest) == (0, "stopping\n")


HONEST = {"counts": {"input": 1}, "recomputed": "0.5", "amount": "0.5", "evidence": "exact"}


@pytest.mark.parametrize(
    ("charge", "served", "fell_pico", "said"),
    [
        (HONEST, {"input": 2}, 500_000_000_000, "the upstream served"),
        (HONEST, {"input": 1}, 500_000_000_001, "the balance fell by 0.500000000001"),
        ({**HONEST, "recomputed": "0.4"}, {"input": 1}, 500_000_000_000, "recomputed 0.4"),
        ({**HONEST, "evidence": "estimated"}, {"input": 1}, 500_000_000_000, "evidence estimated"),
    ],
)
def test_M7_the_demo_fails_when_anything_disagrees(
    charge: dict, served: dict, fell_pico: int, said: str
) -> None:
    _check(exchanges()[0], HONEST, {"usage": {"input": 1}}, 500_000_000_000)
    with pytest.raises(DemoError, match=re.escape(said)):
        _check(exchanges()[0], charge, {"usage": served}, fell_pico)
