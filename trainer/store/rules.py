"""The gate's rules (``gate.toml``) and the form of its verdict."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from trainer.artifacts.files import Record, read_toml
from trainer.errors import BadInput
from trainer.statistics.figures import Figures
from worker.common.settings import split_assignment, toml_value
from worker.contract.taxonomy import label_name

_LARGEST_MARGIN = 0.5


@dataclass(frozen=True, slots=True)
class GateRules:
    """Floors and ceilings; all shares are 0 to 1. ``config/gate.toml`` explains each and has the
    same values. None (``false`` in a file) is not judged."""

    accuracy: float = 0.9
    accuracy_by: Literal["lower", "point"] = "lower"
    macro_f1: float = 0.88
    label_recall: float = 0.6
    label_recall_by: Literal["lower", "point"] = "lower"
    label_unproven: tuple[str, ...] = ()
    ece: float = 0.05
    unconstrained_share: float | None = None
    non_inferiority_margin: float = 0.02
    steering: float | None = 0.02
    steering_unreviewed: float | None = 0.005

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, float) and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must be from 0 to 1")
        for name in ("non_inferiority_margin", "steering"):
            margin = getattr(self, name)
            if margin is not None and not 0 < margin <= _LARGEST_MARGIN:
                raise ValueError(
                    f"{name} is {margin}; it must be above 0 and at most {_LARGEST_MARGIN} (0.02 "
                    "is two points)"
                )


def load_rules(file: Path | None, sets: Sequence[str] = ()) -> GateRules:
    """Read rules from a TOML file; ``sets`` are ``key=value`` and override it.

    Raises BadInput for unknown keys, wrong types and values out of range, with their origin.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    from_file = read_toml(file, "name a file such as config/gate.toml") if file else {}
    for origin, source in ((str(file), from_file), ("--set", _from_flags(sets))):
        for key, value in source.items():
            values[key] = _checked(key, value, origin)
            origins[key] = origin
    try:
        return GateRules(**values)
    except ValueError as error:
        key = str(error).partition(" ")[0]
        raise BadInput(f"{origins.get(key, 'gate')}: {error}") from error


def _from_flags(sets: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for flag in sets:
        key, text = split_assignment(flag, "--set", error=BadInput)
        values[key] = toml_value(text)
    return values


def _checked(key: str, value: Any, origin: str) -> Any:
    kinds = typing.get_type_hints(GateRules)
    if key not in kinds:
        known = ", ".join(rule.name for rule in fields(GateRules))
        raise BadInput(f"{origin}: the gate has no rule {key!r}; it has {known}")
    kind = kinds[key]
    if typing.get_origin(kind) is Literal:
        if value in typing.get_args(kind):
            return value
        raise BadInput(f"{origin}: {key} is {value!r}; use one of {list(typing.get_args(kind))}")
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(map(label_name, value))
        raise BadInput(f'{origin}: {key} is {value!r}; it must be a list, such as ["legal"]')
    optional = isinstance(kind, types.UnionType)
    # TOML has no null.
    if optional and value is False:
        return None
    # bool is a subclass of int.
    if isinstance(value, bool) or not isinstance(value, int | float):
        wanted = "a number, or false" if optional else "a number"
        raise BadInput(f"{origin}: {key} is {value!r}; it must be {wanted}")
    assert kind is float or optional
    return float(value)


class Criterion(Record):
    """One row of the gate, as text. ``undecided``: it does not pass because too few messages show
    anything, and ``found`` says how many would."""

    name: str
    wanted: str
    found: str
    passed: bool
    undecided: bool = False

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return "pass" if self.passed else "TOO FEW" if self.undecided else "FAIL"


def criterion(
    name: str, wanted: str, found: str, passed: bool, *, undecided: bool = False
) -> Criterion:
    """Return a row."""
    return Criterion(
        name=name, wanted=wanted, found=found, passed=passed, undecided=undecided and not passed
    )


class Comparison(Record):
    """Two adapters on the same messages; ``p_value`` is two-sided (McNemar's exact test).
    ``design_effect`` is the number of grouped messages that count as one independent message."""

    current_digest: str
    holdout_sha256: str
    messages: int
    only_new_right: int
    only_current_right: int
    design_effect: float = 1.0
    p_value: float

    @property
    def is_worse(self) -> bool:
        """Whether fewer answers are right than the current adapter's."""
        return self.only_new_right < self.only_current_right


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Every criterion's row. ``comparison`` is None if there was none; ``incomparable`` is the
    reason if an adapter is current and cannot be compared. ``settled`` are the figures after review
    that the floors were judged by."""

    criteria: tuple[Criterion, ...]
    comparison: Comparison | None
    incomparable: str | None
    settled: Figures | None = None

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(row.passed for row in self.criteria)

    @property
    def undecided(self) -> bool:
        """Whether it does not pass only because there are too few messages to decide."""
        return not self.passed and all(row.passed or row.undecided for row in self.criteria)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the criteria that are not met."""
        return tuple(row.name for row in self.criteria if not row.passed)
