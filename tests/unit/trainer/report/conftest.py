"""A complete run folder without a model: scores are drawn at random, and every figure is computed
from them by the code of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.toy_adapter import toy_manifest
from tests.support.trainer_world import make_pair_answers, training_json
from trainer.artifacts.duel import CostInput
from trainer.artifacts.evaluation import (
    EVALUATION,
    OUT_OF_SCOPE,
    PAIR_ANSWERS,
    PREDICTIONS,
    VALIDATION,
    EvaluatedAdapter,
    EvaluatedDataset,
    Prediction,
)
from trainer.cost import CostInputs
from trainer.cost_inputs import CollectedInputs, make_record
from trainer.dataset.extra_files import COPIES, Traffic, copy_lines
from trainer.dataset.folder import Dataset, Example, write_dataset
from trainer.evaluation.predictions import Outputs, predict
from trainer.evaluation.summary import EngineSpeed, Predictions, Setup, summarize
from worker.contract import Label, Taxonomy, Thresholds, write_manifest
from worker.contract.digest import sha256_bytes

LABELS = ("account_access", "card_delivery", "billing_fee", "billing_refund")
LIMITS = Thresholds(0.72, 0.2)
TEMPERATURE = 0.62


@dataclass(frozen=True, slots=True)
class Made:
    """Where the run and its dataset lie, and the hold-out's examples."""

    run: Path
    dataset: Path
    holdout: tuple[Example, ...]
    evaluation: dict[str, Any]


def draw_scores(truth: np.ndarray, labels: int, seed: int) -> np.ndarray:
    """Return raw log-probabilities (messages, labels): mostly right, label 2 often taken for 3,
    0 and 1 for each other, and a little mass outside."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.0, (len(truth), labels))
    logits[np.arange(len(truth)), truth] += rng.normal(6.0, 1.4, len(truth))
    doubt = rng.random(len(truth))
    for at, true in enumerate(truth):
        if true == 2 and doubt[at] < 0.16:
            logits[at, 3] += rng.normal(7.0, 1.5)
        if true < 2 and doubt[at] < 0.14:
            logits[at, 1 - true] += rng.normal(6.0, 1.5)
    outside = rng.exponential(0.02, len(truth))
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.asarray(logs + np.log1p(-np.minimum(outside, 0.9))[:, None])


def predictions(examples: Sequence[Example], labels: Sequence[str], seed: int) -> list[Prediction]:
    truth = np.array([labels.index(example.label) for example in examples])
    scores = draw_scores(truth, len(labels), seed)
    inside = (np.random.default_rng(seed).random(len(examples)) > 0.004).tolist()
    found = predict(
        [example.id for example in examples],
        [example.label for example in examples],
        scores,
        inside,
        outputs=Outputs(tuple(labels)),
        temperature=TEMPERATURE,
        limits=LIMITS,
    )
    spoken = ("de", "de", "en", "unknown")  # of every four messages
    return [each.model_copy(update={"language": spoken[at % 4]}) for at, each in enumerate(found)]


def write_run(
    directory: Path,
    *,
    labels: Sequence[str] = LABELS,
    text: Callable[[int], str] = "message number {}".format,
    per_label: int = 60,
    steps: int = 60,
    seed: int = 3,
    copies: Mapping[str, int] | None = None,
) -> Made:
    """Write a run folder with everything, and its dataset folder."""
    splits = {}
    number = 0
    for split, share in (("train", 1.0), ("validation", 0.5), ("holdout", 1.0)):
        found = []
        for label in labels:
            for _ in range(int(per_label * share)):
                found.append(Example(f"{split}-{number}", text(number), label))
                number += 1
        splits[split] = found
    taxonomy = Taxonomy("bank", "1", "", tuple(Label(label, "") for label in labels))
    traffic = Traffic({e.id: (copies or {}).get(e.id, 1) for e in splits["holdout"]}, 9)
    counted, count = copy_lines(traffic)
    known = {} if copies is None else traffic.describe()
    files = {COPIES: {"sha256": sha256_bytes(counted), "bytes": len(counted), "rows": count}}
    dataset = write_dataset(
        directory / "dataset",
        name="tickets",
        taxonomy=taxonomy,
        splits=splits,
        settings={"seed": 0, "conflicts": "drop", "holdout_share": 0.15},
        counts={
            "rows_read": number + 41,
            "exact_duplicates_removed": 29,
            "empty_dropped": 0,
            "surplus": {labels[0]: 7, labels[1]: 5},
            "conflicts": {"rows_left_out": 12},
            "cleaned": {"normalized": 230},
            **known,
        },
        extra_files=files if copies else {},
        sources=[{"name": "export.csv", "rows": number + 41, "sha256": "ef" * 32}],
    )
    if copies:
        (dataset.directory / COPIES).write_bytes(counted)
    run = directory / "run"
    adapter = write_adapter(run / "adapter", dataset)
    named: dict[str, Any] = {
        "name": dataset.name,
        "digest": dataset.digest,
        "directory": str(dataset.directory),
    }
    holdout = predictions(splits["holdout"], labels, seed)
    validation = predictions(splits["validation"], labels, seed + 1)
    pairs = make_pair_answers(holdout, labels)
    evaluation = summarize(
        Setup(
            created_at="2026-06-01T12:00:00Z",
            adapter=EvaluatedAdapter(**adapter, path="adapter"),
            dataset=EvaluatedDataset(**named, holdout_sha256=dataset.holdout_sha256, openings=1),
            outputs=Outputs(tuple(labels)),
            temperature=TEMPERATURE,
            limits=LIMITS,
            wanted_precision=0.98,
            speeds=(EngineSpeed("torch", 21.4, "cpu x86"),),
        ),
        Predictions(holdout, validation, validation[:40], None, pairs),
    )
    (run / "evaluation").mkdir(parents=True)
    PREDICTIONS.write(run / "evaluation", holdout)
    VALIDATION.write(run / "evaluation", validation)
    OUT_OF_SCOPE.write(run / "evaluation", validation[:40])
    PAIR_ANSWERS.write(run / "evaluation", pairs)
    EVALUATION.write(run / "evaluation", evaluation)
    put(run / "training.json", training_record(adapter, named, steps))
    lines = [json.dumps(step) + "\n" for step in step_records(steps)]
    (run / "steps.jsonl").write_text("".join(lines), encoding="utf-8")
    put(run / "duel" / "duel.json", duel_record(evaluation.to_json()))
    put(run / "cost.json", cost_record(hosted_price=2.5))
    put(directory / "dataset" / "check.json", check_record(dataset.digest))
    return Made(run, dataset.directory, tuple(splits["holdout"]), evaluation.to_json())


def write_adapter(directory: Path, dataset: Dataset) -> dict[str, str]:
    """Write an adapter of a manifest and no weights; return its name and digest."""
    directory.mkdir(parents=True)
    manifest = toy_manifest(name="june", taxonomy=dataset.taxonomy, data={"digest": dataset.digest})
    write_manifest(directory, manifest)
    return {"name": manifest.name, "digest": manifest.digest}


def put(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=True), encoding="utf-8")


def training_record(adapter: dict[str, str], dataset: dict[str, Any], steps: int) -> dict[str, Any]:
    epochs = [
        {
            "number": at + 1,
            "train_loss": 0.6 / (at + 1),
            "sublabel_loss": None,
            "validation_loss": (0.31, 0.21, 0.24)[at],
            "validation_calibrated_loss": (0.3, 0.2, 0.23)[at],
            "validation_accuracy": (0.912, 0.944, 0.941)[at],
            "validation_macro_f1": (0.908, 0.942, 0.94)[at],
            "seconds": 812.0,
            "examples_per_s": 4.9,
            "tokens_per_s": 271.3,
        }
        for at in range(3)
    ]
    return training_json(
        name="june",
        adapter=adapter,
        dataset=dataset,
        recipe={"lora_rank": 16, "learning_rate": 2e-4, "epochs": 3, "batch_tokens": 4096},
        seeds={"order": 0, "weights": 1},
        epochs=epochs,
        best_epoch=2,
        kept="epoch 2",
        steps=steps,
        seconds=2436.0,
        versions={"python": "3.11.9", "torch": "2.13.0"},
    )


def step_records(steps: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "step": at + 1,
            "epoch": 1 + 3 * at // steps,
            "examples": 16,
            "loss": float(2.4 * np.exp(-6 * at / steps) + 0.12 + abs(rng.normal(0, 0.09))),
            "sublabel_loss": None,
            "learning_rate": 2e-4 * min(1, (at + 1) / (0.1 * steps)) * (1 - at / steps),
            "gradient_norm": float(1 + rng.exponential(0.6)),
            "examples_per_s": 4.9,
        }
        for at in range(steps)
    ]


def duel_record(evaluation: dict[str, Any]) -> dict[str, Any]:
    accuracy, bounds = evaluation["accuracy"], evaluation["accuracy_interval_95"]
    return {
        "schema": "duel/2",
        "created_at": "2026-06-01T12:30:00Z",
        "adapter": {name: evaluation["adapter"][name] for name in ("name", "digest")},
        "dataset": evaluation["dataset"],
        "labels": evaluation["labels"],
        "examples": evaluation["examples"],
        "candidates": [
            candidate("adapter", "adapter", accuracy, bounds, 2436.0, 21.4),
            candidate("tfidf", "baseline", accuracy - 0.03, [b - 0.03 for b in bounds], 4.1, 9120),
            candidate("minilm", "baseline", accuracy - 0.02, [b - 0.02 for b in bounds], 61, 410),
        ],
        "pairs": [
            pair("adapter", "tfidf", 0.03, (0.012, 0.049), 0.0009, 0.0027),
            pair("adapter", "minilm", 0.02, (0.004, 0.036), 0.012, 0.024),
        ],
        "minimum_detectable_difference": 0.018,
        "verdict": "The adapter is the most accurate, clearly.",
        "recommendation": "adapter",
        "conclusion": "adapter",
        "tested_baseline": "minilm",
        "required_messages": 3162,
        "rules": "written down before",
        "margin": 0.02,
        "learning_curve": [
            {"candidate": name, "per_label": size, "examples": 4 * size, "validation_accuracy": y}
            for name, ys in (("tfidf", (0.79, 0.86, 0.91)), ("minilm", (0.85, 0.89, 0.92)))
            for size, y in zip((15, 60, 240), ys, strict=True)
        ],
    }


def candidate(
    name: str, kind: str, accuracy: float, bounds: Sequence[float], seconds: float, speed: float
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "accuracy": accuracy,
        "accuracy_interval_95": list(bounds),
        "macro_f1": accuracy - 0.004,
        "train_seconds": seconds,
        "messages_per_s": speed,
        "outside_labels": 0,
    }


def pair(
    a: str, b: str, difference: float, bounds: Sequence[float], p: float, holm: float
) -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "difference": difference,
        "interval_95": list(bounds),
        "mcnemar_p": p,
        "p_holm": holm,
        "a_only": 31,
        "b_only": 12,
        "minimum_detectable_difference": 0.018,
        "non_inferiority_p": 0.4,
        "worst_difference": bounds[1],
    }


def check_record(digest: str) -> dict[str, Any]:
    findings = [
        {"name": "balance", "verdict": "ok", "found": "all of one size", "advice": ""},
        {
            "name": "label names",
            "verdict": "warn",
            "found": "1 pair of names alike",
            "advice": "Rename or merge billing_fee and billing_refund.",
        },
    ]
    return {
        "schema": "check/2",
        "dataset": {"name": "tickets", "digest": digest},
        "verdict": "warn",
        "verdicts": {"balance": "ok", "label names": "warn"},
        "suspects": 3,
        "findings": findings,
        "settings": {"seed": 1, "embeddings": False},
        "queue": "tickets-review.csv",
        "decisions_kept": 0,
    }


def cost_record(hosted_price: float) -> dict[str, Any]:
    given = CostInputs(
        training_hours=0.7,
        training_price_per_hour=2.0,
        labelling_hours=40,
        labelling_rate_per_hour=30,
        serving_price_per_hour=0.9,
        messages_per_s=21.4,
        utilisation=0.3,
        replicas=1,
        hosted_price_per_million_input_tokens=hosted_price,
        hosted_price_per_million_output_tokens=10.0,
        input_tokens_per_message=300,
        output_tokens_per_message=4,
        messages_per_month=2e6,
    )
    inputs = (
        CostInput(name="training_hours", value=0.7, unit="machine hours", source="measured"),
        CostInput(name="volumes", value=[1e5, 2e6], unit="messages", source="flag --set"),
    )
    return make_record(
        CollectedInputs(given, "EUR", (1e5, 2e6), inputs, given, given, (), (), ())
    ).to_json()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return a complete run with its dataset."""
    return write_run(tmp_path)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Made]:
    """Return ``write_run`` for the test's folder."""
    return lambda **settings: write_run(tmp_path, **settings)


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Return a function that changes keys of a JSON record."""

    def change(path: Path, **changes: Any) -> None:
        put(path, json.loads(path.read_text(encoding="utf-8")) | changes)

    return change
