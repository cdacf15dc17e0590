"""One training, from a dataset to an adapter: read it top to bottom."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from rich.console import Console

from trainer import __version__
from trainer.errors import ProofFailed
from trainer.evaluation.calibration import Calibrated, calibrate
from trainer.evaluation.metrics import Figures, measure
from trainer.model.forward import collate, verify_forward
from trainer.model.rows import verify_loss_mask
from trainer.model.score import Scores
from trainer.model.student import LoraModel, load_student, versions
from trainer.training import checkpoint
from trainer.training.crew import ProcessGroup
from trainer.training.inputs import Inputs, read_inputs, what_is_learnt
from trainer.training.loop import Loop, to_records
from trainer.training.memory import explain, peak_memory, preflight, read_shape
from trainer.training.objective import Objective
from trainer.training.progress import make_progress
from trainer.training.proof import choose, draw
from trainer.training.recipe import Recipe
from trainer.training.record import (
    StepLog,
    machine,
    print_curves,
    write_predictions,
    write_record,
)
from trainer.training.reference import make_reference
from trainer.training.run_folder import ADAPTER, DRAFT, open_run
from trainer.training.schedule import Schedule
from trainer.training.scorer import Scorer
from trainer.training.weights import finish, read_weights, round_weights, write_weights
from worker.contract import BaseModel, Manifest, describe_base, make_golden
from worker.contract.timestamps import rfc3339_now


class OutOfTime(Exception):
    """The training did not end before its ``until``; its checkpoint stays."""


def train(
    recipe: Recipe,
    console: Console,
    *,
    resume: bool = False,
    replace: bool = False,
    until: float = math.inf,
) -> dict[str, Any]:
    """Train, calibrate on validation, and leave in ``recipe.run`` the adapter and the record of
    its making, which is returned too.

    ``resume`` goes on from the run's checkpoint, if there is one; ``until`` (time.monotonic, in
    seconds) is when to give up. Raises BadInput or ContractError for what the caller has to
    mend, ProofFailed when a check of the trainer's own work fails, OutOfTime; then there is no
    adapter.
    """
    started = time.monotonic()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    crew = ProcessGroup(recipe.device, recipe.precision)
    if not crew.is_main:
        console = Console(quiet=True)
    else:
        open_run(recipe.run, resume=resume, replace=replace)
    crew.wait()
    try:
        return _train(recipe, console, crew, started, until)
    finally:
        crew.close()


def _train(
    recipe: Recipe, console: Console, crew: ProcessGroup, started: float, until: float
) -> dict[str, Any]:
    inputs = read_inputs(recipe)
    _show_rows(inputs, console)

    sizes = {
        "prefix_tokens": len(inputs.spec.prefix_ids),
        "longest_tokens": max(len(row.ids) - 1 for row in (*inputs.train, *inputs.validation)),
        "bf16": crew.bf16,
    }
    shape = read_shape(recipe.base, recipe.lora_layers)
    estimate, free, checkpointing = preflight(shape, recipe, crew.device, **sizes)
    arithmetic = "bfloat16" if crew.bf16 else "float32"
    console.print(f"{explain(estimate, free)}; {arithmetic} arithmetic on {crew.device}")

    torch.manual_seed(recipe.seed)
    base = describe_base(recipe.base, recipe.base_name, recipe.base_revision)
    student = _load(recipe, crew, checkpointing=checkpointing)
    prefix = torch.tensor(inputs.spec.prefix_ids, device=student.device)
    probe = collate(inputs.validation[:4], len(prefix), 0, student.device)
    verify_forward(student.causal, prefix, probe, share_prefix=recipe.share_prefix)
    objective = Objective(
        student,
        prefix,
        inputs.label_ids,
        inputs.sublabels,
        share_prefix=recipe.share_prefix,
        label_smoothing=recipe.label_smoothing,
        sublabel_weight=recipe.sublabel_weight,
    )
    torch.manual_seed(recipe.seed + crew.rank)  # each process drops out other units
    loop = Loop(student, inputs.train, objective, _schedule(recipe), crew)
    identity = _identity(recipe, inputs, base, crew)
    if checkpoint.exists(recipe.run):
        loop.restore(*checkpoint.load(recipe.run, identity))
        console.print(f"going on after step {loop.standing.step}")
    score = Scorer(
        student,
        prefix,
        inputs.labels,
        inputs.label_ids,
        crew,
        share_prefix=recipe.share_prefix,
    )

    def save(standing: checkpoint.Standing, parts: Any) -> None:
        if crew.is_main:
            checkpoint.save(recipe.run, identity, standing, parts)

    def on_step(figures: Mapping[str, Any]) -> None:
        steps.write(figures)
        if time.monotonic() > until:
            raise OutOfTime

    with StepLog(recipe.run, last_step=loop.standing.step, enabled=crew.is_main) as steps:
        loop.run(
            lambda: score.validate(inputs.validation),
            make_progress(console),
            save=save,
            save_every_s=recipe.checkpoint_every_s,
            on_step=on_step,
        )
    print_curves(console, loop.standing.epochs, loop.best)

    weights = round_weights(loop.standing.best, recipe.adapter_dtype)
    student.load(weights)
    scores = score(inputs.validation)
    calibrated = calibrate(
        scores.logprobs,
        scores.truth,
        review_precision=recipe.review_precision,
        review_floor=recipe.review_floor,
        off_label_quantile=recipe.off_label_quantile,
        seed=recipe.seed,
    )
    figures = measure(scores.truth, scores.predicted, inputs.labels)
    record = {
        "schema": "training/1",
        "name": recipe.name,
        "created_at": rfc3339_now(),
        "dataset": {
            "name": inputs.dataset.name,
            "digest": inputs.dataset.digest,
            "directory": str(recipe.dataset),
        },
        "base": {"name": recipe.base_name, "revision": recipe.base_revision},
        "recipe": recipe.to_record(),
        "seeds": {"python": recipe.seed, "torch": recipe.seed},
        "machine": machine(str(crew.device), torch.get_num_threads(), crew.size),
        "arithmetic": arithmetic,
        "gradient_checkpointing": checkpointing,
        "tokens_per_message": _mean_tokens(inputs),
        "epochs": to_records(loop.standing.epochs),
        "best_epoch": loop.best,
        "kept": f"epoch {loop.best}{' (averaged weights)' if recipe.ema_decay else ''}",
        "stopped_early": loop.stopped_early,
        "steps": loop.standing.step,
        "resumed": loop.standing.resumed,
        "parameters": {
            "trainable": sum(one.numel() for one in student.parameters()),
            "total": shape.weights,
        },
        **_validation(figures, calibrated),
    }
    if not crew.is_main:
        crew.wait()
        return record

    manifest = _write_adapter(
        recipe,
        inputs,
        base,
        student,
        weights,
        calibrated=calibrated,
        record=record,
        score=score,
        scores=scores,
    )
    write_predictions(recipe.run, inputs.dataset.validation, inputs.labels, scores.logprobs)
    record |= {
        "adapter": {"name": manifest.name, "digest": manifest.digest},
        "memory": estimate.to_record() | {"free": free},
        "peak_memory_bytes": peak_memory(crew.device),
        "seconds": round(time.monotonic() - started, 1),
        "training_seconds": round(sum(one.seconds for one in loop.standing.epochs), 1),
    }
    write_record(recipe.run, record)
    checkpoint.remove(recipe.run)
    crew.wait()
    _tell(console, recipe, record)
    return record


def _show_rows(inputs: Inputs, console: Console) -> None:
    rows = (*inputs.train, *inputs.validation)
    decode = inputs.tokenizer.decode
    verify_loss_mask(rows, inputs.spec, inputs.codes, decode)
    for row in choose(inputs.train, 3):
        console.print(draw(row, inputs.spec, decode), "", sep="\n", soft_wrap=True)
    console.print(
        f"{len(rows)} rows learn exactly their label's code, as between ⟦ and ⟧ above: "
        f"{len(inputs.train)} to train on, {len(inputs.validation)} for validation",
        soft_wrap=True,
    )


def _load(recipe: Recipe, crew: ProcessGroup, *, checkpointing: bool) -> LoraModel:
    return load_student(
        recipe.base,
        rank=recipe.rank,
        alpha=recipe.alpha,
        dropout=recipe.dropout,
        base_dtype=recipe.base_dtype,
        base_bits=recipe.base_bits,
        layers=recipe.lora_layers,
        attention=recipe.attention,
        device=str(crew.device),
        gradient_checkpointing=checkpointing,
    )


def _schedule(recipe: Recipe) -> Schedule:
    return Schedule(
        epochs=recipe.epochs,
        patience=recipe.patience,
        keep_by=recipe.keep_by,
        batch_size=recipe.batch_size,
        micro_batch_size=recipe.micro_batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_share=recipe.warmup_share,
        max_grad_norm=recipe.max_grad_norm,
        ema_decay=recipe.ema_decay,
        sublabel_learning_rate=recipe.sublabel_learning_rate,
        seed=recipe.seed,
    )


def _identity(
    recipe: Recipe, inputs: Inputs, base: BaseModel, crew: ProcessGroup
) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from."""
    return what_is_learnt(recipe, inputs.dataset, base) | {
        "threads": torch.get_num_threads(),
        "processes": crew.size,
        "bf16": crew.bf16,
    }


def _validation(figures: Figures, calibrated: Calibrated) -> dict[str, Any]:
    fitted = calibrated.calibration
    return {
        "validation": {
            "examples": figures.examples,
            "accuracy": figures.accuracy,
            "accuracy_interval_95": list(figures.interval),
            "macro_f1": figures.macro_f1,
            "accepted_share": calibrated.accepted_share,
            "accepted_precision": calibrated.accepted_precision,
        },
        "calibration": {
            "temperature": fitted.temperature,
            "examples": fitted.examples,
            "nll": fitted.nll,
            "ece": fitted.ece,
            "nll_uncalibrated": calibrated.raw_nll,
            "ece_uncalibrated": calibrated.raw_ece,
        },
    }


def _write_adapter(
    recipe: Recipe,
    inputs: Inputs,
    base: BaseModel,
    student: LoraModel,
    weights: dict[str, torch.Tensor],
    *,
    calibrated: Calibrated,
    record: dict[str, Any],
    score: Scorer,
    scores: Scores,
) -> Manifest:
    """Write weights and manifest, and prove that what is on disk scores as what was measured."""
    draft = recipe.run / DRAFT
    files = write_weights(draft, weights, student.config(recipe.base_name), recipe.adapter_dtype)
    if score.alone:
        student.load({name: torch.zeros_like(one) for name, one in weights.items()})
        student.load(read_weights(draft))
        if not np.array_equal(score(inputs.validation).logprobs, scores.logprobs):
            raise ProofFailed(f"{draft}: the weights read back score the messages differently")
    return finish(
        draft,
        recipe.run / ADAPTER,
        Manifest(
            name=recipe.name,
            created_at=record["created_at"],
            base=base,
            taxonomy=inputs.dataset.taxonomy,
            prompt=inputs.spec,
            decoding="code",
            codes=inputs.codes,
            lora=student.lora,
            calibration=calibrated.calibration,
            thresholds=calibrated.thresholds,
            golden=make_golden(inputs.spec, inputs.tokenizer.encoders),
            files=files,
            reference=make_reference(
                inputs.dataset,
                scores,
                calibrated.calibration,
                calibrated.thresholds,
                probes_per_label=recipe.probes_per_label,
                seed=recipe.seed,
            ),
            data=inputs.to_record() | {"recipe": recipe.to_record()},
            metrics={
                "validation": record["validation"],
                "training": {
                    key: record[key] for key in ("best_epoch", "kept", "steps", "stopped_early")
                },
            },
            versions={"python": platform.python_version(), "trainer": __version__, **versions()},
        ),
        inputs.tokenizer.encoders,
    )


def _mean_tokens(inputs: Inputs) -> float:
    return round(sum(len(row.ids) - 1 for row in inputs.train) / len(inputs.train), 1)


def _tell(console: Console, recipe: Recipe, record: dict[str, Any]) -> None:
    found, fitted = record["validation"], record["calibration"]
    low, high = found["accuracy_interval_95"]
    console.print(
        f"validation: accuracy {found['accuracy']:.1%} ({low:.1%} to {high:.1%}), macro-F1 "
        f"{found['macro_f1']:.3f}; temperature {fitted['temperature']:.3f} (NLL "
        f"{fitted['nll_uncalibrated']:.3f} to {fitted['nll']:.3f}, ECE "
        f"{fitted['ece_uncalibrated']:.3f} to {fitted['ece']:.3f})",
        soft_wrap=True,
    )
    console.print(
        f"{recipe.run / ADAPTER}: digest {record['adapter']['digest']}; "
        f"{record['seconds']:.0f} s, peak memory {record['peak_memory_bytes'] / 1e9:.1f} GB. "
        "Validation chose this adapter: clerk-trainer evaluate measures it on the hold-out.",
        soft_wrap=True,
    )
