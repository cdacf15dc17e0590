"""A teacher for distillation: what models that did not learn a message say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from trainer.artifacts.training import Distillation
from trainer.check.duplicates import number_clusters
from trainer.check.suspects import (
    LEAST_EXAMPLES,
    Matrix,
    OutOfFold,
    Sublabel,
    predict_by_views,
    predict_out_of_fold,
    sum_per_label,
)
from trainer.dataset.extra_files import read_groups
from trainer.dataset.folder import Example
from trainer.errors import BadInput
from trainer.model.bases import AUTO, base_to_train, describe_source
from trainer.model.embeddings import embed, fit_linear
from trainer.model.prompt import Row
from trainer.statistics.calibration import Floats, Ints
from trainer.training.inputs import Inputs, take_per_label
from trainer.training.recipe import Recipe
from worker.common.base_model import find_embedding_model

# Fixed before the hold-out of BANKING77 was asked (docs/figures.md).
_C = 60.0
_NEIGHBOURS = 10
_SHARPNESS = 20.0
_NEIGHBOURS_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher's probabilities for the training examples; ``weight`` is their share of the target.

    ``labels`` is (examples, labels); ``finer`` is (examples, finer outputs), or None if the teacher
    did not learn finer labels. Its rows may sum to less than 1, because the teacher groups rare
    finer labels into a class that has no output.
    """

    weight: float
    labels: Tensor
    finer: Tensor | None
    record: Distillation

    def label_loss(self, rows: Sequence[Row], hard: Tensor, logprobs: Tensor) -> Tensor:
        """Return the loss of each row, (rows), in nats: a mixture of ``hard``, the loss by its own
        label, and the cross-entropy of the teacher's labels under ``logprobs``, (rows, labels)."""
        return self._mix(rows, hard, logprobs, self.labels)

    def finer_loss(self, rows: Sequence[Row], hard: Tensor, logprobs: Tensor) -> Tensor:
        """Return the same for finer labels, with ``logprobs`` (rows, outputs)."""
        return hard if self.finer is None else self._mix(rows, hard, logprobs, self.finer)

    def _mix(self, rows: Sequence[Row], hard: Tensor, logprobs: Tensor, thought: Tensor) -> Tensor:
        soft = -(thought[[row.place for row in rows]] * logprobs).sum(dim=1)
        return (1 - self.weight) * hard + self.weight * soft


def ask_teacher(
    recipe: Recipe, inputs: Inputs, device: torch.device, console: Console
) -> Teacher | None:
    """Return a teacher's predictions for the training messages; None if ``distillation_weight`` is
    0.

    The teacher is the mean of one ``predict_frozen`` for each of ``teacher_bases``; without these
    the linear model with which ``check`` finds doubtful labels: TF-IDF and, with the extra
    ``embeddings``, sentence embeddings. It learns finer labels if most messages have one. It takes
    a minute or two for some thousands of messages. Raises BadInput if there are too few.
    """
    if not recipe.distillation_weight:
        return None
    labels, finer, found = _predict(recipe, inputs)
    console.print(
        f"teacher ({found.teacher}): its most likely label is the given one for "
        f"{found.agreement:.1%} of the training messages",
        soft_wrap=True,
        highlight=False,
    )
    return Teacher(
        weight=recipe.distillation_weight,
        labels=_tensor(labels, device),
        finer=None if finer is None else _tensor(finer, device),
        record=found,
    )


def _predict(recipe: Recipe, inputs: Inputs) -> tuple[Floats, Floats | None, Distillation]:
    """Return the teacher's probabilities of labels and of finer labels, and its record.

    Out of fold: for a message that it has learnt, or a near-copy of one, the teacher would only
    return the given label.
    """
    dataset = inputs.dataset
    examples = take_per_label(dataset.train, recipe.per_label, recipe.seed)
    if len(examples) < LEAST_EXAMPLES:
        raise BadInput(
            f"distillation_weight: a teacher needs {LEAST_EXAMPLES} training examples, and there "
            f"are {len(examples)}: set distillation_weight=0"
        )
    found = _ask(recipe, examples, inputs.labels, number_clusters(examples, read_groups(dataset)))
    finer = None
    if found.finer is not None:
        outputs = inputs.classes or inputs.sublabels
        finer = sum_per_label(found.finer, _output_of(found.classes, inputs), len(outputs))
    record = Distillation(teacher=found.detector, agreement=found.agreement)
    return found.probabilities, finer, record


def _ask(
    recipe: Recipe, examples: Sequence[Example], labels: Sequence[str], clusters: Ints
) -> OutOfFold:
    if not recipe.teacher_bases:
        return predict_out_of_fold(
            examples,
            labels,
            clusters=clusters,
            embeddings=find_embedding_model(),
            seed=recipe.seed,
        )
    bases = [find_teacher_base(given) for given in recipe.teacher_bases]
    messages = [example.message for example in examples]
    views = [embed(messages, base) for base in bases]
    names = ", ".join(describe_source(base)[0] for base in bases)
    what = f"{names}: logistic regression and {_NEIGHBOURS} nearest neighbours"
    return predict_by_views(
        examples, labels, views, what, clusters=clusters, seed=recipe.seed, learn=predict_frozen
    )


def find_teacher_base(given: str) -> Path:
    """Return the folder of one of ``teacher_bases``: a folder, or a model's name. Raises
    BadInput."""
    if Path(given).is_dir() or "/" in given:
        return base_to_train(Path(given), "encoder", "")
    return base_to_train(Path(AUTO), "encoder", given)


def predict_frozen(
    known: Matrix, targets: Ints, asked: Matrix, classes: int, *, fine: bool = False
) -> Floats:
    """Learn ``targets`` (0..classes-1) of sentence embeddings, unit vectors, and return
    probabilities for others, (asked, classes).

    0.7 of logistic regression and 0.3 of the 10 nearest neighbours by cosine, weighted by
    exp(20 cosine). A class without an example gets probability 0. ``fine`` changes nothing.
    """
    del fine
    found = np.zeros((len(asked), classes))
    cosines = asked @ known.T
    count = min(_NEIGHBOURS, len(known))
    near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    # Relative to 1, the largest cosine, so that the largest weight is 1.
    weights = np.exp(_SHARPNESS * (np.take_along_axis(cosines, near, axis=1) - 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    np.add.at(found, (np.arange(len(asked))[:, None], targets[near]), _NEIGHBOURS_SHARE * weights)
    present = np.unique(targets)
    learnt = np.ones((len(asked), 1))
    if len(present) > 1:
        learnt = fit_linear(known, targets.tolist(), _C).predict_proba(asked)
    found[:, present] += (1 - _NEIGHBOURS_SHARE) * learnt
    return found


def _output_of(classes: Sequence[Sublabel], inputs: Inputs) -> Ints:
    """Return the index of each of the teacher's classes, (classes), among the finer outputs; -1 if
    it has none."""
    if inputs.classes:
        index = {(each.label, each.sublabel): at for at, each in enumerate(inputs.classes)}
        return np.array([index.get(each, -1) for each in classes], dtype=np.int64)
    place: dict[str | None, int] = {name: at for at, name in enumerate(inputs.sublabels)}
    return np.array([place.get(sublabel, -1) for _, sublabel in classes], dtype=np.int64)


def _tensor(values: Floats, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)
