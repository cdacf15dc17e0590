"""The training loop: one answer token a row, the best epoch kept."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.model.forward import Batch, answer_logits, collate
from trainer.model.student import Student
from trainer.training.progress import Progress
from trainer.model.rows import Row, batches


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn; see ``config/trainer.toml``."""

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    max_grad_norm: float
    seed: int
    autocast: bool
    share_prefix: bool


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch's figures. Losses are in nats a row; ``tokens_per_s`` counts prompt tokens as
    served (prefix included), in training alone."""

    number: int
    train_loss: float
    validation_loss: float
    validation_macro_f1: float
    seconds: float
    examples_per_s: float
    tokens_per_s: float


def fit(
    student: Student,
    rows: Sequence[Row],
    prefix: Tensor,
    schedule: Schedule,
    validate: Callable[[], tuple[float, float]],
    progress: Progress,
) -> tuple[list[Epoch], int, dict[str, Tensor]]:
    """Train, and return the epochs' figures, the best epoch's number and its weights.

    AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with linear warm-up, then cosine decay to
    zero. ``validate`` returns (loss, macro-F1); the epoch with the lowest validation loss is the
    best, because it moves more smoothly than F1 on a small set, and training stops after
    ``patience`` epochs without a better one.
    """
    rng = random.Random(schedule.seed)  # noqa: S311 - an order of rows, not a secret
    parameters = student.parameters()
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    steps = math.ceil(len(rows) / schedule.batch_size) * schedule.epochs
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_at(step, steps, schedule.warmup_share)
    )
    student.peft.train()
    epochs: list[Epoch] = []
    best: tuple[float, int, dict[str, Tensor]] = (math.inf, 0, student.state())
    for number in range(1, schedule.epochs + 1):
        started = time.perf_counter()
        loss_sum, done, tokens = 0.0, 0, 0
        progress.start(number, schedule.epochs, len(rows))
        for some in batches(rows, schedule.batch_size, rng):
            batch = collate(some, len(prefix), 0, student.device)
            loss = _step(student, prefix, batch, schedule)
            torch.nn.utils.clip_grad_norm_(parameters, schedule.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            done, tokens = done + len(some), tokens + batch.tokens
            loss_sum += loss * len(some)
            progress.advance(done, loss, done / (time.perf_counter() - started))
        seconds = time.perf_counter() - started
        validation_loss, macro_f1 = validate()
        epochs.append(
            Epoch(
                number,
                loss_sum / done,
                validation_loss,
                macro_f1,
                time.perf_counter() - started,
                done / seconds,
                tokens / seconds,
            )
        )
        progress.finish(describe(epochs[-1]))
        if not math.isfinite(validation_loss):
            raise FloatingPointError(
                f"the loss is {validation_loss} after epoch {number}: lower learning_rate"
            )
        if validation_loss < best[0]:
            best = (validation_loss, number, student.state())
        elif number - best[1] >= schedule.patience:
            break
    return epochs, best[1], best[2]


def _step(student: Student, prefix: Tensor, batch: Batch, schedule: Schedule) -> float:
    with torch.autocast(student.device.type, dtype=torch.bfloat16, enabled=schedule.autocast):
        logits = answer_logits(student.causal, prefix, batch, share_prefix=schedule.share_prefix)
        loss = torch.nn.functional.cross_entropy(logits, batch.answers)
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def rate_at(step: int, steps: int, warmup_share: float) -> float:
    """Return the share of the full learning rate at a step: linear up, then cosine to zero."""
    warmup = max(1, round(steps * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def describe(epoch: Epoch) -> str:
    """Return an epoch's figures in one line."""
    return (
        f"train loss {epoch.train_loss:.3f}  validation loss {epoch.validation_loss:.3f}  "
        f"macro-F1 {epoch.validation_macro_f1:.3f}  {epoch.examples_per_s:.1f} examples/s  "
        f"{epoch.tokens_per_s:.0f} tokens/s  {epoch.seconds:.0f} s"
    )
