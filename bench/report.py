"""The page and the README's table of a benchmark result: both are made of the JSON file, never typed.

    python bench/report.py RESULT.json [--html FILE] [--readme] [--reference]

The page is one file with inline drawings and no address of anybody else. `--readme` writes the table between
the README's markers; `--reference` first makes this result the committed one (`results/reference.json`).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import charts
from markdown import between_markers, table_lines
from results import REFERENCE, Cell, Result, Table, read

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- speed table: generated -->", "<!-- end of the speed table -->"

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #667; --line: #ccd; --back: #fff;
  --s0: #8a94a6; --s1: #2f7d5b; --s2: #2b5fb8; --s3: #a0529c; --s4: #b86a1d; --s5: #8f1d2c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #9aa; --line: #445; --back: #15181b;
  --s0: #98a2b3; --s1: #5fbf94; --s2: #76a5f2; --s3: #d08bcb; --s4: #e5a15c; --s5: #ee7b88; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--line); }
td { font-variant-numeric: tabular-nums; } figure { margin: 1.5rem 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--ink); }
.grid { stroke: var(--line); } polyline { fill: none; stroke-width: 2; }
.key { margin-right: 1rem; color: var(--soft); font-size: 13px; }
.key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem; vertical-align: -1px; }
""" + "".join(
    f"rect.s{n} {{ fill: var(--s{n}); }} polyline.s{n} {{ stroke: var(--s{n}); }}"
    f" .key i.s{n} {{ background: var(--s{n}); }}\n"
    for n in range(6)
)
_PERCENTILES = ("p50", "p90", "p99", "p999", "max")
_SHOWN = ("p50", "p90", "p99", "p99.9", "max")


# ---- the README's table ------------------------------------------------------------------------------------


def speed_table(result: Result) -> str:
    """What stands between the README's markers."""
    machine, versions = result.machine, result.versions
    memory_gb = float(machine["memory_bytes"]) / 1e9
    where = f"{machine['processor']}, {machine['cores']} cores, {memory_gb:.0f} GB, Linux {machine['kernel']}"
    lines = [
        f"Measured {result.started[:10]} at commit {versions['commit']}, beside nginx {versions['nginx']}:",
        f"{where}.",
        *(["", "A short look: these figures are no measurement."] if result.quick else []),
    ]
    for table in result.tables[:1]:
        rows = [[row[0], row[1], row[3]] for row in table.rows]
        lines += ["", *table_lines([table.head[0], table.head[1], table.head[3]], rows)]
    head = ["what", "bar", "stretch", "measured", "verdict"]
    bars = [[bar.what, bar.bar, bar.stretch, bar.measured or "-", bar.verdict] for bar in result.bars]
    lines += ["", *table_lines(head, bars)]
    return "\n".join(lines)


def with_table(text: str, result: Result) -> str:
    """A README with its table replaced. Raises ValueError where the markers are missing."""
    return between_markers(text, BEGIN, END, speed_table(result))


# ---- the page ----------------------------------------------------------------------------------------------


def write_page(result: Result, path: Path) -> Path:
    """The page of a result."""
    path.write_text(page(result), encoding="utf-8")
    return path


def page(result: Result) -> str:
    """The whole document."""
    title = f"Farebox benchmark, {result.started[:16].replace('T', ' ')} UTC"
    body = "\n".join(_sections(result, title))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _sections(result: Result, title: str) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    if result.quick:
        yield "<p><strong>A short look: these figures are not to be published.</strong></p>"
    facts = {**result.machine, **result.versions}
    yield _table(
        Table("", ["machine and versions", ""], [[name, str(value)] for name, value in facts.items()])
    )
    if result.bars:
        yield "<h2>Bars</h2>"
        head = ["what", "bar", "stretch", "measured", "verdict", "rounds", "note"]
        rows = [
            [
                bar.what,
                bar.bar,
                bar.stretch,
                bar.measured,
                bar.verdict,
                ", ".join(charts.number_text(value) for value in bar.rounds),
                bar.note,
            ]
            for bar in result.bars
        ]
        yield _table(Table("", head, rows, "Measured: the median of the rounds."))
    yield from (_table(table) for table in result.tables)
    if result.cells:
        yield "<h2>Charts</h2>"
        yield from _cost_charts(result.cells)
        yield from _latency_charts(result.cells)
    for series in result.series:
        steps = [f"{at:,.0f} {series.step}" for at in series.at_s]
        over_time = series.step == "s"
        yield charts.lines(series.title, series.unit, steps, series.lines, logarithmic=not over_time)
    if result.cells:
        yield "<h2>Cells</h2>"
        yield _table(_cell_table(result.cells))
    yield "<h2>Method</h2><ul>" + "".join(f"<li>{escape(line)}</li>" for line in result.method) + "</ul>"
    if result.notes:
        yield "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in result.notes) + "</ul>"


def _subjects(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.subject for cell in cells))[:6]


def _cost_charts(cells: Sequence[Cell]) -> Iterator[str]:
    """CPU an exchange and rates of closed loops, for each load and number at once."""
    closed = [cell for cell in cells if cell.rate_asked_per_s is None and not cell.failed and cell.per_s]
    names = _subjects(closed)
    for title, unit, figure in (
        ("CPU time of an exchange, booking included", "µs", "cpu_us"),
        ("Exchanges a second, as the generator saw them", "/s", "per_s"),
    ):
        by_load: dict[str, dict[str, float | None]] = {}
        for cell in closed:
            store = f" ({cell.store})" if cell.store == "mongodb" else ""
            label = f"{cell.load}, {cell.concurrency} at once{store}"
            by_load.setdefault(label, {})[cell.subject] = getattr(cell, figure)
        for label, found in by_load.items():
            values = [found.get(name) for name in names]
            if any(value is not None for value in values):
                yield charts.bars(f"{title}: {label}", unit, {"": values}, names)


def _latency_charts(cells: Sequence[Cell]) -> Iterator[str]:
    """Time to the first byte of open loops, the first round of each subject."""
    by_load: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        if cell.rate_asked_per_s and cell.first_byte_ms and not cell.failed:
            label = f"{cell.load}, {cell.rate_asked_per_s:,.0f} arrivals a second"
            times = [getattr(cell.first_byte_ms, name) for name in _PERCENTILES]
            by_load.setdefault(label, {}).setdefault(cell.subject, times)
    for label, found in by_load.items():
        yield charts.lines(f"Time to first byte: {label}", "ms", _SHOWN, found, logarithmic=True)


def _cell_table(cells: Sequence[Cell]) -> Table:
    head = ["subject", "load", "at once", "asked /s", "store", "exchanges", "/s", "core busy", "CPU µs"]
    head += [
        "CPU µs a chunk",
        "MB",
        "first byte ms: p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "whole ms: p50",
        "p99",
    ]
    head += ["late p99", "books", "failed"]
    rows = []
    for cell in cells:
        first = asdict(cell.first_byte_ms) if cell.first_byte_ms else {}
        whole = cell.whole_ms
        rows.append(
            [
                cell.subject,
                cell.load,
                str(cell.concurrency),
                _text(cell.rate_asked_per_s, ",.0f"),
                cell.store,
                f"{cell.exchanges:,}",
                _text(cell.per_s, ",.0f"),
                _text(cell.busy, ".0%"),
                _text(cell.cpu_us, ",.1f"),
                _text(cell.chunk_cpu_us, ".2f"),
                _text(cell.rss_bytes / 1e6 if cell.rss_bytes else None, ",.0f"),
                *(_text(first.get(name), ".3f") for name in _PERCENTILES),
                _text(whole.p50 if whole else None, ".3f"),
                _text(whole.p99 if whole else None, ".3f"),
                _text(cell.late_ms.p99 if cell.late_ms else None, ".3f"),
                cell.books,
                cell.failed,
            ]
        )
    return Table("", head, rows)


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _table(table: Table) -> str:
    title = f"<h2>{escape(table.title)}</h2>" if table.title else ""
    head = "".join(f"<th>{escape(word)}</th>" for word in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(word)}</td>" for word in row) + "</tr>" for row in table.rows
    )
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return f'{title}<div class="wide"><table><tr>{head}</tr>{rows}</table></div>{note}'


def as_text(table: Table) -> str:
    """The same for a terminal."""
    rows = [table.head, *table.rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(table.head))]
    lines = (
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return "\n".join(["", table.title, *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description="Page and README table of a benchmark result.")
    parser.add_argument("result", type=Path, nargs="?", default=REFERENCE)
    parser.add_argument("--html", type=Path, help="the page; default: beside the result")
    parser.add_argument("--readme", action="store_true", help="write the README's table")
    parser.add_argument("--reference", action="store_true", help="make this the committed result first")
    options = parser.parse_args()
    result = read(options.result)
    if options.reference:
        if result.quick or result.kind != "bench":
            sys.exit("report: only a whole `make bench` can be the reference")
        result.write(REFERENCE)
    if options.readme:
        README.write_text(with_table(README.read_text(encoding="utf-8"), read(REFERENCE)), encoding="utf-8")
        print(f"{README}: table of {REFERENCE}")
    print(write_page(result, options.html or options.result.with_suffix(".html")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
