"""Distillation: what another model thinks of a message as part of what is learnt of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from trainer.artifacts.training import Distillation
from trainer.check.duplicates import number_clusters
from trainer.check.suspects import (
    LEAST_EXAMPLES,
    Sublabel,
    predict_out_of_fold,
    sum_per_label,
)
from trainer.dataset.groups import read_groups
from trainer.errors import BadInput
from trainer.model.device import ProcessGroup
from trainer.model.embeddings import find_embedding_model
from trainer.similarity import SIMILARITY
from trainer.statistics.calibration import Floats, Ints
from trainer.training.inputs import Inputs, take_per_label
from trainer.training.learner import LearnerRow
from trainer.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher's probabilities for the training rows, and their share ``weight`` of the target.

    ``places`` has each row's place by its token ids. ``labels`` is (rows, labels); ``finer`` is
    (rows, outputs), over the finer outputs of what is trained, None where the teacher knows none.
    Its rows may sum to less than 1: the rare finer labels that it knows together have no output.
    """

    weight: float
    places: Mapping[tuple[int, ...], int]
    labels: Tensor
    finer: Tensor | None
    record: Distillation

    def label_loss(self, rows: Sequence[LearnerRow], hard: Tensor, logprobs: Tensor) -> Tensor:
        """Return the loss a row, (rows), in nats: the given one, by the rows' own labels, and at
        this teacher's share the cross-entropy of its labels under ``logprobs``, (rows, labels)."""
        return self._mix(rows, hard, logprobs, self.labels)

    def finer_loss(self, rows: Sequence[LearnerRow], hard: Tensor, logprobs: Tensor) -> Tensor:
        """Return the same of finer labels, with ``logprobs`` (rows, outputs)."""
        return hard if self.finer is None else self._mix(rows, hard, logprobs, self.finer)

    def _mix(
        self, rows: Sequence[LearnerRow], hard: Tensor, logprobs: Tensor, thought: Tensor
    ) -> Tensor:
        places = torch.tensor([self.places[row.ids] for row in rows], device=thought.device)
        soft = -(thought[places] * logprobs).sum(dim=1)
        return (1 - self.weight) * hard + self.weight * soft


@dataclass(frozen=True, slots=True)
class _Thought:
    labels: Floats
    finer: Floats | None
    record: Distillation


def ask_teacher(
    recipe: Recipe, inputs: Inputs[Any], group: ProcessGroup, console: Console
) -> Teacher | None:
    """Ask the model that ``check`` doubts labels by what it thinks of each training message; None
    where ``distillation_weight`` is 0.

    Linear, on TF-IDF and, where the extra ``embeddings`` is there, sentence embeddings; of finer
    labels where most messages have one. It never judges a message that it learnt, nor a
    near-duplicate of one: what it had learnt it would give the label back for (five folds). Takes
    a minute or two for some thousands of messages. Raises BadInput where there are too few.
    """
    if not recipe.distillation_weight:
        return None
    own = _think(recipe, inputs) if group.is_main else None
    thought = group.all_gather([own])[0]
    assert thought is not None
    found = thought.record
    console.print(
        f"teacher ({found.teacher}): its likeliest label is the given one of "
        f"{found.agreement:.1%} of the training messages",
        soft_wrap=True,
        highlight=False,
    )
    return Teacher(
        weight=recipe.distillation_weight,
        places={row.ids: at for at, row in enumerate(inputs.train)},
        labels=_tensor(thought.labels, group.device),
        finer=None if thought.finer is None else _tensor(thought.finer, group.device),
        record=found,
    )


def _think(recipe: Recipe, inputs: Inputs[Any]) -> _Thought:
    dataset = inputs.dataset
    examples = take_per_label(dataset.train, recipe.per_label, recipe.seed)
    if len(examples) < LEAST_EXAMPLES:
        raise BadInput(
            f"distillation_weight: a teacher needs {LEAST_EXAMPLES} training examples, and there "
            f"are {len(examples)}: set distillation_weight=0"
        )
    found = predict_out_of_fold(
        examples,
        inputs.labels,
        clusters=number_clusters(examples, SIMILARITY, read_groups(dataset)),
        embeddings=find_embedding_model(),
        seed=recipe.seed,
    )
    finer = None
    if found.finer is not None:
        outputs = inputs.classes or inputs.sublabels
        finer = sum_per_label(found.finer, _output_of(found.classes, inputs), len(outputs))
    record = Distillation(teacher=found.detector, agreement=found.agreement)
    return _Thought(found.probabilities, finer, record)


def _output_of(classes: Sequence[Sublabel], inputs: Inputs[Any]) -> Ints:
    """Return for each of the teacher's classes, (classes), its place among the finer outputs; -1
    where it has none."""
    if inputs.classes:
        index = {(each.label, each.sublabel): at for at, each in enumerate(inputs.classes)}
        return np.array([index.get(each, -1) for each in classes], dtype=np.int64)
    place: dict[str | None, int] = {name: at for at, name in enumerate(inputs.sublabels)}
    return np.array([place.get(sublabel, -1) for _, sublabel in classes], dtype=np.int64)


def _tensor(values: Floats, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)
