"""Everything that takes part in one training, whatever the kind of model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from rich.console import Console

from trainer.artifacts.training import Step
from trainer.model.device import ProcessGroup
from trainer.training.console import Progress
from trainer.training.inputs import Inputs, weights_identity
from trainer.training.learner import Learner, Validation
from trainer.training.memory import MemoryPlan
from trainer.training.recipe import Recipe
from trainer.training.result import Result
from trainer.training.run_folder import Save, TrainState, has_checkpoint, load_checkpoint
from trainer.training.teacher import Teacher
from trainer.training.validation import Validator
from worker.contract import BaseModel, Manifest


class Loop(Protocol):
    """What learns, epoch by epoch, and can go on from a checkpoint."""

    state: TrainState

    @property
    def best(self) -> int:
        """Number of the epoch that is kept."""

    @property
    def kept(self) -> str:
        """What is kept, for people."""

    @property
    def stopped_early(self) -> bool:
        """Whether it ended before its last epoch."""

    def restore(self, state: TrainState, state_dicts: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""

    def run(
        self,
        validate: Callable[[], Validation],
        progress: Progress,
        *,
        save: Save,
        save_every_s: float,
        on_step: Callable[[Step], None],
    ) -> None:
        """Train to the end. Raises BadInput when the loss is not a number."""


@dataclass(frozen=True, slots=True)
class Training:
    """Everything that takes part in one training. ``inputs`` and ``model`` are those of the
    recipe's kind; ``total_weights`` counts the base's; ``teacher`` is None without
    distillation."""

    recipe: Recipe
    group: ProcessGroup
    inputs: Inputs[Any]
    base: BaseModel
    total_weights: int
    plan: MemoryPlan
    model: Learner
    validator: Validator
    loop: Loop
    teacher: Teacher | None = None

    @property
    def compute_dtype(self) -> Literal["bfloat16", "float32"]:
        """In which precision forward and backward pass run."""
        return "bfloat16" if self.group.bf16 else "float32"

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued from."""
        return weights_identity(self.recipe, self.inputs.dataset, self.base) | {
            "threads": torch.get_num_threads(),
            "processes": self.group.world_size,
            "bf16": self.group.bf16,
            **({"teacher": self.teacher.record.teacher} if self.teacher else {}),
        }

    def resume(self, console: Console) -> None:
        """Continue from the run's checkpoint, if there is one. Raises BadInput."""
        if has_checkpoint(self.recipe.run):
            self.loop.restore(*load_checkpoint(self.recipe.run, self.identity))
            console.print(f"continuing after step {self.loop.state.step}")


class Kind(Protocol):
    """How a kind of model is trained and written down."""

    def prepare(self, recipe: Recipe, group: ProcessGroup, console: Console) -> Training:
        """Read the inputs, check the rows, the memory and the forward pass, and load the model.
        Raises BadInput, ContractError and ProofFailed."""

    def as_served(self, training: Training) -> Training:
        """Return the training with the model in the precision in which workers hold it."""

    def write(
        self, training: Training, result: Result, *, created_at: str, outcome: Mapping[str, Any]
    ) -> tuple[Manifest, Result]:
        """Write the adapter into the run folder, the manifest last, and check that what is on disk
        scores validation as it was measured. Return the manifest, and the result as it is served:
        calibrated on the scores of the file that workers take first. Raises ProofFailed,
        AdapterRefused."""
