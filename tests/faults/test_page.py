"""Every row of the catalogue of faults has a test or a reason, and docs/FAULTS.md says what there is."""

from faults import page
from faults.exemptions import EXEMPTIONS
from faults.rows import ROWS, SECTIONS


def test_every_row_has_a_test_that_names_it_or_an_explained_exemption() -> None:
    assert page.missing(page.tests_by_row()) == []
    assert set(EXEMPTIONS) <= set(ROWS)
    assert all(len(reason) > 40 for reason in EXEMPTIONS.values())


def test_the_catalogue_is_whole() -> None:
    counts = {prefix: sum(row.startswith(prefix) for row in ROWS) for prefix in SECTIONS}
    assert counts == {"J": 37, "S": 22, "L": 26, "C": 12, "hole": 58}
    assert len(set(ROWS.values())) == len(ROWS)


def test_the_page_is_up_to_date() -> None:
    """`make faults` writes it."""
    assert page.PAGE.read_text(encoding="utf-8") == page.page(page.tests_by_row())
