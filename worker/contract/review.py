"""When a person should look at a label: the one rule, for the worker, the trainer and the desk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.contract.scoring import Decision

ReviewReason = Literal["low_confidence", "off_label_mass"]
"""Why a label is doubtful: confidence below its threshold, off-label mass above its threshold."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a person should look: confidence below, or off-label mass above. None turns one off."""

    review_confidence: float | None
    review_off_label_mass: float | None = None


def review_reasons(decision: Decision, thresholds: Thresholds) -> tuple[ReviewReason, ...]:
    """Return why a person should look at ``decision``; empty where none needs to.

    A value that equals its threshold passes. An off-label mass that decoding cannot see is no
    reason.
    """
    reasons: list[ReviewReason] = []
    least, most = thresholds.review_confidence, thresholds.review_off_label_mass
    mass = decision.off_label_mass
    if least is not None and decision.confidence < least:
        reasons.append("low_confidence")
    if most is not None and mass is not None and mass > most:
        reasons.append("off_label_mass")
    return tuple(reasons)
