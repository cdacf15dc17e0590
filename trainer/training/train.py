"""One training, from a dataset to an adapter: read it top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from rich.console import Console

from trainer.artifacts.training import (
    TRAINING,
    VALIDATION_SCORES,
    AdapterName,
    BaseName,
    DatasetName,
    ParameterCounts,
    Step,
    TrackedRun,
    TrainingRecord,
)
from trainer.model.base_license import find_license
from trainer.model.device import ProcessGroup, describe_machine, peak_memory
from trainer.model.lora_model import LoraModel, load_as_served, load_lora_model
from trainer.model.scoring import Scorer
from trainer.model_card import write_run_card
from trainer.tracking.session import Tracking, open_tracking
from trainer.training.adapter import versions, write_adapter
from trainer.training.console import make_progress, print_epochs, print_result
from trainer.training.inputs import Inputs, read_inputs, verify_rows, weights_identity
from trainer.training.loop import TrainLoop
from trainer.training.memory import MemoryPlan, plan_memory
from trainer.training.objective import Objective, Validator
from trainer.training.recipe import Recipe
from trainer.training.result import Result, score_best
from trainer.training.run_folder import (
    ADAPTER,
    StepLog,
    TrainState,
    has_checkpoint,
    load_checkpoint,
    open_run,
    remove_checkpoint,
    save_checkpoint,
)
from trainer.training.shape import Shape, read_shape
from worker.contract import BaseModel, describe_base
from worker.contract.timestamps import rfc3339_now


class OutOfTime(Exception):
    """The training did not end before its ``until``; its checkpoint stays."""


@dataclass(frozen=True, slots=True)
class _Training:
    """Everything that takes part in one training."""

    recipe: Recipe
    group: ProcessGroup
    inputs: Inputs
    base: BaseModel
    shape: Shape
    plan: MemoryPlan
    model: LoraModel
    validator: Validator
    loop: TrainLoop

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
        }


def train(
    recipe: Recipe,
    console: Console,
    *,
    resume: bool = False,
    replace: bool = False,
    until: float = math.inf,
    group: ProcessGroup | None = None,
) -> TrainingRecord:
    """Train, calibrate on validation, and leave in ``recipe.run`` the adapter and the record of
    its making, which is returned too.

    ``resume`` continues from the run's checkpoint, if there is one; ``until`` (time.monotonic, in
    seconds) is when to give up; ``group``, the processes that take part, is the caller's to close
    where it is given. Raises BadInput or ContractError for what the caller has to
    mend, ProofFailed when a check of the trainer's own work fails, OutOfTime; then there is no
    adapter.
    """
    started = time.monotonic()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    joined = group or ProcessGroup(recipe.device, recipe.mixed_precision)
    try:
        if joined.is_main:
            open_run(recipe.run, resume=resume, replace=replace)
        else:
            console = Console(quiet=True)
        joined.barrier()
        chosen = recipe.tracking if joined.is_main else "none"
        with open_tracking(chosen, recipe.tracking_project, console) as tracking:
            training = _prepare(recipe, joined, console)
            done = len(training.loop.state.epochs)
            tracking.start(recipe.name, recipe.to_record(), training.inputs.tags, epochs_done=done)
            _run_loop(training, console, until, tracking)
            training = _as_served(training)
            best = training.loop.state.best
            result = score_best(best, recipe, training.model, training.validator, training.inputs)
            if joined.is_main:
                record = _write_run(training, result, started, tracking.run)
                tracking.finish(record)
        if joined.is_main:
            write_run_card(recipe.run)
            remove_checkpoint(recipe.run)
            print_result(console, recipe.run / ADAPTER, record)
        joined.barrier()
        return TRAINING.read(recipe.run)
    finally:
        if group is None:
            joined.close()


def _prepare(recipe: Recipe, group: ProcessGroup, console: Console) -> _Training:
    """Read the inputs, check every row, the memory and the forward pass, and load the model."""
    inputs = read_inputs(recipe)
    verify_rows(inputs, console)
    shape = read_shape(recipe.base, recipe.lora_target_modules)
    plan = plan_memory(
        shape,
        recipe,
        group.device,
        prefix_tokens=len(inputs.spec.prefix_ids),
        longest_tokens=inputs.longest_prompt,
        bf16=group.bf16,
    )
    torch.manual_seed(recipe.seed)
    base = describe_base(recipe.base, recipe.base_name, recipe.base_revision)
    model = _load_model(recipe, group, plan)
    validator = _make_validator(recipe, group, inputs, model)
    loop = _make_loop(recipe, inputs, model, group)
    training = _Training(recipe, group, inputs, base, shape, plan, model, validator, loop)
    console.print(f"{plan}; {training.compute_dtype} arithmetic on {group.device}")
    if has_checkpoint(recipe.run):
        loop.restore(*load_checkpoint(recipe.run, training.identity))
        console.print(f"continuing after step {loop.state.step}")
    return training


def _load_model(recipe: Recipe, group: ProcessGroup, plan: MemoryPlan) -> LoraModel:
    return load_lora_model(
        recipe.base,
        rank=recipe.lora_rank,
        alpha=recipe.lora_alpha,
        dropout=recipe.lora_dropout,
        base_dtype=recipe.base_dtype,
        load_in_4bit=recipe.load_in_4bit,
        target_modules=recipe.lora_target_modules,
        attn_implementation=recipe.attn_implementation,
        device=str(group.device),
        gradient_checkpointing=plan.gradient_checkpointing,
    )


def _make_validator(
    recipe: Recipe, group: ProcessGroup, inputs: Inputs, model: LoraModel
) -> Validator:
    scorer = Scorer(model, inputs.spec.prefix_ids, inputs.label_ids, recipe.share_prefix)
    scorer.verify([row.prompt for row in inputs.validation])
    return Validator(scorer, inputs.validation, inputs.labels, group)


def _make_loop(recipe: Recipe, inputs: Inputs, model: LoraModel, group: ProcessGroup) -> TrainLoop:
    objective = Objective(
        model,
        torch.tensor(inputs.spec.prefix_ids, device=model.device),
        inputs.label_ids,
        inputs.sublabels,
        share_prefix=recipe.share_prefix,
        label_smoothing=recipe.label_smoothing,
        sublabel_weight=recipe.sublabel_weight,
    )
    torch.manual_seed(recipe.seed + group.rank)  # each process drops out other units
    return TrainLoop(model, inputs.train, objective, recipe, group)


def _run_loop(training: _Training, console: Console, until: float, tracking: Tracking) -> None:
    recipe, group, loop = training.recipe, training.group, training.loop
    identity = training.identity

    def save(state: TrainState, state_dicts: Any) -> None:
        tracking.on_epochs(state.epochs)
        if group.is_main:
            save_checkpoint(recipe.run, identity, state, state_dicts)

    def on_step(step: Step) -> None:
        steps.write(step)
        tracking.on_step(step)
        if math.isfinite(until) and group.any(time.monotonic() > until):
            raise OutOfTime

    with StepLog(recipe.run, last_step=loop.state.step, enabled=group.is_main) as steps:
        loop.run(
            training.validator.validate,
            make_progress(console),
            save=save,
            save_every_s=recipe.checkpoint_every_s,
            on_step=on_step,
        )
    print_epochs(console, loop.state.epochs, loop.best)


def _as_served(training: _Training) -> _Training:
    """Return the training with the base that the adapter will be served on, where it learnt on
    another: rounding to 4 bits shifts every score, and the confidence is of scores."""
    recipe, group, inputs = training.recipe, training.group, training.inputs
    if recipe.serve_in_4bit == recipe.load_in_4bit:
        return training
    training.model.release()
    model = load_as_served(
        recipe.base,
        training.model.lora,
        device=str(group.device),
        in_4bit=recipe.serve_in_4bit,
        dropout=recipe.lora_dropout,
    )
    return replace(training, model=model, validator=_make_validator(recipe, group, inputs, model))


def _write_run(
    training: _Training, result: Result, started: float, tracked: TrackedRun | None
) -> TrainingRecord:
    """Write the adapter, the validation scores, and last the record, which is returned."""
    recipe, inputs, state = training.recipe, training.inputs, training.loop.state
    best = training.loop.best
    created_at = rfc3339_now()
    validation = result.validation_figures()
    outcome: dict[str, Any] = {
        "best_epoch": best,
        "kept": f"epoch {best}{' (averaged weights)' if recipe.ema_decay else ''}",
        "steps": state.step,
        "stopped_early": training.loop.stopped_early,
    }
    manifest = write_adapter(
        recipe,
        inputs,
        training.base,
        training.model,
        result.weights,
        created_at=created_at,
        calibrated=result.calibrated,
        metrics={"validation": validation.to_json(), "training": outcome},
        validator=training.validator,
        logprobs=result.logprobs,
    )
    VALIDATION_SCORES.write(
        recipe.run, result.scored_examples(inputs.dataset.validation, inputs.labels)
    )
    trainable = sum(weights.numel() for weights in training.model.trainable_parameters())
    record = TrainingRecord(
        name=recipe.name,
        created_at=created_at,
        adapter=AdapterName(name=manifest.name, digest=manifest.digest),
        dataset=DatasetName(
            name=inputs.dataset.name,
            digest=inputs.dataset.digest,
            directory=str(recipe.dataset),
        ),
        base=BaseName(
            name=recipe.base_name,
            revision=recipe.base_revision,
            license=find_license(recipe.base),
        ),
        recipe=recipe.to_record(),
        seeds={"python": recipe.seed, "torch": recipe.seed},
        machine=describe_machine(
            str(training.group.device), torch.get_num_threads(), training.group.world_size
        ),
        compute_dtype=training.compute_dtype,
        gradient_checkpointing=training.plan.gradient_checkpointing,
        tokens_per_message=inputs.mean_prompt,
        epochs=tuple(state.epochs),
        **outcome,
        resumed=state.resumed,
        parameters=ParameterCounts(trainable=trainable, total=training.shape.weights),
        validation=validation,
        calibration=result.calibration_figures(),
        memory=training.plan.to_record(),
        peak_memory_bytes=peak_memory(training.group.device),
        seconds=round(time.monotonic() - started, 1),
        training_seconds=round(sum(epoch.seconds for epoch in state.epochs), 1),
        versions=versions(),
        tracking=tracked,
    )
    TRAINING.write(recipe.run, record)
    return record
