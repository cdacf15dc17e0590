"""Any JSON as rows of a table: for records whose every field is worth showing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.report import numbers

_MOST_VALUES = 12


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, written value) of every leaf. A list of plain values is one leaf, of
    objects only counted: such a list is data, and the file that holds it is named on the page."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, _listed(value)
    else:
        yield name, written(value)


def written(value: Any) -> str:
    """Return a plain JSON value as people write it."""
    if value is None or isinstance(value, bool):
        return {None: numbers.NONE, True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return str(value) if abs(value) < 10_000 else numbers.count(value)
    if isinstance(value, list | tuple):
        return _listed(value)
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return numbers.count(value)
        return numbers.significant(value, 4)
    return str(value)


def _listed(values: list[Any] | tuple[Any, ...]) -> str:
    if not values:
        return "none"
    if any(isinstance(one, Mapping | list | tuple) for one in values):
        return numbers.counted(len(values), "entry", "entries")
    shown = ", ".join(written(one) for one in values[:_MOST_VALUES])
    rest = len(values) - _MOST_VALUES
    return f"{shown} and {rest} more" if rest > 0 else shown
