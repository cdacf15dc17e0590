"""What the training loop needs of a model, of its rows and of what it minimizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

RowT_contra = TypeVar("RowT_contra", contravariant=True)


class Learner(Protocol):
    """A model that is trained."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def trainable_parameters(self) -> list[Tensor]:
        """Return the parameters that have gradients."""

    def head_parameters(self) -> list[Tensor]:
        """Return those of them that start from nothing and learn at a rate of their own."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of what is learnt."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace what is learnt. Raises BadInput."""

    def start_training(self) -> None:
        """Switch dropout on."""


class LearnerRow(Protocol):
    """A message to learn from: its token ids and its labels."""

    @property
    def label(self) -> str:
        """The class that it is to be given."""

    @property
    def sublabel(self) -> str | None:
        """Its finer label, where the data has one."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Its token ids: rows of like length are batched together."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """The token ids that are read to find the label."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss to go backward through, and its two parts as numbers: sums in nats over the rows."""

    total: Tensor
    label: float
    sublabel: float
    tokens: int


class Objective(Protocol[RowT_contra]):
    """What is minimized. ``head`` is a layer that is learnt beside the model and thrown away;
    ``has_sublabels`` says whether finer labels are part of the loss."""

    head: torch.nn.Linear | None
    has_sublabels: bool

    def __call__(self, rows: Sequence[RowT_contra], batch_rows: int) -> Loss:
        """Return the loss of ``rows``, which are part of a batch of ``batch_rows``: the parts'
        losses add up to the batch's mean. Call it under the process group's autocast."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What one look at the validation set found; ``loss`` in nats a row, ``calibrated_loss`` under
    the temperature that these rows ask for."""

    loss: float
    calibrated_loss: float
    accuracy: float
    macro_f1: float
