"""Promise: `farebox meter` and `farebox quote` give a person with a bill the same numbers that live traffic
is billed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def farebox(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "farebox.run.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


GOLDEN = [
    ("input=3,output=15,cache_write=3.75,cache_hit=0.3", "1.05", (1200, 800, 2000, 10000), "0.027405"),
    ("input=5,output=25", "1.15", (1000, 500, 0, 0), "0.020125"),
    ("input=1,output=5", "1.1", (1_000_000, 1_000_000, 0, 0), "6.6"),
    (
        "input=3.30,output=16.50,cache_write=4.13,cache_hit=0.33",
        "1.05",
        (0, 1048, 1558, 62745),
        "0.0466540095",
    ),
]


@pytest.mark.parametrize(("prices", "multiplier", "counts", "amount"), GOLDEN)
def test_M7_golden_charges_are_exact(
    prices: str, multiplier: str, counts: tuple[int, int, int, int], amount: str
) -> None:
    names = ("--input", "--output", "--cache-write", "--cache-read")
    use = [text for name, count in zip(names, counts, strict=True) for text in (name, str(count))]
    done = farebox("quote", "--price", prices, "--multiplier", multiplier, *use, "--json")
    document = json.loads(done.stdout)
    assert set(document) == {"amount", "amount_pico", "lines"}
    assert document["amount"] == amount
    assert {line["kind"]: line["count"] for line in document["lines"]}.get("output") == counts[1]


def test_quote_from_a_configuration_uses_its_prices_and_multiplier(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(farebox("demo", "--print-config").stdout)
    use = ("--input", "1000", "--output", "500", "--json")
    done = farebox("quote", "--config", str(config), "--model", "claude-sonnet-4-5", *use)
    assert json.loads(done.stdout)["amount"] == "0.011025"
    assert "no model" in farebox("quote", "--config", str(config), "--model", "nope", *use).stderr


def test_a_kind_without_a_price_is_never_quoted_as_free() -> None:
    done = farebox("quote", "--price", "input=3", "--input", "1", "--output", "5", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no price for output" in done.stderr


def test_M8_meter_prints_one_line_a_file_with_the_index_members(shared_path: Path) -> None:
    rows = [json.loads(line) for line in (shared_path / "corpus" / "INDEX.jsonl").read_text().splitlines()]
    chosen = [row for row in rows if row["api"] == "messages"]
    files = [str(shared_path / "corpus" / "bodies" / row["file"]) for row in chosen]
    done = farebox("meter", "--api", "messages", *files, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == files
    assert all(set(line) == {"file", "usage", "evidence", "flags"} for line in lines)
    for line, row in zip(lines, chosen, strict=True):
        assert line["usage"] in (row["expected"], row.get("expected_alt", row["expected"]))
        assert (line["evidence"] == "none") == (line["usage"] is None)


def test_meter_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text("{}")
    assert "unknown wire_format" in farebox("meter", "--api", "nope", str(body)).stderr
    absent = farebox("meter", "--api", "chat", str(tmp_path / "absent"))
    assert (absent.returncode, absent.stderr.count("\n")) == (1, 1)
