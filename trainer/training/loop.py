"""The training loop: one answer token a row, the best epoch kept, able to stop at any step."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from trainer.errors import BadInput
from trainer.model.rows import Row, batches
from trainer.model.student import LoraModel
from trainer.training.checkpoint import Standing
from trainer.training.crew import ProcessGroup
from trainer.training.objective import Objective
from trainer.training.progress import Progress
from trainer.training.schedule import (
    Epoch,
    Schedule,
    Validation,
    best_epoch,
    describe,
    lr_factor,
    should_stop,
)

Save = Callable[[Standing, Any], None]
Step = Callable[[Mapping[str, Any]], None]


class Loop:
    """A training in progress.

    AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with linear warm-up, then cosine decay to
    zero. The order of rows comes from the seed and the epoch's number, so that a training that
    goes on from a checkpoint sees what it would have seen. With ``ema_decay`` an exponential
    average of the weights is what is validated and kept (Izmailov et al. 2018, arXiv 1803.05407,
    average plainly; the exponential form is Polyak's).
    """

    def __init__(
        self,
        student: LoraModel,
        rows: Sequence[Row],
        objective: Objective,
        schedule: Schedule,
        crew: ProcessGroup,
    ) -> None:
        self._student = student
        self._rows = rows
        self._objective = objective
        self._schedule = schedule
        self._crew = crew
        self._parameters = student.parameters()
        self._head = [] if objective.head is None else list(objective.head.parameters())
        groups: list[dict[str, Any]] = [{"params": self._parameters, "lr": schedule.learning_rate}]
        if self._head:
            groups.append({"params": self._head, "lr": schedule.sublabel_learning_rate})
        self._optimizer = torch.optim.AdamW(groups, weight_decay=schedule.weight_decay)
        steps = schedule.steps(len(rows))
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: lr_factor(step, steps, schedule.warmup_share)
        )
        self.standing = Standing()

    def restore(self, standing: Standing, parts: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self._student.load(parts["adapter"])
        if self._objective.head is not None:
            self._objective.head.load_state_dict(parts["head"])
        self._optimizer.load_state_dict(parts["optimizer"])
        self._scheduler.load_state_dict(parts["scheduler"])
        torch.set_rng_state(parts["rng"][self._crew.rank])
        if self._student.device.type == "cuda":
            torch.cuda.set_rng_state(parts["cuda_rng"][self._crew.rank], self._student.device)
        self.standing = standing
        self.standing.resumed += 1

    def run(
        self,
        validate: Callable[[], Validation],
        progress: Progress,
        *,
        save: Save,
        save_every_s: float,
        on_step: Step,
    ) -> None:
        """Train to the end. ``save`` is called every so many seconds and after each epoch,
        ``on_step`` with each step's figures; what it raises ends the training. Raises BadInput
        when the loss is no number."""
        self._student.peft.train()
        if not self.standing.average and self._schedule.ema_decay:
            self.standing.average = [one.detach().clone() for one in self._parameters]
        while not self._done():
            self._run_epoch(progress, save, save_every_s, on_step)
            self._finish_epoch(validate, progress)
            if not self._done():
                self.standing.begin_epoch()
            save(self.standing, self._parts())

    @property
    def best(self) -> int:
        """Number of the epoch that is kept."""
        return best_epoch(self.standing.epochs, self._schedule.keep_by)

    @property
    def stopped_early(self) -> bool:
        """Whether patience ran out before the epochs did."""
        return len(self.standing.epochs) < self._schedule.epochs

    def _done(self) -> bool:
        epochs = self.standing.epochs
        return len(epochs) >= self._schedule.epochs or should_stop(epochs, self._schedule.patience)

    def _run_epoch(
        self, progress: Progress, save: Save, save_every_s: float, on_step: Step
    ) -> None:
        now, schedule = self.standing, self._schedule
        rng = random.Random(f"{schedule.seed}:{now.epoch}")  # noqa: S311 - an order of rows
        order = list(batches(self._rows, schedule.batch_size, rng))
        progress.start(now.epoch, schedule.epochs, len(self._rows))
        saved = time.monotonic()
        for some in order[now.batches :]:
            figures = self._step(some)
            now.batches += 1
            now.step += 1
            on_step(figures)
            progress.advance(now.rows, figures["loss"], now.rows / now.seconds)
            # Saving gathers from all processes, so all must agree that it is time.
            due = self._crew.add([float(time.monotonic() - saved >= save_every_s)])[0] > 0
            if due and now.batches < len(order):
                save(now, self._parts())
                saved = time.monotonic()

    def _step(self, some: Sequence[Row]) -> dict[str, Any]:
        started = time.perf_counter()
        now, mine = self.standing, self._crew.mine(some)
        micro = self._schedule.micro_batch_size or max(1, len(mine))
        label = sublabel = 0.0
        tokens = 0
        for at in range(0, len(mine), micro):
            with self._crew.autocast():
                loss = self._objective(mine[at : at + micro], len(some))
            loss.total.backward()  # type: ignore[no-untyped-call]
            label, sublabel = label + loss.label, sublabel + loss.sublabel
            tokens += loss.tokens
        self._crew.add_gradients([*self._parameters, *self._head])
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._schedule.max_grad_norm)
        rate = self._scheduler.get_last_lr()[0]
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average()
        label, sublabel, all_tokens = self._crew.add([label, sublabel, tokens])
        seconds = time.perf_counter() - started
        now.rows, now.tokens = now.rows + len(some), now.tokens + round(all_tokens)
        now.loss_sum, now.sublabel_sum = now.loss_sum + label, now.sublabel_sum + sublabel
        now.seconds += seconds
        return {
            "step": now.step + 1,
            "epoch": now.epoch,
            "examples": (now.epoch - 1) * len(self._rows) + now.rows,
            "loss": label / len(some),
            "sublabel_loss": sublabel / len(some) if self._head else None,
            "learning_rate": rate,
            "gradient_norm": float(norm),
            "examples_per_s": len(some) / seconds,
        }

    def _average(self) -> None:
        decay = self._schedule.ema_decay
        if decay:  # a short average at first, so that the start is soon forgotten
            decay = min(decay, (1 + self.standing.step) / (10 + self.standing.step))
            with torch.no_grad():
                for mean, one in zip(self.standing.average, self._parameters, strict=True):
                    mean.lerp_(one, 1 - decay)

    def _finish_epoch(self, validate: Callable[[], Validation], progress: Progress) -> None:
        now = self.standing
        started = time.perf_counter()
        plain = self._swap_in_average()
        found = validate()
        epoch = Epoch(
            now.epoch,
            now.loss_sum / now.rows,
            now.sublabel_sum / now.rows if self._head else None,
            found.loss,
            found.accuracy,
            found.macro_f1,
            now.seconds + time.perf_counter() - started,
            now.rows / now.seconds,
            now.tokens / now.seconds,
        )
        progress.finish(describe(epoch))
        if not math.isfinite(found.loss):
            raise BadInput(f"the loss is {found.loss} after epoch {now.epoch}: lower learning_rate")
        now.epochs.append(epoch)
        if self.best == epoch.number:
            now.best = self._student.state()
        for one, value in zip(self._parameters, plain, strict=False):
            one.data.copy_(value)

    def _swap_in_average(self) -> list[Tensor]:
        plain = [one.detach().clone() for one in self._parameters] if self.standing.average else []
        for one, mean in zip(self._parameters, self.standing.average, strict=False):
            one.data.copy_(mean)
        return plain

    def _parts(self) -> dict[str, Any]:
        head = self._objective.head
        cuda = self._student.device.type == "cuda"
        return {
            "adapter": self._student.state(),
            "head": None if head is None else head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "rng": self._crew.gather([torch.get_rng_state()]),
            "cuda_rng": self._crew.gather(
                [torch.cuda.get_rng_state(self._student.device)] if cuda else []
            ),
        }


def to_records(epochs: Sequence[Epoch]) -> list[dict[str, Any]]:
    """Return the epochs as plain JSON."""
    return [asdict(one) for one in epochs]
