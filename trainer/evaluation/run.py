"""One evaluation, from a published adapter to ``evaluation.json``: read it top to bottom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from trainer.dataset.folder import Dataset, count_openings, open_dataset, open_holdout
from trainer.errors import BadInput
from trainer.evaluation import predictions as files
from trainer.evaluation.adapter import read_adapter
from trainer.evaluation.agreement import compare_answers, verify_agreement
from trainer.evaluation.engines import (
    Scored,
    Sets,
    describe_machine,
    run_transformers,
    run_vllm,
    sample,
    scores_of,
    worker_records,
)
from trainer.evaluation.folder import check_target, fresh_folder, write_record
from trainer.evaluation.messages import read_messages
from trainer.evaluation.predictions import Prediction, predict
from trainer.evaluation.recompute import RECORD
from trainer.evaluation.summary import Evidence, Facts, summarize
from trainer.evaluation.worker_process import WorkerAnswers
from worker.contract import Manifest
from worker.contract.timestamps import rfc3339_now

Engine = Literal["transformers", "vllm", "both"]


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate, and how. ``limit`` takes so many messages of each set (a try)."""

    adapter: Path
    dataset: Path
    base: Path
    out: Path
    engine: Engine
    out_of_scope: Path | None
    wanted_precision: float
    tolerance: float
    limit: int | None
    device: str
    worker_settings: tuple[str, ...]


def evaluate_adapter(request: Request, console: Console) -> dict[str, Any]:
    """Evaluate, write the result folder (the record last) and return the record.

    The hold-out is opened once the adapter has passed every check. Raises BadInput,
    AdapterRefused, and ProofFailed when engines disagree or an answer is outside the set; then
    nothing is written.
    """
    check_target(request.out, RECORD)
    manifest, tokenizer = read_adapter(request.adapter, request.base)
    dataset = open_dataset(request.dataset)
    check_fits(manifest, dataset, console)
    outside = read_messages(request.out_of_scope) if request.out_of_scope else {}
    holdout = open_holdout(dataset, purpose="evaluate", subject=manifest.digest)
    sets = Sets(
        sample(holdout, request.limit),
        sample(dataset.validation, request.limit),
        dict(sample(tuple(outside.items()), request.limit)),
    )
    speeds: list[dict[str, Any]] = []
    batches: list[dict[str, Any]] | None = None
    answers: WorkerAnswers | None = None
    scores: Scored = {}
    if request.engine != "vllm":
        scores, batches, speed = run_transformers(
            request.adapter,
            request.base,
            manifest,
            tokenizer,
            sets,
            device=request.device,
            console=console,
        )
        speeds.append(
            {
                "name": "transformers",
                "messages_per_s": speed,
                "machine": describe_machine(request.device),
            }
        )
    if request.engine != "transformers":
        answers = run_vllm(
            request.adapter,
            request.base,
            sets,
            console,
            holdout_alone=bool(scores),
            settings=request.worker_settings,
        )
        speeds.append(
            {
                "name": "vllm",
                "messages_per_s": answers.messages_per_s,
                "machine": describe_machine(),
            }
        )
        if not scores:
            scores = scores_of(answers, manifest)
    evidence = Evidence(
        holdout=_predict(manifest, scores, "h", {one.id: one.label for one in sets.holdout}),
        validation=_predict(manifest, scores, "v", {one.id: one.label for one in sets.validation}),
        out_of_scope=_predict(manifest, scores, "o", dict.fromkeys(sets.outside)) or None,
        batches=batches,
        vllm=worker_records(sets.holdout, answers) if answers else None,
    )
    facts = Facts(
        created_at=rfc3339_now(),
        limited=request.limit is not None,
        adapter={
            "name": manifest.name,
            "digest": manifest.digest,
            "path": str(request.adapter.resolve()),
        },
        dataset=describe_dataset(dataset),
        labels=manifest.taxonomy.names,
        temperature=manifest.calibration.temperature,
        limits=manifest.thresholds,
        wanted_precision=request.wanted_precision,
        tolerance=request.tolerance,
        speeds=tuple(speeds),
    )
    record = summarize(facts, evidence)
    if request.engine == "both":
        assert evidence.vllm is not None
        found = compare_answers(evidence.holdout, evidence.vllm, facts.labels, facts.temperature)
        verify_agreement(found, request.tolerance)
    _write(request.out, record, evidence)
    return record


def check_fits(manifest: Manifest, dataset: Dataset, console: Console) -> None:
    """Raise BadInput when adapter and dataset have other labels; warn when the adapter was
    trained on another dataset, whose training messages this hold-out may hold."""
    if set(manifest.taxonomy.names) != set(dataset.taxonomy.names):
        odd = sorted(set(manifest.taxonomy.names) ^ set(dataset.taxonomy.names))
        raise BadInput(
            f"{dataset.directory}: its labels are not the adapter's ({', '.join(odd)} only on one "
            "side): use the dataset it was trained on"
        )
    trained_on = manifest.data.get("digest")
    if trained_on != dataset.digest:
        console.print(
            f"[yellow]note[/yellow] the adapter's manifest does not name this dataset "
            f"({dataset.digest[:12]}) as the one it was trained on: its training messages may be "
            "in this hold-out, and every figure below too good",
            soft_wrap=True,
        )


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Return what a result says about the dataset it was measured on."""
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "directory": str(dataset.directory.resolve()),
        "holdout_sha256": dataset.record["files"]["holdout.jsonl"]["sha256"],
        "openings": count_openings(dataset),
    }


def _predict(
    manifest: Manifest,
    scores: Scored,
    kind: str,
    truth: Mapping[str, str | None],
) -> list[Prediction]:
    rows = [scores[f"{kind}:{name}"] for name in truth]
    return predict(
        list(truth),
        list(truth.values()),
        np.array([row for row, _ in rows]).reshape(len(rows), len(manifest.taxonomy.names)),
        [inside for _, inside in rows],
        labels=manifest.taxonomy.names,
        temperature=manifest.calibration.temperature,
        limits=manifest.thresholds,
    )


def _write(out: Path, record: Mapping[str, Any], evidence: Evidence) -> None:
    with fresh_folder(out) as draft:
        files.write_predictions(draft / files.PREDICTIONS, evidence.holdout)
        files.write_predictions(draft / files.VALIDATION, evidence.validation)
        if evidence.out_of_scope is not None:
            files.write_predictions(draft / files.OUT_OF_SCOPE, evidence.out_of_scope)
        if evidence.batches is not None:
            files.write_lines(draft / files.BATCHES, evidence.batches)
        if evidence.vllm is not None:
            files.write_lines(draft / files.VLLM, evidence.vllm)
        write_record(draft / RECORD, record)
