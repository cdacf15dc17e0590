"""Arms: the adapters in service, each in a role and with its share of the traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.core.serving_adapter import ServingAdapter
from worker.core.share import place_of
from worker.records.types import Record

Role = Literal["main", "canary", "shadow"]


@dataclass(frozen=True, slots=True)
class ArmRole:
    """What an arm is there for, whichever adapter is in it.

    ``labels``: what its adapter answers is the record's label; without it the adapter labels the
    record as well, for comparison, and nobody acts on it. ``judged``: while it serves it is
    compared with its fallback, and stopped if it does worse. ``fallback``: the role that does its
    records when the arm ends or its engine dies; with None nothing can, and the worker ends.
    """

    name: Role
    labels: bool = True
    judged: bool = False
    fallback: Role | None = None


MAIN = ArmRole("main")
CANARY = ArmRole("canary", judged=True, fallback="main")
SHADOW = ArmRole("shadow", labels=False, fallback="main")

ARM_ROLES = (MAIN, CANARY, SHADOW)
"""All there are, in the order in which they are asked for a record; only the first has no fallback.

A further arm is one more entry here, and a source that names its adapter (``worker.serving``).
"""


@dataclass(frozen=True, slots=True)
class Arm:
    """An adapter in a role, and the share of the records (0 to 1) that it takes.

    An arm that labels takes its share of what no arm before it takes; one that does not, of all.
    """

    role: ArmRole
    adapter: ServingAdapter
    share: float = 1.0

    def takes(self, record: Record) -> bool:
        """Tell whether the record is in this arm's share: the same key always is, or never."""
        if not self.share:
            return False
        return place_of(record, f"{self.role.name} {self.adapter.digest}") < self.share


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """The arms that serve, in the order of ``ARM_ROLES`` and no role twice.

    The first arm is always there and has no fallback: it labels what no other arm takes.
    """

    arms: tuple[Arm, ...]

    @classmethod
    def all_to(cls, adapter: ServingAdapter) -> TrafficSplit:
        """Return the split in which one adapter labels everything."""
        return cls((Arm(MAIN, adapter),))

    @property
    def main(self) -> ServingAdapter:
        """The adapter that labels what no other arm takes."""
        return self.arms[0].adapter

    @property
    def adapters(self) -> tuple[ServingAdapter, ...]:
        """The adapters of all arms, the main one first."""
        return tuple(arm.adapter for arm in self.arms)

    @property
    def ratios(self) -> tuple[float, ...]:
        """What each arm really takes of all records: those of arms that label add up to 1."""
        left, ratios = 1.0, []
        for arm in self.arms[1:]:
            ratios.append(left * arm.share if arm.role.labels else arm.share)
            left -= ratios[-1] if arm.role.labels else 0.0
        return (left, *ratios)

    def get(self, role: ArmRole) -> Arm | None:
        """Return the arm in this role, None where there is none."""
        return next((arm for arm in self.arms if arm.role is role), None)

    def arm_of(self, adapter: ServingAdapter) -> Arm | None:
        """Return the arm that this adapter is in, None when it does not serve."""
        return next((arm for arm in self.arms if arm.adapter is adapter), None)

    def fallback_of(self, arm: Arm) -> Arm:
        """Return the arm that does another one's records when that ends."""
        found = (other for other in self.arms if other.role.name == arm.role.fallback)
        return next(found, self.arms[0])

    def with_arm(self, arm: Arm) -> TrafficSplit:
        """Have this arm serve, in place of the one in its role if there is one."""
        others = [other for other in self.arms if other.role is not arm.role]
        return TrafficSplit(tuple(sorted([*others, arm], key=_order)))

    def without(self, role: ArmRole) -> TrafficSplit:
        """End the arm in this role; one without a fallback goes on."""
        if role.fallback is None:
            return self
        return TrafficSplit(tuple(arm for arm in self.arms if arm.role is not role))


def _order(arm: Arm) -> int:
    return ARM_ROLES.index(arm.role)
