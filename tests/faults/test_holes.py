"""Each of the 58 holes in the money protocol has a test that bears its number, or a reason why not."""

import re
from collections import Counter
from pathlib import Path

from faults.exemptions import EXEMPTIONS

HOLES = [f"hole_{number:02}" for number in range(1, 59)]


def test_every_hole_has_a_test_of_its_number_or_an_explained_exemption() -> None:
    tests = Path(__file__).parents[1]
    names = Counter(
        hole
        for file in tests.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        for hole in re.findall(r"hole_\d\d", name)
    )
    assert set(names) <= set(HOLES)
    exempt = {row for row in EXEMPTIONS if row.startswith("hole_")}
    assert set(HOLES) - set(names) == exempt
    assert all(len(EXEMPTIONS[row]) > 40 for row in exempt)
