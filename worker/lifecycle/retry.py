"""When an adapter that was refused is tried again by itself."""

from __future__ import annotations

from dataclasses import dataclass

from worker.lifecycle.arm_source import ArmTarget
from worker.lifecycle.refusal import Refusal

_FIRST_S = 60.0
_TRIES = 5

_MAY_PASS = frozenset({"memory", "engine", "unexpected"})
"""Memory that is taken at the moment, a file system that hiccups. What a file or a probe says stays
so, and a load that hangs would leave one more thread and one more slot of the engine behind."""


@dataclass(frozen=True, slots=True)
class ArmRetry:
    """A target to bring up again, not before ``at`` (monotonic seconds), for the n-th time."""

    target: ArmTarget
    number: int
    at: float


def next_retry(
    target: ArmTarget, refusal: Refusal, last: ArmRetry | None, now: float
) -> ArmRetry | None:
    """Return when to try again, after 1, 2, 4 and 8 minutes; None where it stays refused."""
    number = last.number + 1 if last is not None and last.target == target else 1
    if refusal.reason not in _MAY_PASS or number >= _TRIES:
        return None
    return ArmRetry(target, number, now + _FIRST_S * 2 ** (number - 1))
