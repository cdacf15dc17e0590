"""One training, from a dataset to an adapter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from trainer.artifacts.training import (
    BaseName,
    OnnxFigures,
    ParameterCounts,
    Step,
    TrackedRun,
    TrainingRecord,
)
from trainer.languages import TAKE_ANOTHER, foreign_languages, language_names
from trainer.model.base_card import find_languages, find_license
from trainer.model.device import Compute
from trainer.model_card import write_run_card
from trainer.tracking.session import Tracking, open_tracking
from trainer.training.adapter import write_record
from trainer.training.console import print_epochs, print_result
from trainer.training.encoder import Encoder
from trainer.training.lora_code import LoraCode
from trainer.training.parts import Kind, Result, Training, score_best
from trainer.training.recipe import Recipe, RecipeKind
from trainer.training.run_folder import (
    ADAPTER,
    StepLog,
    TrainState,
    open_run,
    remove_checkpoint,
    save_checkpoint,
)
from worker.contract import Manifest

KINDS: Mapping[RecipeKind, Kind] = {
    "lora-code": LoraCode(),
    "encoder": Encoder(),
    "embedding-linear": Encoder(),
}
"""The implementation of each kind."""


def train(
    recipe: Recipe,
    console: Console,
    *,
    resume: bool = False,
    replace: bool = False,
) -> TrainingRecord:
    """Train, calibrate on validation, and write the adapter and its record into ``recipe.run``.
    Return the record.

    ``resume`` continues from the run's checkpoint, if there is one. Raises BadInput or
    ContractError for wrong input, and ProofFailed if a check of the trainer's own work fails; then
    no adapter is written.
    """
    started = time.monotonic()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    compute = Compute(recipe.device, recipe.mixed_precision)
    open_run(recipe.run, resume=resume, replace=replace)
    with open_tracking(recipe.tracking, recipe.tracking_project, console) as tracking:
        kind = KINDS[recipe.kind]
        training = kind.prepare(recipe, compute, console)
        dataset, known = training.inputs.dataset, find_languages(recipe.base)
        if strange := foreign_languages(dataset.languages, known):
            console.print(
                f"[yellow]note[/yellow] messages: {strange}, and {escape(recipe.base_name)} knows "
                f"{language_names(known)}: {TAKE_ANOTHER}",
                soft_wrap=True,
            )
        console.print(f"{training.plan}; {training.compute_dtype} arithmetic on {compute.device}")
        training.resume(console)
        done = len(training.loop.state.epochs)
        tracking.start(training.name, recipe.to_record(), training.inputs.tags, epochs_done=done)
        _run_loop(training, console, tracking)
        training = kind.as_served(training)
        result = score_best(training)
        record = _write_run(training, result, started, tracking.run)
        tracking.finish(record)
    write_run_card(recipe.run)
    # Last: a training killed before this line resumes and writes the files again (see open_run).
    remove_checkpoint(recipe.run)
    print_result(console, recipe.run / ADAPTER, record)
    return record


def _run_loop(training: Training, console: Console, tracking: Tracking) -> None:
    recipe, loop, identity = training.recipe, training.loop, training.identity

    def save(state: TrainState, state_dicts: Any) -> None:
        tracking.on_epochs(state.epochs)
        save_checkpoint(recipe.run, identity, state, state_dicts)

    def on_step(step: Step) -> None:
        steps.write(step)
        tracking.on_step(step)

    with closing(StepLog(recipe.run, last_step=loop.state.step)) as steps:
        loop.run(
            training.validator.validate,
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
            save=save,
            save_every_s=recipe.checkpoint_every_s,
            on_step=on_step,
        )
    print_epochs(console, loop.state.epochs, loop.best)


def _write_run(
    training: Training, result: Result, started: float, tracked: TrackedRun | None
) -> TrainingRecord:
    """Write the adapter, the validation scores, and last the record; return the record."""
    recipe, inputs, state = training.recipe, training.inputs, training.loop.state
    outcome: dict[str, Any] = {
        "best_epoch": training.loop.best,
        "kept": training.loop.kept,
        "steps": state.step,
        "stopped_early": training.loop.stopped_early,
    }
    manifest, result = KINDS[recipe.kind].write(training, result, outcome)
    trainable = sum(weights.numel() for weights in training.model.trainable_parameters())
    return write_record(
        recipe.run,
        inputs,
        result,
        manifest,
        device=training.compute.device,
        started=started,
        base=BaseName(
            name=recipe.base_name,
            revision=recipe.base_revision,
            license=find_license(recipe.base),
            languages=find_languages(recipe.base),
            directory=str(recipe.base),
        ),
        recipe=recipe.to_record(),
        seeds={"python": recipe.seed, "torch": recipe.seed},
        compute_dtype=training.compute_dtype,
        gradient_checkpointing=training.plan.gradient_checkpointing,
        tokens_per_message=inputs.mean_prompt,
        epochs=tuple(state.epochs),
        **outcome,
        resumed=state.resumed,
        parameters=ParameterCounts(trainable=trainable, total=training.total_weights),
        memory=training.plan.to_record(),
        training_seconds=round(sum(epoch.seconds for epoch in state.epochs), 1),
        tracking=tracked,
        onnx=_onnx_figures(manifest),
        distillation=training.teacher.record if training.teacher else None,
    )


def _onnx_figures(manifest: Manifest) -> tuple[OnnxFigures, ...] | None:
    figures = manifest.metrics.get("onnx")
    return None if figures is None else tuple(OnnxFigures(**each) for each in figures)
