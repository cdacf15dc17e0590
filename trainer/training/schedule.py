"""How long and how fast to learn, and which epoch to keep: plain decisions, no tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.artifacts.training import Epoch
from trainer.training.recipe import Recipe

Metric = Literal["loss", "macro_f1"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """See ``config/trainer-cpu.toml``; ``micro_batch_size`` rows (0: all) go through the model at
    once, ``ema_decay`` 0 keeps the plain weights."""

    epochs: int
    early_stopping_patience: int
    metric_for_best_model: Metric
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    max_grad_norm: float
    ema_decay: float
    sublabel_learning_rate: float
    seed: int

    def steps(self, rows: int) -> int:
        """Return how many optimizer steps so many rows make in all epochs."""
        return math.ceil(rows / self.batch_size) * self.epochs


def make_schedule(recipe: Recipe) -> Schedule:
    """Take the schedule's settings out of a recipe."""
    return Schedule(
        epochs=recipe.epochs,
        early_stopping_patience=recipe.early_stopping_patience,
        metric_for_best_model=recipe.metric_for_best_model,
        batch_size=recipe.batch_size,
        micro_batch_size=recipe.micro_batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_ratio=recipe.warmup_ratio,
        max_grad_norm=recipe.max_grad_norm,
        ema_decay=recipe.ema_decay,
        sublabel_learning_rate=recipe.sublabel_learning_rate,
        seed=recipe.seed,
    )


def lr_factor(step: int, steps: int, warmup_ratio: float) -> float:
    """Return the share of the full learning rate at a step: linear up, then cosine to zero."""
    warmup = max(1, round(steps * warmup_ratio))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def best_epoch(epochs: Sequence[Epoch], metric: Metric) -> int:
    """Return the number of the epoch to keep: lowest validation loss, or highest macro-F1 (of
    equals the one with the lower loss, then the earlier)."""

    def rank(epoch: Epoch) -> tuple[float, float, int]:
        macro_f1 = epoch.validation_macro_f1 if metric == "macro_f1" else 0.0
        return -macro_f1, epoch.validation_loss, epoch.number

    return min(epochs, key=rank).number


def should_stop(epochs: Sequence[Epoch], patience: int) -> bool:
    """Whether ``patience`` epochs in a row improved neither the lowest validation loss nor the
    highest macro-F1: the loss often turns while the labels still get better."""
    loss, f1, stale = math.inf, -math.inf, 0
    for epoch in epochs:
        better = epoch.validation_loss < loss or epoch.validation_macro_f1 > f1
        loss, f1 = min(loss, epoch.validation_loss), max(f1, epoch.validation_macro_f1)
        stale = 0 if better else stale + 1
    return stale >= patience
