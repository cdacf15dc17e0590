"""The gate's rules (``gate.toml``) and the form of its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as validated

from trainer.artifacts.files import Record, read_toml
from trainer.errors import BadInput
from trainer.statistics.figures import Figures
from worker.common.settings import split_assignment, toml_value
from worker.contract.taxonomy import label_name

# TOML has no null, and its lists are not tuples.
_OFF = BeforeValidator(lambda value: None if value is False else value)
_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
_LABELS = AfterValidator(lambda value: tuple(map(label_name, value)))

_Share = Annotated[float, Field(ge=0, le=1)]
_Margin = Annotated[float, Field(gt=0, le=0.5)]


# Strict: true is a number to Python, and "0.9" one to pydantic.
@validated(frozen=True, slots=True, config=ConfigDict(strict=True, extra="forbid"))
class GateRules:
    """Floors and ceilings; all shares are 0 to 1. ``config/gate.toml`` explains each and has the
    same values. None (``false`` in a file) is not judged."""

    accuracy: _Share = 0.9
    accuracy_by: Literal["lower", "point"] = "lower"
    macro_f1: _Share = 0.88
    label_recall: _Share = 0.6
    label_recall_by: Literal["lower", "point"] = "lower"
    label_unproven: Annotated[tuple[str, ...], _LIST, _LABELS] = ()
    ece: _Share = 0.05
    unconstrained_share: Annotated[_Share | None, _OFF] = None
    non_inferiority_margin: _Margin = 0.02
    unreviewed_margin: _Margin = 0.05
    unseen_margin: _Margin = 0.02
    steering: Annotated[_Margin | None, _OFF] = 0.02
    steering_unreviewed: Annotated[_Share | None, _OFF] = 0.005


def load_rules(file: Path | None, sets: Sequence[str] = ()) -> GateRules:
    """Read rules from a TOML file; ``sets`` are ``key=value`` and override it.

    Raises BadInput for unknown keys, wrong types and values out of range, with their origin.
    """
    given: dict[str, Any] = read_toml(file, "name a file such as config/gate.toml") if file else {}
    origins = dict.fromkeys(given, str(file))
    for flag in sets:
        key, text = split_assignment(flag, "--set", error=BadInput)
        given[key], origins[key] = toml_value(text), "--set"
    try:
        return GateRules(**given)
    except ValidationError as error:
        raise BadInput(*(_describe(each, origins) for each in error.errors())) from None


def _describe(problem: Any, origins: dict[str, str]) -> str:
    key = problem["loc"][0]
    if problem["type"] == "unexpected_keyword_argument":
        known = ", ".join(rule.name for rule in fields(GateRules))
        return f"{origins[key]}: the gate has no rule {key!r}; it has {known}"
    return f"{origins[key]}: {key} is {problem['input']!r}: {problem['msg']}"


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


class Pairs(Record):
    """For how many of the compared messages only one of two adapters does well, as in
    ``Discordance``."""

    only_new: int
    only_current: int
    design_effect: float


class Filing(Record):
    """How many of the compared messages an adapter files without review, how many of these are
    wrong, and the precision that it promises for them (0.0: none)."""

    filed: int
    wrong: int
    promise: float


class Comparison(Record):
    """Two adapters on the same messages: the new one, and the current one or the series' anchor.

    ``p_value`` is two-sided (McNemar's exact test), ``design_effect`` is the number of grouped
    messages that count as one independent message; both are of the right answers. ``unreviewed``
    counts answers that are right and not reviewed. ``unseen`` counts those that are not wrong
    without review, if both adapters file as many as the other one (``not_wrong_unseen``); None if
    that is none or all. ``turn``: so many adapters were tried on this hold-out since the current
    one was judged, this one included; None for the anchor, whose test is not repeated by choice.
    ``labels``: for how many of a label's messages each gives it, the new one first.
    Records of earlier versions have none of these.
    """

    current_digest: str
    holdout_sha256: str
    messages: int
    only_new_right: int
    only_current_right: int
    design_effect: float = 1.0
    p_value: float
    unreviewed: Pairs | None = None
    unseen: Pairs | None = None
    new: Filing | None = None
    current: Filing | None = None
    turn: int | None = None
    labels: Mapping[str, tuple[int, int]] = Field(default_factory=dict)

    @property
    def same_promise(self) -> bool:
        """Whether both promise the same precision."""
        return not (self.new and self.current) or self.new.promise == self.current.promise


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Every criterion's row. ``comparison`` is with the current adapter, None if there was none;
    ``incomparable`` is the reason if an adapter is current and cannot be compared. ``anchor`` is
    the comparison with the series' anchor, None if that is the current one. ``settled`` are the
    figures after review that the floors were judged by."""

    criteria: tuple[Criterion, ...]
    comparison: Comparison | None
    incomparable: str | None
    anchor: Comparison | None = None
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
