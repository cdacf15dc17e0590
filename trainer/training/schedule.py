"""How long and how fast to learn, and which epoch to keep: plain decisions, no tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

KeepBy = Literal["loss", "macro_f1"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """See ``config/trainer.toml``; ``micro_batch_size`` rows (0: all) go through the model at
    once, ``ema_decay`` 0 keeps the plain weights."""

    epochs: int
    patience: int
    keep_by: KeepBy
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    max_grad_norm: float
    ema_decay: float
    sublabel_learning_rate: float
    seed: int

    def steps(self, rows: int) -> int:
        """Return how many optimizer steps so many rows make in all epochs."""
        return math.ceil(rows / self.batch_size) * self.epochs


@dataclass(frozen=True, slots=True)
class Validation:
    """What one look at the validation set found; ``loss`` in nats a row."""

    loss: float
    accuracy: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch's figures. Losses are in nats a row; speeds are of training alone, and
    ``tokens_per_s`` counts prompt tokens as served (prefix included)."""

    number: int
    train_loss: float
    sublabel_loss: float | None
    validation_loss: float
    validation_accuracy: float
    validation_macro_f1: float
    seconds: float
    examples_per_s: float
    tokens_per_s: float


def lr_factor(step: int, steps: int, warmup_share: float) -> float:
    """Return the share of the full learning rate at a step: linear up, then cosine to zero."""
    warmup = max(1, round(steps * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def best_epoch(epochs: list[Epoch], keep_by: KeepBy) -> int:
    """Return the number of the epoch to keep: lowest validation loss, or highest macro-F1 (of
    equals the one with the lower loss, then the earlier)."""
    if keep_by == "loss":
        chosen = min(epochs, key=lambda one: (one.validation_loss, one.number))
    else:
        chosen = min(
            epochs, key=lambda one: (-one.validation_macro_f1, one.validation_loss, one.number)
        )
    return chosen.number


def should_stop(epochs: list[Epoch], patience: int) -> bool:
    """Whether ``patience`` epochs in a row bettered neither the lowest validation loss nor the
    highest macro-F1: the loss often turns while the labels still get better."""
    loss, f1, stale = math.inf, -math.inf, 0
    for one in epochs:
        better = one.validation_loss < loss or one.validation_macro_f1 > f1
        loss, f1 = min(loss, one.validation_loss), max(f1, one.validation_macro_f1)
        stale = 0 if better else stale + 1
    return stale >= patience


def describe(epoch: Epoch) -> str:
    """Return an epoch's figures in one line."""
    finer = "" if epoch.sublabel_loss is None else f"finer {epoch.sublabel_loss:.3f}  "
    return (
        f"loss {epoch.train_loss:.3f}  {finer}validation: loss {epoch.validation_loss:.3f}  "
        f"accuracy {epoch.validation_accuracy:.1%}  macro-F1 {epoch.validation_macro_f1:.3f}  "
        f"{epoch.examples_per_s:.1f} examples/s  {epoch.seconds:.0f} s"
    )
