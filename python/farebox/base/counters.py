"""Counters for the hot path: plain integers in shared memory, summed by whoever serves /metrics.

A bound counter of the metrics library costs a microsecond an increment; adding to an array element costs a
tenth. Each worker owns one `Counters` backed by a memory-mapped file of its own, so nobody locks; readers may
see a value a moment late, never a torn one (aligned 8-byte stores).
"""

import mmap
import struct
from pathlib import Path
from typing import Final

from farebox._meter import Tally

NAMES: Final = (
    "exchanges_total",
    "exchanges_streamed_total",
    "refused_401_total",
    "refused_402_total",
    "refused_404_total",
    "refused_429_total",
    "refused_other_total",
    "upstream_errors_total",
    "client_gone_total",
    "settled_exact_total",
    "settled_partial_total",
    "settled_estimated_total",
    "quarantined_total",
    "voided_total",
    "charged_pico_total",
    "written_off_pico_total",
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
    "exchanges_open",
    "upstream_connections_open",
    "memory_step",
    "latency_ms_total",
    "first_byte_ms_total",
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
_CHARGED = INDEX["charged_pico_total"]
_SIZE = 8 * len(NAMES)
_VALUE_MASK = (1 << 63) - 1


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
        exchanges, latency_ms, charged_pico, counts = self.tally.take()
        values = self.values
        values[INDEX["exchanges_total"]] += exchanges
        values[INDEX["settled_exact_total"]] += exchanges
        values[INDEX["latency_ms_total"]] += latency_ms
        values[_CHARGED] = (values[_CHARGED] + charged_pico) & _VALUE_MASK
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
        if name.endswith("_total"):
            totals[name] = (totals[name] + value) & _VALUE_MASK
    fresh = into.with_suffix(".new")
    fresh.write_bytes(struct.pack(f"{len(NAMES)}q", *totals.values()))
    path.unlink()
    fresh.replace(into)


def read_counters(path: Path) -> dict[str, int]:
    """The counters another process keeps in `path`; zeros for names it does not know yet."""
    data = path.read_bytes()
    values = memoryview(data[: len(data) // 8 * 8]).cast("q")
    return {name: values[index] if index < len(values) else 0 for index, name in enumerate(NAMES)}
