"""One training, from files to a published adapter: read it top to bottom."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from trainer import __version__
from trainer.evaluation.baseline import predict_baseline
from trainer.evaluation.calibration import calibrate
from trainer.errors import ProofFailed
from trainer.evaluation.decide import evaluate, prediction_records
from trainer.model.forward import collate, prove_forward
from trainer.training.loop import Schedule, fit
from trainer.evaluation.metrics import Figures, measure
from trainer.model.student import Student, load_student, versions
from trainer.training.inputs import Prepared, prepare
from trainer.training.progress import make_progress
from trainer.training.weights import check_target, publish, read_weights, round_weights, write_weights
from trainer.training.recipe import Recipe
from trainer.training.report import detail, print_report, summarize, write_run
from trainer.model.rows import Row, prove_masking
from trainer.model.score import Scores, score_rows
from worker.contract import Manifest, describe_base, make_golden


def train(recipe: Recipe, console: Console, *, replace_existing: bool = False) -> Manifest:
    """Train, calibrate, evaluate, publish to ``recipe.out`` and record in ``recipe.run_dir``.

    Raises BadInput or ContractError for what the caller has to mend, ProofFailed when a check of
    the trainer's own work fails; then nothing is published.
    """
    started = time.monotonic()
    check_target(recipe.out, replace_existing=replace_existing)
    prepared = prepare(recipe)
    labels = prepared.taxonomy.names
    rows = (*prepared.train, *prepared.validation, *prepared.holdout)
    example = prove_masking(rows, prepared.spec, prepared.codes, prepared.tokenizer.decode)
    console.print(f"{example}\n", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{len(rows)} rows learn exactly their label's code, as between ⟦ and ⟧ above: "
        f"{len(prepared.train)} to train on, {len(prepared.validation)} for validation, "
        f"{len(prepared.holdout)} held out",
        highlight=False,
        soft_wrap=True,
    )

    student = _load(recipe)
    prefix = torch.tensor(prepared.spec.prefix_ids, device=student.device)
    probe = collate(prepared.validation[:4], len(prefix), 0, student.device)
    prove_forward(student.causal, prefix, probe, share_prefix=recipe.share_prefix)
    score = _Scorer(recipe, prepared, student, prefix)

    def validate() -> tuple[float, float]:
        scores = score(prepared.validation, autocast=recipe.autocast)
        return scores.loss, measure(scores.truth, scores.predicted, labels).macro_f1

    epochs, best, state = fit(
        student, prepared.train, prefix, _schedule(recipe), validate, make_progress(console)
    )
    weights = round_weights(state, recipe.adapter_dtype)
    student.load(weights)

    validation = score(prepared.validation)
    calibrated = calibrate(
        validation.logprobs,
        validation.truth,
        review_precision=recipe.review_precision,
        review_floor=recipe.review_floor,
        off_label_quantile=recipe.off_label_quantile,
        seed=recipe.seed,
    )
    holdout = score(prepared.holdout)
    evaluation = evaluate(
        holdout, prepared.codes, calibrated.calibration.temperature, calibrated.thresholds
    )
    baseline = _baseline(prepared, recipe.seed)
    summary = summarize(
        epochs=epochs,
        best=best,
        validation=measure(validation.truth, validation.predicted, labels),
        calibrated=calibrated,
        holdout=evaluation,
        baseline=baseline,
        seconds=time.monotonic() - started,
    )

    draft = recipe.out.with_name(f".{recipe.out.name}.draft")
    files = write_weights(draft, weights, student.config(recipe.base_name), recipe.adapter_dtype)
    student.load({name: torch.zeros_like(one) for name, one in weights.items()})
    student.load(read_weights(draft))
    if not np.array_equal(score(prepared.holdout).logprobs, holdout.logprobs):
        raise ProofFailed(f"{draft}: the weights read back score the hold-out differently")

    manifest = publish(
        draft,
        recipe.out,
        Manifest(
            name=recipe.name,
            created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            base=describe_base(recipe.base, recipe.base_name, recipe.base_revision),
            taxonomy=prepared.taxonomy,
            prompt=prepared.spec,
            decoding="code",
            codes=prepared.codes,
            lora=student.lora,
            calibration=calibrated.calibration,
            thresholds=calibrated.thresholds,
            golden=make_golden(prepared.spec, prepared.tokenizer.encoders),
            files=files,
            data=prepared.to_record() | {"recipe": recipe.to_record()},
            metrics=summary,
            versions={"python": platform.python_version(), "trainer": __version__, **versions()},
        ),
        prepared.tokenizer.encoders,
    )
    write_run(
        recipe.run_dir,
        {
            "adapter": {"name": manifest.name, "digest": manifest.digest},
            **summary,
            **detail(labels, epochs, evaluation, baseline),
        },
        prediction_records(prepared.splits.holdout, evaluation.decisions),
    )
    print_report(console, evaluation, baseline, calibrated)
    size = sum(one.bytes for one in files.values())
    console.print(
        f"{recipe.out}: {size / 1e6:.1f} MB, digest {manifest.digest}; figures in "
        f"{recipe.run_dir}; {time.monotonic() - started:.0f} s in all",
        highlight=False,
        soft_wrap=True,
    )
    return manifest


class _Scorer:
    """Scores rows with everything but the rows bound."""

    def __init__(
        self, recipe: Recipe, prepared: Prepared, student: Student, prefix: Tensor
    ) -> None:
        self._share_prefix = recipe.share_prefix
        self._label_ids = prepared.label_ids
        self._student = student
        self._prefix = prefix

    def __call__(self, rows: tuple[Row, ...], *, autocast: bool = False) -> Scores:
        return score_rows(
            self._student,
            rows,
            self._prefix,
            self._label_ids,
            share_prefix=self._share_prefix,
            autocast=autocast,
        )


def _load(recipe: Recipe) -> Student:
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    return load_student(
        recipe.base,
        rank=recipe.rank,
        alpha=recipe.alpha,
        dropout=recipe.dropout,
        base_dtype=recipe.base_dtype,
        attention=recipe.attention,
        device=recipe.device,
        gradient_checkpointing=recipe.gradient_checkpointing,
    )


def _schedule(recipe: Recipe) -> Schedule:
    return Schedule(
        epochs=recipe.epochs,
        patience=recipe.patience,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_share=recipe.warmup_share,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        autocast=recipe.autocast,
        share_prefix=recipe.share_prefix,
    )


def _baseline(prepared: Prepared, seed: int) -> Figures:
    splits, labels = prepared.splits, prepared.taxonomy.names
    truth = np.array([labels.index(one.label) for one in splits.holdout], dtype=np.int64)
    predicted = predict_baseline(splits.train, splits.validation, splits.holdout, labels, seed=seed)
    return measure(truth, predicted, labels)
