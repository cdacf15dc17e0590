"""What the training of a model with a classification head minimizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from trainer.errors import BadInput
from trainer.model.encoder import EncoderModel
from trainer.model.head_rows import HeadRow
from trainer.model.head_scoring import Class
from trainer.training.learner import Loss
from trainer.training.teacher import Teacher


class HeadObjective:
    """The loss of some rows.

    Cross-entropy of the label, whose probability is the sum of its classes'. With
    ``sublabel_weight``, above 0 and below 1, that share of the loss is the finer label's own
    cross-entropy instead, in rows that have one: what tells the finer labels apart shapes the
    vector, and their sum is what is served. ``label_smoothing`` spreads that share of either
    target evenly over all labels or all classes (Szegedy et al. 2016, arXiv 1512.00567). A
    ``teacher`` has its share of both (Hinton et al. 2015, arXiv 1503.02531).
    """

    head: torch.nn.Linear | None = None
    """Nothing is learnt beside the model: its own head stays."""

    def __init__(
        self,
        model: EncoderModel,
        classes: Sequence[Class],
        labels: Sequence[str],
        *,
        label_smoothing: float,
        sublabel_weight: float,
        teacher: Teacher | None = None,
    ) -> None:
        self.has_sublabels = any(each.sublabel is not None for each in classes)
        if sublabel_weight and not self.has_sublabels:
            raise BadInput(
                "sublabel_weight is set and the dataset has no finer labels: prepare it with "
                "--sublabel-column, or set sublabel_weight=0"
            )
        self._model = model
        self._smoothing = label_smoothing
        self._weight = sublabel_weight
        self._teacher = teacher
        self._labels = {label: at for at, label in enumerate(labels)}
        self._classes = {(each.label, each.sublabel): at for at, each in enumerate(classes)}
        self._members = [
            torch.tensor(
                [at for at, each in enumerate(classes) if each.label == label], device=model.device
            )
            for label in labels
        ]

    def __call__(self, rows: Sequence[HeadRow], batch_rows: int) -> Loss:
        """Return the loss of ``rows``, which are part of a batch of ``batch_rows``."""
        model = self._model
        of_classes = log_softmax(model.logits([row.ids for row in rows]), dim=1)
        of_labels = torch.stack(
            [of_classes[:, members].logsumexp(dim=1) for members in self._members], dim=1
        )
        labels = torch.tensor([self._labels[row.label] for row in rows], device=model.device)
        label = self._cross_entropy(of_labels, labels)
        total, finer = label.smoothed, 0.0
        if self._teacher:
            total = self._teacher.label_loss(rows, total, of_labels)
        known = [at for at, row in enumerate(rows) if (row.label, row.sublabel) in self._classes]
        if self._weight and known:
            targets = [self._classes[rows[at].label, rows[at].sublabel] for at in known]
            found = self._cross_entropy(
                of_classes[known], torch.tensor(targets, device=model.device)
            )
            learnt = found.smoothed
            if self._teacher:
                asked = [rows[at] for at in known]
                learnt = self._teacher.finer_loss(asked, learnt, of_classes[known])
            share = torch.zeros_like(total)
            share[known] = self._weight
            total = (1 - share) * total
            total[known] = total[known] + self._weight * learnt
            finer = float(found.plain.detach().sum())
        return Loss(
            total.sum() / batch_rows,
            float(label.plain.detach().sum()),
            finer,
            sum(len(row.ids) for row in rows),
        )

    def _cross_entropy(self, logprobs: Tensor, targets: Tensor) -> _Nats:
        plain = -logprobs.gather(1, targets[:, None])[:, 0]
        spread = -logprobs.mean(dim=1)
        return _Nats(plain, (1 - self._smoothing) * plain + self._smoothing * spread)


class _Nats:
    """A cross-entropy a row, (rows), in nats: plain, and with smoothed targets."""

    def __init__(self, plain: Tensor, smoothed: Tensor) -> None:
        self.plain = plain
        self.smoothed = smoothed
