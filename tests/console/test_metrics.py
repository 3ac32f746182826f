"""/metrics says what happened: sums over workers dead and alive, cells that hold what was observed.

Names and labels are a promise: docs/DASHBOARD.md lists each, and nothing that a client sends becomes a label.
"""

import asyncio
import os
import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from farebox.base import limits
from farebox.base.counters import (
    ADDED,
    FIRST_BYTE,
    GAUGES,
    HISTOGRAMS,
    HOLD_WAIT,
    INDEX,
    NAMES,
    REFUSED,
    Cells,
    Counters,
    Histogram,
    add_charge,
    charged_pico,
    observe,
    read_counters,
    retire_counters,
)
from farebox.base.errors import Refusal, StoreDownError
from farebox.console.figures import Figures, Known
from farebox.console.metrics import FareboxCollector
from farebox.store.base import JournalState
from needs import REPOSITORY

NOW_MS = 1_800_000_000_000
STATUS = {
    "journals": {
        "a": {"lag_s": 1.5, "unbooked": 3, "dead_letters": 0},
        "b": {"lag_s": 7.0, "unbooked": 4, "dead_letters": 2},
    },
    "damaged": {"c": "why"},
    "store_error": "away",
    "store_errors": 5,
    "lots_expired": 6,
    "flush": Cells(Histogram("flush", 1_000_000, 9, 24)).status(),
    "conservation": {"delta_pico": 7, "rounds": 8, "written_off_pico": 9, "leased_pico": 10},
    "parked": 11,
    "booked": 12,
}


def scraped(paths: list[Path], status: Path, figures: Figures | None = None) -> dict[str, float]:
    """The exposition text, parsed: sample name with its labels -> value."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FareboxCollector(lambda: paths, status, figures, lambda: NOW_MS))
    text = generate_latest(registry).decode()
    return {
        sample.name + "".join(f"[{value}]" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures_are_sums_over_workers_that_serve_and_that_have_gone(tmp_path: Path) -> None:
    paths = [tmp_path / f"worker-{number}.counters" for number in range(3)]
    for number, path in enumerate(paths, start=1):
        counters = Counters(path)
        for name in ("exchanges_total", "settled_exact_total", REFUSED[Refusal.BALANCE_SHORT]):
            counters.values[INDEX[name]] += number
        counters.values[INDEX["exchanges_open"]] = 1
        counters.values[INDEX["holds_pico"]] = 100 * number
        counters.values[INDEX["oldest_open_ms"]] = NOW_MS - 1000 * number
        observe(counters.values, FIRST_BYTE, 20)
        counters.close()
    retired = tmp_path / "worker-retired.counters"
    retire_counters(paths.pop(), retired)
    found = scraped([*paths, retired], tmp_path / "none")
    assert found["farebox_exchanges_total"] == 6
    assert found["farebox_settled_total[exact]"] == 6
    assert found["farebox_refused_total[balance_short]"] == 6
    assert found["farebox_first_byte_seconds_count"] == 3
    assert found["farebox_first_byte_seconds_sum"] == pytest.approx(0.06)
    assert found["farebox_workers"] == 2
    assert found["farebox_exchanges_open"] == 2, "what a dead worker had open is open no more"
    assert found["farebox_holds_pico"] == 300
    assert found["farebox_unsettled_age_seconds"] == 2


@given(st.lists(st.integers(0, (1 << 63) - 1), max_size=20))
def test_charges_add_up_beyond_what_one_cell_holds_and_never_fall(amounts_pico: list[int]) -> None:
    counters = Counters()
    seen_pico = [0]

    class Watched(dict[int, int]):
        """The values, looked at after each single store, as another process may."""

        def __setitem__(self, index: int, value: int) -> None:
            counters.values[index] = value
            seen_pico.append(charged_pico({name: counters.values[INDEX[name]] for name in NAMES}))

        def __getitem__(self, index: int) -> int:
            return counters.values[index]

    for amount_pico in amounts_pico:
        add_charge(Watched(), amount_pico)  # type: ignore[arg-type]
    assert seen_pico == sorted(seen_pico)
    assert seen_pico[-1] == sum(amounts_pico)
    counters.close()


def test_charges_of_ten_million_dollars_are_summed_over_workers_that_have_gone(tmp_path: Path) -> None:
    paths = [tmp_path / f"worker-{number}.counters" for number in range(3)]
    each_pico = 6_000_000 * 10**12 + 1
    for path in paths:
        counters = Counters(path)
        add_charge(counters.values, each_pico)
        counters.close()
    retired = tmp_path / "worker-retired.counters"
    retire_counters(paths.pop(), retired)
    retire_counters(paths.pop(), retired)
    assert charged_pico(read_counters(retired)) == 2 * each_pico
    found = scraped([*paths, retired], tmp_path / "none")
    assert found["farebox_charged_pico_total"] == float(3 * each_pico)


def test_the_writers_status_and_the_stores_counts_are_metrics(tmp_path: Path) -> None:
    status = tmp_path / "writer.json"
    status.write_bytes(orjson.dumps(STATUS))
    os.utime(status, (NOW_MS / 1000 - 4, NOW_MS / 1000 - 4))
    figures = Figures.__new__(Figures)
    figures.known = Known(reviews=2, parked=3, journals={"live": 4})
    found = scraped([], status, figures)
    expected = {
        "farebox_journal_lag_seconds": 7.0,
        "farebox_journal_unbooked": 7,
        "farebox_dead_letters": 2,
        "farebox_journals_damaged": 1,
        "farebox_store_down": 1,
        "farebox_store_errors_total": 5,
        "farebox_lots_expired_total": 6,
        "farebox_conservation_delta_pico": 7,
        "farebox_conservation_rounds_total": 8,
        "farebox_written_off_pico": 9,
        "farebox_leased_pico": 10,
        "farebox_writer_parked_total": 11,
        "farebox_writer_booked_total": 12,
        "farebox_payments_waiting_review": 2,
        "farebox_settlements_parked": 3,
        "farebox_journals[live]": 4,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["farebox_writer_status_age_seconds"] == pytest.approx(4, abs=0.01)


@given(st.sampled_from(HISTOGRAMS), st.lists(st.integers(0, 1 << 40), max_size=20))
def test_a_cell_holds_what_lies_below_its_bound(histogram: Histogram, observed: list[int]) -> None:
    counters = Counters()
    for units in observed:
        observe(counters.values, histogram, units)
    below = 0
    for bound_s, name in zip(histogram.upper_bounds_s(), histogram.cell_names(), strict=False):
        below += counters.values[INDEX[name]]
        assert below == sum(units < round(bound_s * histogram.units_per_s) for units in observed)
    assert below + counters.values[INDEX[histogram.cell_names()[-1]]] == len(observed)
    assert counters.values[INDEX[histogram.sum_name]] == sum(observed)
    counters.close()


@given(st.lists(st.floats(0, 100), max_size=20))
def test_the_writers_own_histogram_has_the_same_cells(observed: list[float]) -> None:
    cells, counters = Cells(ADDED), Counters()
    for seconds in observed:
        cells.observe(seconds)
        observe(counters.values, ADDED, int(seconds * ADDED.units_per_s))
    status = cells.status()
    assert status["cells"] == [counters.values[INDEX[name]] for name in ADDED.cell_names()]
    assert status["units"] == counters.values[INDEX[ADDED.sum_name]]
    counters.close()


class Away:
    """A store that answers once, and then is gone or hangs."""

    def __init__(self) -> None:
        self.answers = 0
        self.hangs = False

    async def records(self, kind: str, *, status: str, limit: int) -> list[object]:
        assert (kind, status) == ("payment", "review")
        assert limit == limits.records_page_max
        if self.hangs:
            await asyncio.Event().wait()
        if self.answers:
            raise StoreDownError("away")
        self.answers += 1
        return [object()]

    async def journal_states(self) -> list[JournalState]:
        return [JournalState(f"{number:016x}", 1, 0, 0, "live", "h", 0) for number in range(2)]

    async def parked(self) -> list[object]:
        return [object()] * 3


async def test_a_store_that_is_away_or_hangs_leaves_the_last_figures_standing(monkeypatch) -> None:
    monkeypatch.setattr(limits, "console_figures_wait_s", 0.05)
    now_s = [100.0]
    store = Away()
    figures = Figures(store, lambda: now_s[0])
    await figures.refresh()
    known = Known(reviews=1, parked=3, journals={"live": 2})
    assert figures.known == known
    await figures.refresh()
    assert store.answers == 1, "asked again within a moment"
    for store.hangs in (False, True):
        now_s[0] += limits.console_figures_kept_s
        await figures.refresh()
        assert figures.known == known


def test_a_file_of_another_release_reads_as_zeros_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.counters"
    path.write_bytes((5).to_bytes(8, "little"))
    values = read_counters(path)
    assert values[NAMES[0]] == 5
    assert not any(values[name] for name in NAMES[1:])


def test_every_reason_to_refuse_has_a_counter_and_only_states_fall() -> None:
    assert {refusal for refusal in Refusal if refusal in REFUSED} == set(Refusal)
    assert len(set(NAMES)) == len(NAMES)
    assert all(name.endswith("_total") != (name in GAUGES) for name in NAMES)
    assert HOLD_WAIT.sum_name in INDEX


def test_each_metric_is_documented_and_nothing_else(tmp_path: Path) -> None:
    status = tmp_path / "writer.json"
    status.write_bytes(orjson.dumps(STATUS))
    figures = Figures.__new__(Figures)
    figures.known = Known(reviews=0, parked=0, journals={"live": 1})
    collector = FareboxCollector(list, status, figures, lambda: NOW_MS)
    families = {family.name for family in collector.collect()} | {"farebox_webhook_deliveries"}
    page = (REPOSITORY / "docs" / "DASHBOARD.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(farebox_[a-z0-9_]+)(?:\{[a-z, ]+\})?` \|", page, re.MULTILINE)
    assert {name.removesuffix("_total") for name in rows} == families
