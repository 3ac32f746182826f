"""docs/FAULTS.md from the catalogue of faults, the names of the tests and the results of a run.

    python tests/faults/page.py RESULTS.xml     (`make faults`; pytest's JUnit file)

The page is written only when every row has a test that passed, or an explained exemption. It holds names and
no times, so that it changes with the tests alone; `test_page.py` compares it with what there is.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from faults.exemptions import EXEMPTIONS
from faults.rows import ROWS, SECTIONS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "FAULTS.md"
_TEST = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
_ROW = re.compile(r"(?<![A-Za-z0-9])(hole_\d\d|[JSLC]\d\d)(?![0-9])")

Tests = Mapping[str, Mapping[str, list[str]]]
"""Row -> file, relative to tests/ -> names of its tests."""


def tests_by_row() -> Tests:
    """Every test that names a row. Names of rows there are none of are an error."""
    found: dict[str, dict[str, list[str]]] = {row: {} for row in ROWS}
    for file in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        for name in _TEST.findall(file.read_text(encoding="utf-8")):
            for row in sorted(set(_ROW.findall(name.replace("_", " ").replace("hole ", "hole_")))):
                if row not in found:
                    raise SystemExit(f"{file}: {name} names row {row}, which is not in rows.py")
                found[row].setdefault(file.relative_to(REPOSITORY / "tests").as_posix(), []).append(name)
    return found


def missing(tests: Tests) -> list[str]:
    """Rows with neither test nor exemption, and exemptions of rows that have tests."""
    without = [row for row in ROWS if not tests[row] and row not in EXEMPTIONS]
    return without + [f"{row} is exempt and tested" for row in EXEMPTIONS if tests.get(row)]


def page(tests: Tests) -> str:
    """The document."""
    return "\n".join(_lines(tests)) + "\n"


def _lines(tests: Tests) -> Iterator[str]:
    exempt = [row for row in ROWS if not tests[row]]
    yield "# Faults, and the tests that show what they cost"
    yield ""
    yield "Written by `make faults` from the names and results of tests; do not edit. Each test passed when"
    yield "the page was written, and says what must hold."
    yield ""
    yield f"{len(ROWS)} rows: {len(ROWS) - len(exempt)} tested, {len(exempt)} exempt with a reason."
    for prefix, title in SECTIONS.items():
        yield from ("", f"## {title}", "", "| row | fault | tests |", "|---|---|---|")
        for row, words in ROWS.items():
            if row.startswith(prefix):
                shown = row.replace("hole_", "hole ")
                yield f"| {shown} | {words} | {_cell(tests[row], row)} |"


def _cell(files: Mapping[str, list[str]], row: str) -> str:
    if not files:
        return f"exempt: {EXEMPTIONS[row]}"
    return "<br>".join(
        f"{file}: " + ", ".join(f"`{name.removeprefix('test_')}`" for name in dict.fromkeys(names))
        for file, names in files.items()
    )


def not_passed(tests: Tests, results: Path) -> list[str]:
    """Tests of the page that a run did not pass, in all their parameters."""
    verdicts: dict[str, bool] = {}
    for case in ET.parse(results).iter("testcase"):
        name = str(case.get("name")).partition("[")[0]
        passed = all(child.tag not in {"failure", "error", "skipped"} for child in case)
        verdicts[name] = passed and verdicts.get(name, True)
    named = {name for files in tests.values() for names in files.values() for name in names}
    return sorted(name for name in named if not verdicts.get(name, False))


def main(results: Path) -> int:
    """Write the page, or say what is in the way."""
    tests = tests_by_row()
    problems = [f"no test and no exemption: {row}" for row in missing(tests)]
    problems += [f"did not pass: {name}" for name in not_passed(tests, results)]
    if problems:
        sys.stdout.write("\n".join([*problems, "docs/FAULTS.md stays as it was\n"]))
        return 1
    PAGE.write_text(page(tests), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {len(ROWS)} rows\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
