"""Two adapters' evaluations, compared message by message."""

from __future__ import annotations

import numpy as np

from trainer.artifacts.evaluation import Answer
from trainer.statistics.clusters import as_groups
from trainer.statistics.metrics import count_discordant, mcnemar_exact
from trainer.store.evidence import Evidence
from trainer.store.verdict import Comparison


def compare_evidence(new: Evidence, current: Evidence) -> Comparison | str:
    """Compare two evaluations, or return why they cannot be compared."""
    holdout, other = new.evaluation.dataset, current.evaluation.dataset
    if holdout.holdout_sha256 != other.holdout_sha256:
        return (
            f"it was judged on another hold-out ({other.holdout_sha256[:12]}… and here "
            f"{holdout.holdout_sha256[:12]}…)"
        )
    if current.evaluation.limited:
        return "its evaluation covers only a part of the hold-out"
    mine, theirs = _right(new.answers), _right(current.answers)
    if mine.keys() != theirs.keys():
        return "the two predictions files do not hold the same messages"
    found = count_discordant(
        np.array([mine[key] for key in mine], dtype=np.bool_),
        np.array([theirs[key] for key in mine], dtype=np.bool_),
        as_groups([answer.group for answer in new.answers]),
    )
    return Comparison(
        current_digest=current.evaluation.adapter.digest,
        holdout_sha256=holdout.holdout_sha256,
        messages=found.total,
        only_new_right=found.a_only,
        only_current_right=found.b_only,
        design_effect=found.effect,
        p_value=mcnemar_exact(found),
    )


def _right(answers: tuple[Answer, ...]) -> dict[tuple[str, str | None], bool]:
    return {(answer.id, answer.label): answer.predicted == answer.label for answer in answers}
