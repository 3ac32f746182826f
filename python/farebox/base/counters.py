"""Counters for the hot path: plain integers in shared memory, summed by whoever serves /metrics.

A bound counter of the metrics library costs a microsecond an increment; adding to an array element costs a
tenth. Each worker owns one `Counters` backed by a memory-mapped file of its own, so nobody locks; readers may
see a value a moment late, never a torn one (aligned 8-byte stores).

Histograms lie in the same array: a sum, and one cell per power of two, found by the bit length of a whole
number of units, so that an observation is two additions.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farebox._meter import Tally
from farebox.base.errors import Refusal

_BIT_LENGTHS = 65
"""Of values that fit into 8 bytes, 0 included."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cells of doubling width: the first ends at `2**first_bit` units, the last has no end."""

    name: str
    units_per_s: int
    first_bit: int
    last_bit: int

    def cell_names(self) -> list[str]:
        """The cells' names, narrowest first."""
        return [f"{self.name}_below_2_{bit}_total" for bit in range(self.first_bit, self.last_bit)] + [
            f"{self.name}_rest_total"
        ]

    @property
    def sum_name(self) -> str:
        """Where the observed units are added up."""
        return f"{self.name}_units_total"

    def upper_bounds_s(self) -> list[float]:
        """Where each cell but the last ends, in seconds."""
        return [2.0**bit / self.units_per_s for bit in range(self.first_bit, self.last_bit)]

    def indexes(self) -> tuple[int, ...]:
        """Bit length of an observation -> index of its cell."""
        cells = [INDEX[name] for name in self.cell_names()]
        return tuple(
            cells[min(max(bits - self.first_bit, 0), len(cells) - 1)] for bits in range(_BIT_LENGTHS)
        )


FIRST_BYTE: Final = Histogram("first_byte", 1000, 3, 18)
"""From a request's arrival to the first byte of its answer."""
ADDED: Final = Histogram("added", 1_000_000, 5, 24)
"""What Farebox itself puts between: hold to request sent, and answer's end to settlement recorded; of one
exchange in 16.
"""
HOLD_WAIT: Final = Histogram("hold_wait", 1_000_000, 7, 23)
"""How long requests waited for money; those that found it leased already are not among them."""
JOURNAL_SYNC: Final = Histogram("journal_sync", 1_000_000, 6, 24)
"""Syncing a journal to disk."""
FLUSH: Final = Histogram("flush", 1_000_000, 9, 24)
"""Booking a batch of a journal's settlements in the store; kept by the writer, in its status."""
HISTOGRAMS: Final = (FIRST_BYTE, ADDED, HOLD_WAIT, JOURNAL_SYNC)

REFUSED: Final = {refusal: f"refused_{refusal.name.lower()}_total" for refusal in Refusal}
"""Why a request was refused -> its counter."""
GAUGES: Final = frozenset((
    "exchanges_open",
    "holds_pico",
    "memory_step",
    "oldest_open_ms",
    "upstream_connections_open",
))  # fmt: skip
"""What says how it is now; everything else only rises."""

NAMES: Final = (
    "exchanges_total",
    "exchanges_streamed_total",
    *REFUSED.values(),
    "upstream_errors_total",
    "client_gone_total",
    "settled_exact_total",
    "settled_partial_total",
    "settled_estimated_total",
    "quarantined_total",
    "voided_total",
    "charged_pico_total",
    "tokens_input_total",
    "tokens_cache_read_total",
    "tokens_cache_write_total",
    "tokens_output_total",
    "chunks_total",
    "bytes_down_total",
    "bytes_up_total",
    "journal_bytes_total",
    "journal_writes_total",
    "journal_syncs_total",
    "lease_grants_total",
    "lease_returns_total",
    "lease_fences_total",
    "lease_waits_total",
    "sent_elsewhere_total",
    "cut_for_memory_total",
    "progress_dropped_total",
    "latency_ms_total",
    *(name for histogram in HISTOGRAMS for name in (histogram.sum_name, *histogram.cell_names())),
    *sorted(GAUGES),
    "charged_micro_total",  # last: a process of the release before finds the others in their places
)
INDEX: Final = {name: index for index, name in enumerate(NAMES)}
TOKENS: Final = {
    "input": INDEX["tokens_input_total"],
    "cache_read": INDEX["tokens_cache_read_total"],
    "cache_write_5m": INDEX["tokens_cache_write_total"],
    "cache_write_1h": INDEX["tokens_cache_write_total"],
    "output": INDEX["tokens_output_total"],
}
"""Kinds of tokens and where they count."""
_CELLS: Final = {histogram: histogram.indexes() for histogram in HISTOGRAMS}
FIRST_BYTE_CELLS: Final = _CELLS[FIRST_BYTE]
ADDED_CELLS: Final = _CELLS[ADDED]
_CHARGED_MICRO = INDEX["charged_micro_total"]
_CHARGED_PICO = INDEX["charged_pico_total"]
_PICO_PER_MICRO: Final = 10**6
_SIZE = 8 * len(NAMES)


def add_charge(values: memoryview, amount_pico: int) -> None:
    """Count a charge in two cells: whole micro-USD, and the pico-USD of all charges beyond those.

    One cell of pico-USD would be full at 9.2 million USD. No cell carries over into the other, so each only
    rises and a reader between the two additions sees a sum that is late, never one that falls.
    """
    micro, pico = divmod(amount_pico, _PICO_PER_MICRO)
    values[_CHARGED_MICRO] += micro
    values[_CHARGED_PICO] += pico


def charged_pico(values: Mapping[str, int]) -> int:
    """All charges counted, in pico-USD."""
    return values["charged_micro_total"] * _PICO_PER_MICRO + values["charged_pico_total"]


def observe(values: memoryview, histogram: Histogram, units: int) -> None:
    """Add an observation, where its cost does not matter; the hot path does the same in place."""
    values[INDEX[histogram.sum_name]] += units
    values[_CELLS[histogram][units.bit_length()]] += 1


class Cells:
    """A histogram of a process that keeps its figures itself."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._cells = [0] * (histogram.last_bit - histogram.first_bit + 1)
        self._units = 0

    def observe(self, seconds: float) -> None:
        """Add an observation."""
        histogram, units = self._histogram, int(seconds * self._histogram.units_per_s)
        self._units += units
        self._cells[min(max(units.bit_length() - histogram.first_bit, 0), len(self._cells) - 1)] += 1

    def status(self) -> dict[str, object]:
        """The sum in units, and the cells, narrowest first."""
        return {"units": self._units, "cells": list(self._cells)}


class Counters:
    """One worker's counters: `values[INDEX["exchanges_total"]] += 1`.

    Plain settlements go into `tally`, and from there into the values whenever `gather` is called.
    """

    __slots__ = ("_map", "tally", "values")

    def __init__(self, path: Path | None = None) -> None:
        """Map `path` (created, zeroed) for others to read; without a path the counters are private."""
        self._map = _shared_map(path) if path is not None else mmap.mmap(-1, _SIZE)
        self.values = memoryview(self._map).cast("q")
        self.tally = Tally()

    def gather(self) -> None:
        """Take over what was tallied."""
        exchanges, latency_ms, amount_pico, counts = self.tally.take()
        values = self.values
        values[INDEX["exchanges_total"]] += exchanges
        values[INDEX["settled_exact_total"]] += exchanges
        values[INDEX["latency_ms_total"]] += latency_ms
        add_charge(values, amount_pico)
        for kind, count in counts.items():
            if kind in TOKENS:
                values[TOKENS[kind]] += count

    def close(self) -> None:
        """Release the mapping."""
        self.gather()
        self.values.release()
        self._map.close()


def _shared_map(path: Path) -> mmap.mmap:
    path.write_bytes(bytes(_SIZE))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), _SIZE)


def retire_counters(path: Path, into: Path) -> None:
    """Add the totals of a worker that is gone to those before it, and remove its file: sums never fall.

    What it had open is open no more.
    """
    totals = read_counters(into) if into.exists() else dict.fromkeys(NAMES, 0)
    for name, value in read_counters(path).items():
        if name not in GAUGES:
            totals[name] += value
    fresh = into.with_suffix(".new")
    fresh.write_bytes(struct.pack(f"{len(NAMES)}q", *totals.values()))
    path.unlink()
    fresh.replace(into)


def read_counters(path: Path) -> dict[str, int]:
    """The counters another process keeps in `path`; zeros for names it does not know yet."""
    data = path.read_bytes()
    values = memoryview(data[: len(data) // 8 * 8]).cast("q")
    return {name: values[index] if index < len(values) else 0 for index, name in enumerate(NAMES)}
