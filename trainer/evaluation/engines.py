"""The two engines that answer for an evaluation: transformers here, vLLM in a worker process."""

from __future__ import annotations

import math
import os
import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from trainer.dataset.examples import Example
from trainer.evaluation.adapter import code_ids, load_adapter_student, prompts_of
from trainer.evaluation.progress import make_bar
from trainer.evaluation.scoring import RawScores, make_scorer
from trainer.evaluation.worker_process import WorkerAnswers, ask_worker
from trainer.model.tokens import BaseTokenizer
from worker.contract import Manifest

BATCH_SIZES = (1, 8, 64)
ROUNDED_TO_ZERO = 5e-7
"""A worker prints scores to six decimals; one that it prints as 0 counts as this."""

Scored = dict[str, tuple[NDArray[np.float64], bool | None]]
"""By message key: raw log-probabilities (labels), and whether the best token of all was a code."""

_BATCH_SIZE = 64
_SENSITIVITY_MESSAGES = 64
_ALONE = 20
_SEED = 1


@dataclass(frozen=True, slots=True)
class Sets:
    """The three sets of examples to answer; out-of-scope messages have no label."""

    holdout: tuple[Example, ...]
    validation: tuple[Example, ...]
    outside: Mapping[str, str]

    @property
    def messages(self) -> dict[str, str]:
        """Every message by a key that tells the sets apart."""
        known = {f"h:{one.id}": one.message for one in self.holdout}
        known |= {f"v:{one.id}": one.message for one in self.validation}
        return known | {f"o:{name}": message for name, message in self.outside.items()}


def sample(items: Sequence[Any], limit: int | None) -> tuple[Any, ...]:
    """Return all, or ``limit`` drawn at random (always the same ones), in their order."""
    if limit is None or limit >= len(items):
        return tuple(items)
    chosen = sorted(random.Random(_SEED).sample(range(len(items)), limit))  # noqa: S311
    return tuple(items[at] for at in chosen)


def run_transformers(
    adapter: Path,
    base: Path,
    manifest: Manifest,
    tokenizer: BaseTokenizer,
    sets: Sets,
    *,
    device: str,
    console: Console,
) -> tuple[Scored, list[dict[str, Any]], float]:
    """Score every message; then some again in batches of other sizes. Return scores by key, the
    batch records, and messages a second over the hold-out."""
    student = load_adapter_student(adapter, base, manifest, device=device)
    prompts = prompts_of(sets.messages, manifest.prompt, tokenizer)
    keys = list(prompts)
    ids = code_ids(manifest.codes, manifest.taxonomy.names)
    scorer = make_scorer(student, manifest.prompt.prefix_ids, ids, [prompts[one] for one in keys])
    holdout = [one for one in keys if one.startswith("h:")]
    rest = [one for one in keys if not one.startswith("h:")]
    probe = sample(holdout, _SENSITIVITY_MESSAGES)
    total = len(keys) + len(BATCH_SIZES) * len(probe)
    found: Scored = {}
    batches = []
    with make_bar(console, "scoring", total) as advance:

        def score(chosen: Sequence[str], size: int) -> RawScores:
            return scorer.score([prompts[one] for one in chosen], batch_size=size, done=advance)

        scored = score(holdout, _BATCH_SIZE)
        speed = len(holdout) / scored.seconds
        for key, row, inside in zip(holdout, scored.logprobs, scored.in_set, strict=True):
            found[key] = (row, bool(inside))
        others = score(rest, _BATCH_SIZE)
        for key, row, inside in zip(rest, others.logprobs, others.in_set, strict=True):
            found[key] = (row, bool(inside))
        for size in BATCH_SIZES:
            again = score(probe, size)
            batches += [
                {
                    "id": key.removeprefix("h:"),
                    "batch_size": size,
                    "seconds": float(seconds),
                    "logprobs": dict(zip(manifest.taxonomy.names, map(float, row), strict=True)),
                }
                for key, row, seconds in zip(
                    probe, again.logprobs, again.batch_seconds, strict=True
                )
            ]
    return found, batches, speed


def run_vllm(
    adapter: Path,
    base: Path,
    sets: Sets,
    console: Console,
    *,
    holdout_alone: bool,
    settings: Sequence[str],
) -> WorkerAnswers:
    """Have the worker label every message, or with ``holdout_alone`` those of the hold-out."""
    wanted = sets.messages
    if holdout_alone:
        wanted = {key: one for key, one in wanted.items() if key.startswith("h:")}
    console.print("starting the worker's engine (half a minute, or minutes)", style="dim")
    with make_bar(console, "labelling", len(wanted)) as advance:
        return ask_worker(
            wanted,
            adapter=adapter,
            base=base,
            settings=settings,
            alone=min(_ALONE, len(sets.holdout)),
            done=advance,
        )


def scores_of(answers: WorkerAnswers, manifest: Manifest) -> Scored:
    """Turn a worker's calibrated scores back into raw log-probabilities, as far as six decimals
    carry: T * ln(score) up to a constant, which the off-label mass tells."""
    found: Scored = {}
    for key, answer in answers.answers.items():
        scores = [max(ROUNDED_TO_ZERO, answer["scores"][one]) for one in manifest.taxonomy.names]
        logits = manifest.calibration.temperature * np.log(np.array(scores))
        mass = max(ROUNDED_TO_ZERO, 1.0 - answer["off_label_mass"])
        found[key] = (logits - math.log(np.exp(logits).sum()) + math.log(mass), None)
    return found


def worker_records(holdout: Sequence[Example], answers: WorkerAnswers) -> list[dict[str, Any]]:
    """Return the worker's answers to the hold-out as records for a file."""
    return [
        {
            "id": one.id,
            "label": one.label,
            "predicted": answer["label"],
            "confidence": answer["confidence"],
            "off_label_mass": answer["off_label_mass"],
            "scores": answer["scores"],
            "seconds_alone": answers.seconds_alone.get(f"h:{one.id}"),
        }
        for one in holdout
        for answer in (answers.answers[f"h:{one.id}"],)
    ]


def describe_machine(device: str = "auto") -> str:
    """Name what was computed on: the GPU, or the processor and how many of it."""
    if torch.cuda.is_available() and device != "cpu":
        return str(torch.cuda.get_device_name())
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{model}, {len(os.sched_getaffinity(0))} CPUs"
