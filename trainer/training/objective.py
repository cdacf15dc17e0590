"""What training minimizes, and the same over the validation set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from trainer.errors import BadInput
from trainer.model.forward import Layout, answer_states
from trainer.model.lora_model import LoraModel
from trainer.model.prompt import TrainingRow
from trainer.training.learner import Loss
from trainer.training.teacher import Teacher


class CodeObjective:
    """The loss of some rows that end in a label's code.

    Cross-entropy of the code's token over the whole vocabulary, so that the model also learns to
    answer with nothing else. ``label_smoothing`` spreads that share of the target evenly over
    the label codes alone (Szegedy et al. 2016, arXiv 1512.00567). With ``sublabel_weight`` a
    linear layer on the same state predicts the finer label, and its weighted loss is added: an
    auxiliary task (Caruana 1997) that shapes the adapter and is thrown away with the layer. A
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
        if sublabel_weight and len(sublabels) < 2:
            raise BadInput(
                "sublabel_weight is set and the dataset has no finer labels: prepare it with "
                "--sublabel-column, or set sublabel_weight=0"
            )
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
        prompts = [row.prompt for row in rows]
        answers = torch.tensor([row.answer for row in rows], device=device)
        states = answer_states(causal_lm, self._prefix, prompts, layout=self._layout)
        logits = causal_lm.get_output_embeddings()(states).float()
        each = cross_entropy(logits, answers, reduction="none")
        label = total = each.sum()
        if self._smoothing or self._teacher:
            of_codes = log_softmax(logits, dim=-1)[:, self._codes]
            each = (1 - self._smoothing) * each - self._smoothing * of_codes.mean(dim=1)
            if self._teacher:
                each = self._teacher.label_loss(rows, each, of_codes)
            total = each.sum()
        sublabel = self._sublabel_loss(states, rows)
        if sublabel is not None:
            total = total + self._weight * sublabel
        return total, label, sublabel, sum(map(len, prompts))

    def _sublabel_loss(self, states: Tensor, rows: Sequence[TrainingRow]) -> Tensor | None:
        """The summed loss of the rows that have a finer label; None where none has."""
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
