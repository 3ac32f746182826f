"""Where files differ that sell the same models from the same upstream: a lint for slips.

Two services of one operator differ in name, port and folder of sockets, and per model in type, wallet and
multiplier; anything else (a price, an address, a limit, a model) is most likely a slip.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farebox.config.load import read

MAY_DIFFER = frozenset(
    (
        "name",
        "port",
        "worker_sockets",
        "models[].type",
        "models[].billing_upstream",
        "models[].billing_multiplier",
    )
)
"""Keys whose values are each service's own."""

_IDENTITIES = {"models": "id", "endpoints": "name"}
"""Lists whose entries are told apart by a key, wherever they stand."""

_ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One key with other values in two files; `entry` is the model or endpoint it belongs to, if any."""

    entry: str
    key: str
    values: tuple[object, object]

    @property
    def expected(self) -> bool:
        """Whether services may differ here."""
        return self.key in MAY_DIFFER


def differences(first: Path, second: Path) -> list[Difference]:
    """Every difference, defaults filled in and comments left out. Raises ConfigError for faulty files."""
    return list(_compared(*(read(path).model_dump(by_alias=True) for path in (first, second))))


def _compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    for key in first:
        if key not in _IDENTITIES:
            yield from _differing("", key, first[key], second[key])
            continue
        entries = [{each[_IDENTITIES[key]]: each for each in values[key]} for values in (first, second)]
        for name in dict.fromkeys((*entries[0], *entries[1])):
            left, right = (each.get(name) for each in entries)
            if left is None or right is None:
                there = tuple(_ABSENT if each is None else "present" for each in (left, right))
                yield Difference(name, f"{key}[]", (there[0], there[1]))
                continue
            for member in left:
                yield from _differing(name, f"{key}[].{member}", left[member], right[member])


def _differing(entry: str, key: str, left: object, right: object) -> Iterator[Difference]:
    if left != right:
        yield Difference(entry, key, (left, right))
