"""What an evaluation says of an adapter, and two of them compared message by message."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.artifacts.evaluation import (
    ANSWERS,
    EVALUATION,
    Answer,
    EvaluationRecord,
    check_unique,
)
from trainer.artifacts.files import LinesFile, Record, encode_lines
from trainer.statistics.metrics import count_discordant, mcnemar_exact
from worker.contract.digest import sha256_file


@dataclass(frozen=True, slots=True)
class Evidence:
    """An evaluation's figures and its answers; ``sha256`` is that of its file at ``path``.

    Both are what a store keeps: figures, labels and ids, since their models name nothing else.
    """

    path: Path
    sha256: str
    evaluation: EvaluationRecord
    answers: tuple[Answer, ...]

    @property
    def kept_answers(self) -> bytes:
        """The answers as a store keeps them, JSON Lines."""
        return encode_lines(self.answers)


class Comparison(Record):
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


def read_evidence(directory: Path) -> Evidence:
    """Read an evaluation's folder. Raises BadInput: which file, which key, and what to do."""
    path = directory / EVALUATION.name
    evaluation = EVALUATION.read(directory)
    return Evidence(path, sha256_file(path), evaluation, read_answers(directory, ANSWERS))


def read_answers(directory: Path, file: LinesFile[Answer]) -> tuple[Answer, ...]:
    """Read an evaluation's answers. Raises BadInput with the line at fault, also where an id
    occurs twice."""
    answers = file.read(directory)
    check_unique(answers, directory / file.name)
    return answers


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
    )
    return Comparison(
        current_digest=current.evaluation.adapter.digest,
        holdout_sha256=holdout.holdout_sha256,
        messages=found.total,
        only_new_right=found.a_only,
        only_current_right=found.b_only,
        p_value=mcnemar_exact(found),
    )


def _right(answers: tuple[Answer, ...]) -> dict[tuple[str, str | None], bool]:
    return {(answer.id, answer.label): answer.predicted == answer.label for answer in answers}
