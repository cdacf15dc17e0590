"""Queues: which items a person wants to see, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.contract.scoring import ReviewReason

Order = Literal["oldest", "newest", "doubtful"]
"""By the time it came, or the least confident first."""

Origin = Literal["review", "audit", "check", "holdout", "learn"]
"""Why an item is here: the machine doubted, or the random sample drew it; of a batch of tasks: its
label in a dataset is suspected, the hold-out's own labels are audited, or it teaches most."""

BLIND_ORIGINS: frozenset[Origin] = frozenset({"audit", "holdout"})
"""Those that are decided without seeing any label."""

REASON_BITS: dict[ReviewReason, int] = {
    "low_confidence": 1,
    "off_label_mass": 2,
    "out_of_scope": 4,
    "disagreement": 8,
}
"""Reasons as bits of one number, so that one index serves every combination."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A choice of items; what is None or empty does not restrict.

    ``reason`` is one that the machine had; ``label`` is the machine's; ages are in seconds since
    the item came. ``batch_id`` is a batch of tasks; without one the queue holds what came from
    Kafka alone. Blind items cannot be chosen by what the machine said: a queue with ``reason`` or
    ``label`` holds none of them, for it would give the label away.

    Raises ValueError for an age together with the order by confidence: no index has both, and a
    person would wait.
    """

    reason: ReviewReason | None = None
    label: str | None = None
    adapter_digest: str | None = None
    origin: Origin | None = None
    min_age_s: float | None = None
    max_age_s: float | None = None
    order: Order = "oldest"
    batch_id: int | None = None

    def __post_init__(self) -> None:
        aged = self.min_age_s is not None or self.max_age_s is not None
        if aged and self.order == "doubtful":
            raise ValueError("ages go with the orders by time: oldest or newest")

    @property
    def tells_the_label(self) -> bool:
        """Whether being in it says what the machine said."""
        return self.reason is not None or self.label is not None or self.order == "doubtful"


def reason_bits(reasons: tuple[ReviewReason, ...]) -> int:
    """Return the reasons as one number."""
    return sum(REASON_BITS[reason] for reason in set(reasons))


def values_with(reason: ReviewReason) -> tuple[int, ...]:
    """Return all such numbers that hold this reason."""
    return tuple(n for n in range(1, 1 << len(REASON_BITS)) if n & REASON_BITS[reason])
