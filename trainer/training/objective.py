"""The losses of training: of codes and of a head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from trainer.model.encoder import EncoderModel
from trainer.model.forward import Layout, answer_states
from trainer.model.lora_model import LoraModel
from trainer.model.prompt import Row
from trainer.model.scoring import Class
from trainer.training.learner import Loss
from trainer.training.teacher import Teacher


class CodeObjective:
    """The loss of rows that end in a label's code.

    Cross-entropy of the code's token over the whole vocabulary, so that the model also learns not
    to answer with anything else. ``label_smoothing`` spreads that share of the target evenly over
    the label codes only (Szegedy et al. 2016, arXiv 1512.00567). With ``sublabel_weight`` a linear
    layer on the same state predicts the finer label, and its weighted loss is added: an auxiliary
    task (Caruana 1997) that shapes the adapter; the layer is discarded after training. A
    ``teacher`` has its share of both targets (Hinton et al. 2015, arXiv 1503.02531).
    """

    def __init__(
        self,
        model: LoraModel,
        prefix: Tensor,
        label_ids: Sequence[int],
        sublabels: Sequence[str],
        *,
        layout: Layout,
        label_smoothing: float,
        sublabel_weight: float,
        teacher: Teacher | None = None,
    ) -> None:
        self._model = model
        self._prefix = prefix
        self._codes = torch.tensor(list(label_ids), device=model.device)
        self._layout = layout
        self._smoothing = label_smoothing
        self._weight = sublabel_weight
        self._teacher = teacher
        self._index = {name: at for at, name in enumerate(sublabels)}
        self.has_sublabels = bool(sublabel_weight)
        self.head: torch.nn.Linear | None = None
        if sublabel_weight:
            width = int(model.causal_lm.get_output_embeddings().weight.shape[1])
            self.head = torch.nn.Linear(width, len(sublabels), device=model.device)
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)

    def __call__(self, rows: Sequence[Row], batch_rows: int) -> Loss:
        """See ``Objective``."""
        total, label, sublabel, tokens = self.summed(rows)
        return Loss(
            total / batch_rows,
            float(label.detach()),
            0.0 if sublabel is None else float(sublabel.detach()),
            tokens,
        )

    def summed(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """Return the total loss and its two parts, scalars in nats over all rows, and the number of
        prompt tokens."""
        device, causal_lm = self._model.device, self._model.causal_lm
        prompts = [row.prompt for row in rows]
        answers = torch.tensor([row.answer for row in rows], device=device)
        states = answer_states(causal_lm, self._prefix, prompts, layout=self._layout)
        logits = causal_lm.get_output_embeddings()(states).float()
        each = cross_entropy(logits, answers, reduction="none")
        label = total = each.sum()
        if self._smoothing or self._teacher:
            # Over the whole vocabulary, like the code's own loss: a softmax over the codes alone
            # would no longer teach the model to answer with a code.
            of_codes = log_softmax(logits, dim=-1)[:, self._codes]
            each = (1 - self._smoothing) * each - self._smoothing * of_codes.mean(dim=1)
            if self._teacher:
                each = self._teacher.label_loss(rows, each, of_codes)
            total = each.sum()
        sublabel = self._sublabel_loss(states, rows)
        if sublabel is not None:
            total = total + self._weight * sublabel
        return total, label, sublabel, sum(map(len, prompts))

    def _sublabel_loss(self, states: Tensor, rows: Sequence[Row]) -> Tensor | None:
        """Return the summed loss of the rows that have a finer label; None if none has."""
        if self.head is None:
            return None
        known = [at for at, row in enumerate(rows) if row.sublabel is not None]
        if not known:
            return None
        finer = [rows[at] for at in known]
        targets = [self._index[str(row.sublabel)] for row in finer]
        with torch.autocast(states.device.type, enabled=False):
            logits = self.head(states[known].float())
            each = cross_entropy(
                logits, torch.tensor(targets, device=states.device), reduction="none"
            )
            if self._teacher:
                each = self._teacher.finer_loss(finer, each, log_softmax(logits, dim=-1))
            return each.sum()


# Whole, they cost a small encoder accuracy, and at half the weight it still ignores instructions
# (docs/figures.md). A language model that learned fewer copies was steered.
_COPY_WEIGHT = 0.5


class HeadObjective:
    """The loss of an encoder's rows.

    Cross-entropy of the label, whose probability is the sum of its classes'. With
    ``sublabel_weight``, above 0 and below 1, that share of the loss is the finer label's own
    cross-entropy instead, in rows that have one. ``label_smoothing`` spreads that share of either
    target evenly over all labels or all classes (Szegedy et al. 2016, arXiv 1512.00567). A
    ``teacher`` has its share of both (Hinton et al. 2015, arXiv 1503.02531). A copy with an
    instruction in it weighs half.
    """

    head: torch.nn.Linear | None = None
    """None: there is no auxiliary layer."""

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

    def __call__(self, rows: Sequence[Row], batch_rows: int) -> Loss:
        """See ``Objective``."""
        model = self._model
        of_classes = log_softmax(model.logits([row.prompt for row in rows]), dim=1)
        of_labels = torch.stack(
            # logsumexp, because a sum of probabilities underflows to log(0) for a label that the
            # model has ruled out.
            [of_classes[:, members].logsumexp(dim=1) for members in self._members],
            dim=1,
        )
        labels = torch.tensor([self._labels[row.label] for row in rows], device=model.device)
        label, total = self._cross_entropy(of_labels, labels)
        finer = 0.0
        if self._teacher:
            total = self._teacher.label_loss(rows, total, of_labels)
        known = [at for at, row in enumerate(rows) if (row.label, row.sublabel) in self._classes]
        if self._weight and known:
            targets = [self._classes[rows[at].label, rows[at].sublabel] for at in known]
            plain, learnt = self._cross_entropy(
                of_classes[known], torch.tensor(targets, device=model.device)
            )
            if self._teacher:
                asked = [rows[at] for at in known]
                learnt = self._teacher.finer_loss(asked, learnt, of_classes[known])
            share = torch.zeros_like(total)
            share[known] = self._weight
            total = (1 - share) * total
            total[known] = total[known] + self._weight * learnt
            finer = float(plain.detach().sum())
        weights = [_COPY_WEIGHT if row.is_copy else 1.0 for row in rows]
        total = total * torch.tensor(weights, device=model.device)
        return Loss(
            total.sum() / batch_rows,
            float(label.detach().sum()),
            finer,
            sum(len(row.prompt) for row in rows),
        )

    def _cross_entropy(self, logprobs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return each row's cross-entropy, (rows), in nats: plain, and with smoothed targets."""
        plain = -logprobs.gather(1, targets[:, None])[:, 0]
        spread = -logprobs.mean(dim=1)
        return plain, (1 - self._smoothing) * plain + self._smoothing * spread
