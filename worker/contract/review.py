"""When a person should look at a label: the one rule, for the worker, the trainer and the desk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from worker.contract.codec import LEAVE_OUT_EMPTY
from worker.contract.scoring import Decision

ReviewReason = Literal["low_confidence", "off_label_mass", "out_of_scope", "disagreement"]
"""Why a label is doubtful: confidence below its threshold, off-label mass or out-of-scope score
above theirs, or an earlier stage of a cascade that thought otherwise."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a person should look: confidence below, off-label mass or out-of-scope score above.

    None turns one off. A model has off-label mass or an out-of-scope score, never both.
    ``review_disagreement`` is of cascades: from this confidence on, of an earlier stage in another
    label, its disagreement is a reason (0: any).
    """

    review_confidence: float | None
    review_off_label_mass: float | None = None
    review_out_of_scope: float | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    review_disagreement: float | None = field(default=None, metadata=LEAVE_OUT_EMPTY)


def review_reasons(decision: Decision, thresholds: Thresholds) -> tuple[ReviewReason, ...]:
    """Return why a person should look at ``decision``; empty where none needs to.

    A value that equals its threshold passes. An off-label mass, or an out-of-scope score, that the
    model does not have is no reason.
    """
    reasons: list[ReviewReason] = []
    least, most = thresholds.review_confidence, thresholds.review_off_label_mass
    mass = decision.off_label_mass
    if least is not None and decision.confidence < least:
        reasons.append("low_confidence")
    if most is not None and mass is not None and mass > most:
        reasons.append("off_label_mass")
    farthest, score = thresholds.review_out_of_scope, decision.out_of_scope
    if farthest is not None and score is not None and score > farthest:
        reasons.append("out_of_scope")
    heard = thresholds.review_disagreement
    if heard is not None and any(
        other.label != decision.label and other.confidence >= heard for other in decision.earlier
    ):
        reasons.append("disagreement")
    return tuple(reasons)
