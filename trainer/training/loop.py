"""The training loop: keeps the best epoch, can stop and resume at any step."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.artifacts.training import Epoch, Step
from trainer.errors import BadInput
from trainer.model.device import Compute
from trainer.model.prompt import Row, length_grouped_batches
from trainer.progress import Advance, progress
from trainer.training.arithmetic import choose_bf16
from trainer.training.console import describe_epoch
from trainer.training.inputs import Inputs
from trainer.training.learner import Learner, Objective, Validation
from trainer.training.recipe import Recipe
from trainer.training.run_folder import Save, TrainState, best_epoch, should_stop

_MAX_GRAD_NORM = 1.0
_SUBLABEL_LEARNING_RATE = 1e-2
"""For the auxiliary layer that predicts finer labels: it is newly initialized, so it learns faster
than the LoRA layers."""


def make_loop(
    model: Learner,
    inputs: Inputs,
    objective: Objective,
    recipe: Recipe,
    compute: Compute,
) -> TrainLoop:
    """Choose the precision and return a training that is ready to start."""
    compute.bf16 = choose_bf16(model, inputs.train, objective, recipe, compute)
    torch.manual_seed(recipe.seed)
    return TrainLoop(model, inputs, objective, recipe, compute)


class TrainLoop:
    """A training in progress.

    AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with linear warm-up, then cosine decay to
    zero. The rows' order and copies depend only on the seed and the epoch's number, so a
    resumed training sees the rows of an uninterrupted one.
    """

    def __init__(
        self,
        model: Learner,
        inputs: Inputs,
        objective: Objective,
        recipe: Recipe,
        compute: Compute,
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._rows = [len(inputs.epoch(number)) for number in range(1, recipe.epochs + 1)]
        self._objective = objective
        self._recipe = recipe
        self._compute = compute
        self._parameters = model.trainable_parameters()
        extra = [] if objective.head is None else list(objective.head.parameters())
        groups = _groups(model, self._parameters, extra, recipe)
        # Fused: one kernel instead of a loop over hundreds of small LoRA matrices.
        self._optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
        steps = sum(math.ceil(rows / recipe.batch_size) for rows in self._rows)
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: lr_factor(step, steps, recipe.warmup_ratio)
        )
        self.state = TrainState()

    def restore(self, state: TrainState, state_dicts: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._model.load_state_dict(state_dicts["adapter"])
        if self._objective.head is not None:
            self._objective.head.load_state_dict(state_dicts["head"])
        self._optimizer.load_state_dict(state_dicts["optimizer"])
        self._scheduler.load_state_dict(state_dicts["scheduler"])
        device = self._model.device
        torch.set_rng_state(state_dicts["rng"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state_dicts["cuda_rng"], device)
        self.state = state
        self.state.resumed += 1

    def run(
        self,
        validate: Callable[[], Validation],
        say: Callable[[str], None],
        *,
        save: Save,
        save_every_s: float,
        on_step: Callable[[Step], None],
    ) -> None:
        """Train to the end. ``say`` gets a line after each epoch; ``save`` is called every
        ``save_every_s`` seconds and after each epoch, ``on_step`` with each step's figures; an
        exception in it ends the training. Raises BadInput if the loss is not a number."""
        self._model.start_training()
        state, epochs = self.state, self._recipe.epochs
        done = sum(self._rows[: state.epoch - 1]) + state.rows
        with progress("training", sum(self._rows), done=done) as advance:
            while not self._is_done():
                self._run_epoch(advance, save, save_every_s, on_step)
                say(f"epoch {state.epoch}/{epochs}  {self._finish_epoch(validate)}")
                # Saved as the beginning of the next epoch, or a resumed training would validate
                # this one again.
                if not self._is_done():
                    state.begin_epoch()
                save(state, self._state_dicts())

    @property
    def best(self) -> int:
        """The number of the best epoch."""
        return best_epoch(self.state.epochs, self._recipe.metric_for_best_model)

    @property
    def kept(self) -> str:
        """A description of the weights that are kept."""
        return f"epoch {self.best}"

    @property
    def stopped_early(self) -> bool:
        """Whether patience ran out before the last epoch."""
        return len(self.state.epochs) < self._recipe.epochs

    def _is_done(self) -> bool:
        epochs = self.state.epochs
        patience = self._recipe.early_stopping_patience
        return len(epochs) >= self._recipe.epochs or should_stop(epochs, patience)

    def _run_epoch(
        self,
        advance: Advance,
        save: Save,
        save_every_s: float,
        on_step: Callable[[Step], None],
    ) -> None:
        state, recipe = self.state, self._recipe
        # A generator per epoch: one for the whole training would have to be in the checkpoint.
        rng = random.Random(f"{recipe.seed}:{state.epoch}")  # noqa: S311 - an order of rows
        rows = self._inputs.epoch(state.epoch)
        batches = list(length_grouped_batches(rows, recipe.batch_size, rng))
        saved = time.monotonic()
        for batch in batches[state.batches :]:
            figures = self._step(batch)
            state.batches += 1
            state.step += 1
            # At once: the next checkpoint would replace a good one by weights that are no numbers.
            if not math.isfinite(figures.loss):
                raise BadInput(
                    f"the loss is {figures.loss} at step {state.step}, in epoch {state.epoch}: "
                    "lower learning_rate; the last checkpoint is from before"
                )
            on_step(figures)
            advance(
                len(batch), f"loss {figures.loss:.3f}", f"epoch {state.epoch} of {recipe.epochs}"
            )
            if time.monotonic() - saved >= save_every_s and state.batches < len(batches):
                save(state, self._state_dicts())
                saved = time.monotonic()

    def _step(self, batch: Sequence[Row]) -> Step:
        started = time.perf_counter()
        state = self.state
        micro = self._recipe.micro_batch_size or len(batch)
        label = sublabel = 0.0
        # Each part is divided by the rows of the whole batch, so the gradients of micro-batches add
        # up to the gradient of the batch's mean.
        for at in range(0, len(batch), micro):
            with self._compute.autocast():
                loss = self._objective(batch[at : at + micro], len(batch))
            loss.total.backward()  # type: ignore[no-untyped-call]
            label, sublabel = label + loss.label, sublabel + loss.sublabel
            state.tokens += loss.tokens
        # Without the auxiliary layer: it is discarded, and its gradients would count in the norm
        # and shrink the step of the weights that stay.
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, _MAX_GRAD_NORM)
        learning_rate = float(self._scheduler.get_last_lr()[0])
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - started
        state.rows += len(batch)
        state.loss_sum, state.sublabel_sum = state.loss_sum + label, state.sublabel_sum + sublabel
        state.seconds += seconds
        return Step(
            step=state.step + 1,
            epoch=state.epoch,
            examples=sum(self._rows[: state.epoch - 1]) + state.rows,
            loss=label / len(batch),
            sublabel_loss=sublabel / len(batch) if self._objective.has_sublabels else None,
            learning_rate=learning_rate,
            gradient_norm=float(norm),
            examples_per_s=len(batch) / seconds,
        )

    def _finish_epoch(self, validate: Callable[[], Validation]) -> str:
        """Validate, keep the best weights, and return the epoch in words."""
        state = self.state
        started = time.perf_counter()
        validation = validate()
        epoch = Epoch(
            number=state.epoch,
            train_loss=state.loss_sum / state.rows,
            sublabel_loss=state.sublabel_sum / state.rows
            if self._objective.has_sublabels
            else None,
            validation_loss=validation.loss,
            validation_calibrated_loss=validation.calibrated_loss,
            validation_accuracy=validation.accuracy,
            validation_macro_f1=validation.macro_f1,
            seconds=state.seconds + time.perf_counter() - started,
            examples_per_s=state.rows / state.seconds,
            tokens_per_s=state.tokens / state.seconds,
        )
        if not math.isfinite(validation.loss):
            raise BadInput(
                f"the loss is {validation.loss} after epoch {state.epoch}: lower learning_rate"
            )
        state.epochs.append(epoch)
        if self.best == epoch.number:
            # Not on the device: there it would take room until the end.
            state.best = {name: weights.cpu() for name, weights in self._model.state_dict().items()}
        return describe_epoch(epoch)

    def _state_dicts(self) -> dict[str, Any]:
        head, device = self._objective.head, self._model.device
        cuda_rng = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return {
            "adapter": self._model.state_dict(),
            "head": None if head is None else head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": cuda_rng,
        }


def _groups(
    model: Learner, parameters: Sequence[Tensor], extra: Sequence[Tensor], recipe: Recipe
) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups. The model's head and the auxiliary layer
    (``extra``) are newly initialized and have their own learning rates."""
    head = model.head_parameters()
    own = {id(weights) for weights in head}
    body = [weights for weights in parameters if id(weights) not in own]
    groups: list[dict[str, Any]] = [{"params": body, "lr": recipe.learning_rate}]
    if head:
        groups.append({"params": head, "lr": recipe.head_learning_rate})
    if extra:
        groups.append({"params": extra, "lr": _SUBLABEL_LEARNING_RATE})
    return groups


def lr_factor(step: int, steps: int, warmup_ratio: float) -> float:
    """Return the share of the full learning rate at a step: linear up, then cosine to zero."""
    warmup = max(1, round(steps * warmup_ratio))
    if step < warmup:
        # Not step / warmup: a rate of 0 would waste the first batch.
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
