"""Promise: whatever a file holds, loading gives settings or ConfigError, and prices keep every digit."""

import copy
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from config.documents import document, model, write
from farebox.config import ConfigError, Problem, load

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)

FULL = document(
    store={"url": "sqlite:///a"},
    console={"port": 1},
    limits={"body_bytes": 1},
    models=[model(per_call={"image": "1"}, context_tiers=[{"above": 1}], service_tiers={"flex": {}})],
)


def problems_of(file: Path) -> tuple[Problem, ...]:
    """What is wrong with a file; a refusal that names nothing counts as a problem without a message."""
    try:
        load([file])
    except ConfigError as error:
        return error.problems or (Problem(file, "", ""),)
    return ()


def places(value: object) -> list[tuple[Any, ...]]:
    """Every path into a document."""
    if isinstance(value, dict):
        return [(key, *rest) for key, inner in value.items() for rest in [(), *places(inner)]]
    if isinstance(value, list):
        return [(index, *rest) for index, inner in enumerate(value) for rest in [(), *places(inner)]]
    return []


@pytest.mark.fuzz
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(places(FULL)), value=JSON_VALUES)
def test_O09_any_value_anywhere_is_settings_or_a_config_error(
    tmp_path: Path, place: tuple[Any, ...], value: object
) -> None:
    changed: Any = copy.deepcopy(FULL)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    file = write(tmp_path, "config.json", changed)
    assert all(problem.file == file and problem.message for problem in problems_of(file))


@pytest.mark.fuzz
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    price=st.decimals(min_value="0.000000000000001", max_value="999999999999", places=15),
    as_text=st.booleans(),
)
@example(price=Decimal("0.1"), as_text=False)
@example(price=Decimal("123456789012.123456789012345"), as_text=False)
def test_prices_survive_any_number_of_digits(tmp_path: Path, price: Decimal, as_text: bool) -> None:
    text = json.dumps(document(models=[model(input_price_per_mtok="PRICE")]))
    literal = format(price, "f")
    file = tmp_path / "config.json"
    file.write_text(text.replace('"PRICE"', f'"{literal}"' if as_text else literal))
    row = load([file]).services[0].models.get("sonnet")
    assert row is not None
    assert Decimal(row.price["lines"]["input"]) == price


@pytest.mark.parametrize("depth", [1, 10_000])
def test_comments_may_hold_anything(tmp_path: Path, depth: int) -> None:
    file = tmp_path / "config.json"
    text = json.dumps(document())
    file.write_text('{"_comment": ' + "[" * depth + "]" * depth + "," + text[1:])
    assert all("not usable JSON" in problem.message for problem in problems_of(file))
