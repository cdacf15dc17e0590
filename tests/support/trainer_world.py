"""Shared by the trainer's tests: a small world to evaluate in, its command line, and complete
records of a run.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from typer.main import get_command
from typer.testing import CliRunner, Result

from trainer.artifacts.evaluation import Answer, PairAnswer, Prediction
from trainer.cli.main import app
from trainer.dataset.folder import Dataset
from worker.contract import Manifest


class World(NamedTuple):
    """The inputs of an evaluation."""

    adapter: Path
    base: Path
    dataset: Dataset
    manifest: Manifest

    def lines(self, name: str) -> list[str]:
        return (self.dataset.directory / name).read_text(encoding="utf-8").splitlines()


def run_cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def call(*arguments: object) -> tuple[int, dict[str, Any], str]:
    """Run ``clerk-trainer``; return exit code, the result of --json, standard error."""
    done = run_cli(*arguments)
    result = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return done.exit_code, result, done.stderr


def parse(command: str, *words: str) -> dict[str, Any]:
    """Arguments of a command line, checked and converted by the command's own parser. Raises its
    UsageError."""
    found = _commands()[command]
    return dict(found.make_context(command, list(words)).params)


@cache
def _commands() -> Any:
    return get_command(app).commands  # type: ignore[attr-defined]


def call_help(command: str) -> str:
    return CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout


def training_json(**changes: Any) -> dict[str, Any]:
    """A complete ``training.json``; keywords replace its keys."""
    record: dict[str, Any] = {
        "schema": "training/2",
        "name": "toy",
        "created_at": "2026-06-01T11:00:00Z",
        "adapter": {"name": "toy", "digest": "ab" * 32},
        "dataset": {"name": "tickets", "digest": "cd" * 32, "directory": "data/tickets"},
        "base": {"name": "tiny", "revision": "1"},
        "recipe": {"lora_rank": 16, "learning_rate": 2e-4},
        "seeds": {"python": 1, "torch": 1},
        "machine": {
            "cpu": "x86",
            "cores": 2,
            "threads": 2,
            "device": "cpu",
            "memory_bytes": 8_000_000_000,
            "system": "Linux x86_64",
        },
        "compute_dtype": "float32",
        "gradient_checkpointing": False,
        "tokens_per_message": 87.5,
        "epochs": [
            {
                "number": 1,
                "train_loss": 0.6,
                "sublabel_loss": None,
                "validation_loss": 0.3,
                "validation_calibrated_loss": 0.28,
                "validation_accuracy": 0.9,
                "validation_macro_f1": 0.9,
                "seconds": 800.0,
                "examples_per_s": 4.9,
                "tokens_per_s": 271.3,
            }
        ],
        "best_epoch": 1,
        "kept": "epoch 1",
        "stopped_early": False,
        "steps": 60,
        "resumed": 0,
        "parameters": {"trainable": 4_884_480, "total": 139_400_064},
        "validation": {
            "examples": 120,
            "accuracy": 0.9,
            "accuracy_interval_95": [0.83, 0.94],
            "macro_f1": 0.9,
            "accepted_share": 0.95,
            "accepted_precision": 0.96,
            "point_accepted_share": 0.95,
        },
        "calibration": {
            "temperature": 0.62,
            "examples": 120,
            "nll": 0.2,
            "ece": 0.012,
            "nll_uncalibrated": 0.25,
            "ece_uncalibrated": 0.03,
            "ece_by_chance": 0.05,
        },
        "memory": {
            "base": 1,
            "adapter": 1,
            "activations": 1,
            "logits": 1,
            "served_base": 1,
            "scoring": 1,
            "overhead": 1,
            "total": 5,
            "free": 10,
        },
        "peak_memory_bytes": 2_100_000_000,
        "seconds": 900.0,
        "training_seconds": 800.0,
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
    }
    return record | changes


def evaluation_json(**changes: Any) -> dict[str, Any]:
    """A complete ``evaluation.json`` of two labels and four messages; keywords replace its keys."""
    figures = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2}
    record: dict[str, Any] = {
        "schema": "evaluation/1",
        "created_at": "2026-06-01T12:00:00Z",
        "adapter": {"name": "toy", "digest": "ab" * 32, "path": "adapter"},
        "dataset": {
            "name": "tickets",
            "digest": "cd" * 32,
            "directory": "data/tickets",
            "holdout_sha256": "ef" * 32,
            "openings": 1,
        },
        "labels": ["a", "b"],
        "examples": 4,
        "accuracy": 1.0,
        "accuracy_interval_95": [0.51, 1.0],
        "macro_f1": 1.0,
        "per_label": [{"label": "a", **figures}, {"label": "b", **figures}],
        "confusion": [[2, 0], [0, 2]],
        "outside_labels": {"constrained": 0, "unconstrained": 0, "unconstrained_share": 0.0},
        "calibration": {
            "temperature": 1.0,
            "nll": 0.1,
            "nll_uncalibrated": 0.1,
            "ece": 0.01,
            "ece_uncalibrated": 0.01,
            "reliability": [{"confidence": 0.99, "accuracy": 1.0, "count": 4}],
        },
        "coverage": [{"threshold": 0.9, "coverage": 1.0, "accuracy": 1.0}],
        "review": {
            "confidence_below": 0.5,
            "off_label_mass_above": 0.05,
            "share": 0.0,
            "accepted_accuracy": 1.0,
            "wanted_precision": 0.95,
            "threshold_for_wanted": 0.5,
            "coverage_at_wanted": 1.0,
            "accuracy_at_wanted": 1.0,
            "coverage_by_point": 1.0,
            "accuracy_by_point": 1.0,
        },
        "off_label_mass": {"mean": 0.0, "p50": 0.0, "p99": 0.0},
        "engines": [engine_json("transformers", 20.0)],
        "agreement": None,
        "out_of_scope": None,
    }
    return record | changes


def make_pair_answers(
    answers: Sequence[Answer], labels: Sequence[str], steered: Collection[int] = ()
) -> list[PairAnswer]:
    """A pair for each answer: an instruction flips those at
    ``steered``, a neutral sentence none."""
    pairs = []
    for at, alone in enumerate(answers):
        named = labels[(labels.index(alone.predicted) + 1) % len(labels)]
        same = Prediction(**{"logprobs": {}} | dict(alone) | {"label": named})
        flipped = same.model_copy(update={"predicted": named}) if at in steered else same
        pairs.append(
            PairAnswer(
                id=f"{alone.id}#{at}",
                message=alone.id,
                family="orders",
                position="start",
                sentences=1,
                steered=flipped,
                neutral=same,
            )
        )
    return pairs


def engine_json(name: str, messages_per_s: float) -> dict[str, Any]:
    return {
        "name": name,
        "messages": 4,
        "accuracy": 1.0,
        "messages_per_s": messages_per_s,
        "latency_ms": None,
        "machine": "x86, 2 CPUs",
    }
