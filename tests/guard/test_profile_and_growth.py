"""Promise: the flame graph shows every share as it was sampled and nothing a viewer could run; the growth
charts call flat only what is, and measure what their steps say.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
FOLDED = "main;serve;read 6\nmain;serve;write <b> 3\nmain 1\nno number here\n"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> object:
    """A function that imports a script of bench/ as scripts there import each other."""
    monkeypatch.syspath_prepend(str(BENCH))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def test_a_flame_graph_gives_every_function_its_share(script: object) -> None:
    flame = script("flame")  # type: ignore[operator]
    root = flame.tree(FOLDED)
    document = ET.fromstring(flame.draw(root, "worker & writer"))
    space = "{http://www.w3.org/2000/svg}"
    widths = {}
    for group in document.iter(f"{space}g"):
        name = group.findtext(f"{space}title", "").partition(":")[0]
        widths[name] = float(group.find(f"{space}rect").get("width")) + 0.5  # type: ignore[union-attr,arg-type]
    assert widths == {"all": 1600, "main": 1600, "serve": 1440, "read": 960, "write <b>": 480}
    assert not list(document.iter(f"{space}script"))


def test_an_empty_profile_is_drawn_too(script: object) -> None:
    flame = script("flame")  # type: ignore[operator]
    ET.fromstring(flame.draw(flame.tree(""), "nothing"))


SYMBOLS = {
    "CPyDef_exchange___Exchange___settle": "exchange.Exchange.settle",
    "CPyPy_exchange___Exchange____judge": "exchange.Exchange._judge",
    "CPyDef_relay____UntilBetweenEvents___on_data.part.0": "relay._UntilBetweenEvents.on_data",
    "CPyDef_relay___Relay_____init__ (path.so)": "relay.Relay.__init__ (path.so)",
    "CPyDef_service____ask_Handler_gen_____mypyc_generator_helper__": "service.Handler._ask",
    "CPyDef_settle____append_again_gen_____next__": "settle._append_again",
    "CPyDef_exchange_____mypyc_lambda__0__complete_Exchange_obj_____call__": (
        "exchange.Exchange._complete.<lambda>"
    ),
    "PyObject_Vectorcall": "PyObject_Vectorcall",
}


@pytest.mark.parametrize(("symbol", "name"), SYMBOLS.items())
def test_compiled_functions_are_told_by_their_python_names(script: object, symbol: str, name: str) -> None:
    assert script("compiled_names").legible(symbol) == name  # type: ignore[operator]


def test_a_compiled_function_and_its_entry_are_one_frame_and_recursion_stays(
    script: object,
) -> None:
    names = script("compiled_names")  # type: ignore[operator]
    stacks = "main;CPyPy_relay___Relay___feed;CPyDef_relay___Relay___feed;send 3\nmain;main 1"
    assert names.one_frame_each(stacks) == "main;relay.Relay.feed;send 3\nmain;main 1"


def test_instructions_are_told_by_function_and_without_symbols_by_object(script: object) -> None:
    hot_path = script("hot_path")  # type: ignore[operator]
    functions = {
        ("path.so", "CPyDef_relay___Relay___feed"): 60,
        ("meter.so", "0x00001000"): 20,
        ("meter.so", "0x00002000"): 20,
    }
    rows = hot_path.by_function("a part", functions, 2, 9).rows
    assert rows == [["30", "60.0%", "relay.Relay.feed"], ["20", "40.0%", "meter.so"]]


def test_growth_is_called_flat_only_where_it_is(script: object) -> None:
    growth = script("growth")  # type: ignore[operator]
    found = growth.Growth("streams", (1, 100))
    found.figures = {
        ("steady", "instructions"): [100.0, 124.0],
        ("rising", "instructions"): [100.0, 130.0],
        ("kept", "bytes"): [1.0, 900.0],
    }
    assert [row[-1] for row in growth.table_of(found).rows] == ["flat", "grows: 1.3 x", ""]
    assert [series.step for series in growth.charts_of(found)] == ["open streams", "open streams"]


def test_a_result_of_one_kind_replaces_that_kind_alone(script: object) -> None:
    growth = script("growth")  # type: ignore[operator]

    def result_of(figures: dict[str, float]) -> object:
        result = growth.Result("growth")
        for kind, figure in figures.items():
            found = growth.Growth(kind, (1, 2))
            found.figures = {("a line", "instructions"): [figure, figure]}
            result.tables.append(growth.table_of(found))
            result.series += growth.charts_of(found)
        return result

    both = growth.merged(result_of({"keys": 1.0, "rows": 2.0}), result_of({"rows": 3.0}))
    assert [table.rows[0][2] for table in both.tables] == ["1", "3"]
    assert [series.lines for series in both.series] == [{"a line": [3.0, 3.0]}, {"a line": [1.0, 1.0]}]


def test_the_documents_tables_of_growth_are_those_of_the_committed_result(script: object) -> None:
    growth = script("growth")  # type: ignore[operator]
    page = growth.DOCUMENT.read_text(encoding="utf-8")
    made = growth.markdown(growth.results.read(growth.REFERENCE))
    assert growth.between_markers(page, growth.BEGIN, growth.END, made) == page


def test_sizes_are_read_from_arguments_and_others_refused(script: object) -> None:
    growth = script("growth")  # type: ignore[operator]
    assert growth.sizes_of(["rows=1,20", "keys=3"]) == {"rows": (1, 20), "keys": (3,)}
    for wrong in ("cats=1", "rows", "rows="):
        with pytest.raises(SystemExit, match="KIND=N"):
            growth.sizes_of([wrong])


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("streams", {"memory of an open stream", "a chunk", "a second of a silent stream"}),
        ("models", {"memory of a model", "an exchange", "reading the configuration, each model"}),
    ],
)
def test_a_step_of_growth_measures_its_lines(kind: str, lines: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "growth_parts.py", kind, "3"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told) == lines
    assert all(figures["each"] > 0 for figures in told.values())
