"""Runs and stores of toy adapters: a few bytes of weights, 300 predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support.toy_adapter import LABELS, toy_manifest
from tests.support.trainer_world import evaluation_json, make_pair_answers
from trainer.artifacts.evaluation import ANSWERS, PAIR_ANSWERS
from trainer.cli.main import app
from trainer.statistics.metrics import measure
from trainer.steering.measure import measure_steering
from worker.contract import FileDigest, Manifest, write_manifest
from worker.contract.digest import sha256_bytes

HOLDOUT = "a1" * 32
DATASET = "d1" * 32
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run folder: the messages at ``wrong`` are answered with another label, those at
    ``review`` sent to review; so many messages in a row are one ``group``; other keywords replace
    keys of the evaluation. An instruction in a message flips the answers at ``steered``; a neutral
    sentence flips none."""

    def make(
        name: str, wrong: Collection[int] = range(0, 300, 30), messages: int = 300, **changes: Any
    ) -> Path:
        run = tmp_path / name
        manifest = write_adapter(run / "adapter", name)
        write_evaluation(run / "evaluation", manifest, wrong, messages, **changes)
        return run

    return make


def write_adapter(directory: Path, name: str) -> Manifest:
    directory.mkdir(parents=True)
    files = {}
    for file, data in (
        ("adapter_model.safetensors", name.encode() * 1000),
        ("adapter_config.json", b"{}"),
    ):
        (directory / file).write_bytes(data)
        files[file] = FileDigest(sha256_bytes(data), len(data))
    manifest = toy_manifest(name=name, files=files, data={"digest": DATASET})
    write_manifest(directory, manifest)
    return manifest


def write_evaluation(
    directory: Path,
    manifest: Manifest,
    wrong: Collection[int] = range(0, 300, 30),
    messages: int = 300,
    *,
    group: int | None = None,
    steered: Collection[int] = (),
    review: Collection[int] = (),
    truth: Sequence[int] | None = None,
    **changes: Any,
) -> None:
    truth = truth or [at % len(LABELS) for at in range(messages)]
    predicted = [(label + (at in wrong)) % len(LABELS) for at, label in enumerate(truth)]
    groups = None if group is None else np.arange(messages) // group
    figures = measure(np.array(truth), np.array(predicted), LABELS, groups)
    directory.mkdir(parents=True, exist_ok=True)
    lines: Iterator[dict[str, Any]] = (
        {
            "id": f"m{at}",
            "label": LABELS[label],
            "predicted": LABELS[answer],
            "confidence": 0.9,
            "off_label_mass": 0.001,
            "review": at in review,
            "unconstrained_in_set": True,
            "group": None if group is None else at // group,
            "logprobs": {},
            "message": "a customer's words",
        }
        for at, (label, answer) in enumerate(zip(truth, predicted, strict=True))
    )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (directory / "predictions.jsonl").write_text(text)
    answers = ANSWERS.read(directory)
    pairs = make_pair_answers(answers, LABELS, steered)
    PAIR_ANSWERS.write(directory, pairs)
    evaluation = evaluation_json(
        adapter={"name": manifest.name, "digest": manifest.digest, "path": "adapter"},
        dataset={
            "name": "toy",
            "digest": DATASET,
            "directory": "data/toy",
            "holdout_sha256": HOLDOUT,
            "openings": 2,
        },
        labels=list(LABELS),
        examples=figures.examples,
        accuracy=figures.accuracy,
        accuracy_interval_95=list(figures.interval),
        design_effect=figures.effect,
        macro_f1=figures.macro_f1,
        per_label=[asdict(label) for label in figures.per_label],
        confusion=[list(row) for row in figures.confusion],
        outside_labels={"constrained": 0, "unconstrained": 3, "unconstrained_share": 0.01},
        mistakes=[{"message": "a customer's words"}],
        steering=measure_steering(pairs, answers).to_json(),
    )
    for key, value in changes.items():
        old = evaluation.get(key)
        evaluation[key] = old | value if isinstance(old, dict) and value else value
    (directory / "evaluation.json").write_text(json.dumps(evaluation))


Clerk = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def clerk(store: Path) -> Clerk:
    """Run a command on the store and return exit code, standard output and standard error."""

    def run(command: str, *arguments: object) -> tuple[int, str, str]:
        given = [command, *map(str, arguments), "--store", str(store)]
        done = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return run
