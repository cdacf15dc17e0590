"""What training minimizes, and the same over the validation set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from trainer.errors import BadInput
from trainer.model.device import ProcessGroup
from trainer.model.lora_model import LoraModel
from trainer.model.prompt import TrainingRow
from trainer.model.scoring import Scorer, answer_states, collate
from trainer.statistics.calibration import Floats, Ints
from trainer.statistics.metrics import measure


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss to go backward through, and its two parts as numbers: sums in nats over the rows."""

    total: Tensor
    label: float
    sublabel: float
    tokens: int


class Objective:
    """The loss of some rows.

    Cross-entropy of the code's token over the whole vocabulary, so that the model also learns to
    answer with nothing else. ``label_smoothing`` spreads that share of the target evenly over
    the label codes alone (Szegedy et al. 2016, arXiv 1512.00567). With ``sublabel_weight`` a
    linear layer on the same state predicts the finer label, and its weighted loss is added: an
    auxiliary task (Caruana 1997) that shapes the adapter and is thrown away with the layer.
    """

    def __init__(
        self,
        model: LoraModel,
        prefix: Tensor,
        label_ids: Sequence[int],
        sublabels: Sequence[str],
        *,
        share_prefix: bool,
        label_smoothing: float,
        sublabel_weight: float,
    ) -> None:
        if sublabel_weight and len(sublabels) < 2:
            raise BadInput(
                "sublabel_weight is set and the dataset has no finer labels: prepare it with "
                "--sublabel-column, or set sublabel_weight=0"
            )
        self._model = model
        self._prefix = prefix
        self._codes = torch.tensor(list(label_ids), device=model.device)
        self._share_prefix = share_prefix
        self._smoothing = label_smoothing
        self._weight = sublabel_weight
        self._index = {name: at for at, name in enumerate(sublabels)}
        self.head: torch.nn.Linear | None = None
        if sublabel_weight:
            width = int(model.causal_lm.get_output_embeddings().weight.shape[1])
            self.head = torch.nn.Linear(width, len(sublabels), device=model.device)
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)

    def __call__(self, rows: Sequence[TrainingRow], batch_rows: int) -> Loss:
        """Return the loss of ``rows``, which are part of a batch of ``batch_rows``: the parts'
        losses add up to the batch's mean. Call it under the process group's autocast."""
        total, label, sublabel, tokens = self.summed(rows)
        return Loss(
            total / batch_rows,
            float(label.detach()),
            0.0 if sublabel is None else float(sublabel.detach()),
            tokens,
        )

    def summed(self, rows: Sequence[TrainingRow]) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """Return the total to minimize and its two parts, (no dimension), in nats over all rows,
        and the tokens of their prompts."""
        device, causal_lm = self._model.device, self._model.causal_lm
        batch = collate([row.prompt for row in rows], len(self._prefix), device)
        answers = torch.tensor([row.answer for row in rows], device=device)
        states = answer_states(causal_lm, self._prefix, batch, share_prefix=self._share_prefix)
        logits = causal_lm.get_output_embeddings()(states).float()
        label = cross_entropy(logits, answers, reduction="sum")
        total = label
        if self._smoothing:
            spread = -log_softmax(logits, dim=-1)[:, self._codes].mean(dim=1).sum()
            total = (1 - self._smoothing) * label + self._smoothing * spread
        sublabel = self._sublabel_loss(states, rows)
        if sublabel is not None:
            total = total + self._weight * sublabel
        return total, label, sublabel, batch.tokens

    def _sublabel_loss(self, states: Tensor, rows: Sequence[TrainingRow]) -> Tensor | None:
        """The summed loss of the rows that have a finer label; None where none has."""
        if self.head is None:
            return None
        known = [at for at, row in enumerate(rows) if row.sublabel is not None]
        if not known:
            return None
        targets = [self._index[str(rows[at].sublabel)] for at in known]
        with torch.autocast(states.device.type, enabled=False):
            logits = self.head(states[known].float())
            return cross_entropy(
                logits, torch.tensor(targets, device=states.device), reduction="sum"
            )


@dataclass(frozen=True, slots=True)
class Validation:
    """What one look at the validation set found; ``loss`` in nats a row."""

    loss: float
    accuracy: float
    macro_f1: float


class Validator:
    """Scores the same rows again and again, as the weights change."""

    def __init__(
        self,
        scorer: Scorer,
        rows: Sequence[TrainingRow],
        labels: Sequence[str],
        group: ProcessGroup,
    ) -> None:
        self._scorer = scorer
        self._prompts = [row.prompt for row in rows]
        self._labels = labels
        self._group = group
        self.truth: Ints = np.array([labels.index(row.label) for row in rows], dtype=np.int64)

    @property
    def is_alone(self) -> bool:
        """Whether one process scores everything."""
        return self._group.world_size == 1

    def score(self, *, autocast: bool = False) -> Floats:
        """Return the raw log-probabilities, (rows, labels), of all rows on every process."""
        shape = (len(self._prompts), len(self._labels))
        logprobs = np.empty(shape)
        shard = self._group.shard(self._prompts)
        own = np.empty((0, shape[1]))
        if shard:
            own = self._scorer.score(shard, autocast=autocast).logprobs
        for rank, part in enumerate(self._group.all_gather([own])):
            logprobs[rank :: self._group.world_size] = part
        return logprobs

    def validate(self) -> Validation:
        """Return the figures that training looks at after an epoch."""
        logprobs = self.score(autocast=self._group.bf16)
        figures = measure(self.truth, logprobs.argmax(axis=1), self._labels)
        loss = -logprobs[np.arange(len(self.truth)), self.truth].mean()
        return Validation(float(loss), figures.accuracy, figures.macro_f1)
