"""What an evaluation says of an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.artifacts.evaluation import (
    ANSWERS,
    EVALUATION,
    Answer,
    EvaluationRecord,
    check_unique,
)
from trainer.artifacts.files import LinesFile, encode_lines
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
