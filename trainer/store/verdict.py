"""What the gate says, as it is written down: its rows, and the comparison of one of them."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.artifacts.files import Record


class Criterion(Record):
    """One row of the gate, in words."""

    name: str
    wanted: str
    found: str
    passed: bool


def criterion(name: str, wanted: str, found: str, passed: bool) -> Criterion:
    """Return a row."""
    return Criterion(name=name, wanted=wanted, found=found, passed=passed)


class Comparison(Record):
    """Two adapters on the same messages; ``p_value`` is two-sided (McNemar's exact test).
    ``design_effect`` of the messages count as one, for those that belong together."""

    current_digest: str
    holdout_sha256: str
    messages: int
    only_new_right: int
    only_current_right: int
    design_effect: float = 1.0
    p_value: float

    @property
    def is_worse(self) -> bool:
        """Whether fewer messages are right than with the current adapter."""
        return self.only_new_right < self.only_current_right


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Every criterion's row; ``comparison`` is None where there was none to make, and
    ``incomparable`` says why when an adapter is current and cannot be compared with."""

    criteria: tuple[Criterion, ...]
    comparison: Comparison | None
    incomparable: str | None

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(row.passed for row in self.criteria)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the criteria that are not met."""
        return tuple(row.name for row in self.criteria if not row.passed)
