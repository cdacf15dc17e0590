"""Is the new adapter worse than the current one, message by message on the same hold-out?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.statistics.paired import Discordance, count_discordant, mcnemar_exact
from trainer.store.evidence import Evidence, Prediction


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two adapters on the same messages; ``p_value`` is two-sided (McNemar's exact test)."""

    current_digest: str
    holdout_sha256: str
    messages: int
    only_new_right: int
    only_current_right: int
    p_value: float

    @property
    def is_worse(self) -> bool:
        """Whether fewer messages are right than with the current adapter."""
        return self.only_new_right < self.only_current_right


def compare(new: Evidence, current: Evidence) -> Comparison | str:
    """Compare two evaluations, or return why they cannot be compared."""
    if new.holdout_sha256 != current.holdout_sha256:
        return (
            f"it was judged on another hold-out ({current.holdout_sha256[:12]}… and here "
            f"{new.holdout_sha256[:12]}…)"
        )
    if current.limited:
        return "its evaluation covers only a part of the hold-out"
    mine, other = _right(new.predictions), _right(current.predictions)
    if mine.keys() != other.keys():
        return "the two predictions files do not hold the same messages"
    found: Discordance = count_discordant(
        np.array([mine[key] for key in mine], dtype=np.bool_),
        np.array([other[key] for key in mine], dtype=np.bool_),
    )
    return Comparison(
        current_digest=current.adapter_digest,
        holdout_sha256=new.holdout_sha256,
        messages=found.total,
        only_new_right=found.a_only,
        only_current_right=found.b_only,
        p_value=mcnemar_exact(found),
    )


def _right(predictions: tuple[Prediction, ...]) -> dict[tuple[str, str], bool]:
    return {(one.id, one.label): one.predicted == one.label for one in predictions}
