"""The hold-out's messages, and what the trainer's model and the worker's engine answer."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from trainer.artifacts.evaluation import BatchScore, WorkerAnswer
from trainer.dataset.folder import Example
from trainer.errors import BadInput
from trainer.evaluation.outputs import outputs_of
from trainer.evaluation.worker_process import WorkerAnswers, ask_worker
from trainer.model.forward import PromptIds
from trainer.model.lora_model import encode_prompts
from trainer.model.prompt import BaseTokenizer
from trainer.model.published import open_scorer
from trainer.model.scoring import BATCH_SIZE, PromptScorer, Scores
from trainer.terminal import make_bar
from worker.contract import Manifest

Element = TypeVar("Element")

_SEED = 1

BATCH_SIZES = (1, 8, BATCH_SIZE)
ROUNDED_TO_ZERO = 5e-7
"""A worker prints scores to six decimals; one that it prints as 0 counts as this."""

ScoresByKey = dict[str, tuple[NDArray[np.float64], bool | None]]
"""By message key: raw scores (outputs), and whether the likeliest answer of all was a label."""

WORKER_ENGINE = "vllm"
"""What the worker's engine is called where it answers for an adapter of a language model."""

_SENSITIVITY_MESSAGES = 64
_ALONE = 20


@dataclass(frozen=True, slots=True)
class MessageSets:
    """The sets of messages to answer; out-of-scope messages, by id, have no label. ``written`` are
    candidates for probes, which are no part of any figure."""

    holdout: tuple[Example, ...]
    validation: tuple[Example, ...]
    out_of_scope: Mapping[str, str]
    written: tuple[Example, ...] = ()

    @property
    def messages(self) -> dict[str, str]:
        """Every message by a key that tells the sets apart."""
        known = {f"h:{example.id}": example.message for example in self.holdout}
        known |= {f"v:{example.id}": example.message for example in self.validation}
        known |= {f"p:{example.id}": example.message for example in self.written}
        return known | {f"o:{name}": message for name, message in self.out_of_scope.items()}


def sample(elements: Sequence[Element], limit: int | None) -> tuple[Element, ...]:
    """Return all, or ``limit`` drawn at random (always the same ones), in their order."""
    if limit is None or limit >= len(elements):
        return tuple(elements)
    chosen = sorted(random.Random(_SEED).sample(range(len(elements)), limit))  # noqa: S311
    return tuple(elements[at] for at in chosen)


def read_messages(path: Path) -> dict[str, str]:
    """Read messages by id from JSON Lines or CSV with the fields ``message`` and, optionally,
    ``id`` (else the line's number). Raises BadInput with file and line."""
    found: dict[str, str] = {}
    for number, record in read_table(path):
        message = record.get("message")
        if not isinstance(message, str) or not message.strip():
            raise BadInput(f"{path}: line {number} has no text in 'message'")
        name = str(record.get("id") or f"{path.name}:{number}")
        if name in found:
            raise BadInput(f"{path}: line {number} has the id {name!r} a second time")
        found[name] = message
    if not found:
        raise BadInput(f"{path}: holds no message")
    return found


def read_table(path: Path) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, fields) of a .jsonl or .csv file. Raises BadInput."""
    if path.suffix.lower() not in {".csv", ".jsonl", ".ndjson"}:
        raise BadInput(f"{path}: must be a .jsonl or a .csv file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                reader = csv.DictReader(file, strict=True)
                yield from ((reader.line_num, row) for row in reader)
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _object(json.loads(line))
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a line is not a JSON object")
    return value


def run_transformers(
    adapter: Path,
    base: Path | None,
    manifest: Manifest,
    tokenizer: BaseTokenizer,
    sets: MessageSets,
    *,
    device: str,
    console: Console,
) -> tuple[ScoresByKey, list[BatchScore], float]:
    """Score every message; then some again in batches of other sizes. Return scores by key, the
    scores by batch size, and messages a second over the hold-out."""
    prompts = encode_prompts(sets.messages, manifest.prompt, tokenizer)
    scorer = open_scorer(adapter, base, manifest, list(prompts.values()), device=device)
    names = outputs_of(manifest).names
    holdout = [key for key in prompts if key.startswith("h:")]
    rest = [key for key in prompts if not key.startswith("h:")]
    probes = sample(holdout, _SENSITIVITY_MESSAGES)
    scores: ScoresByKey = {}
    total = len(prompts) + len(BATCH_SIZES) * len(probes)
    with make_bar(console, "scoring", total) as advance:
        scored = score_keys(scorer, prompts, holdout, BATCH_SIZE, advance)
        speed = len(holdout) / scored.seconds
        others = score_keys(scorer, prompts, rest, BATCH_SIZE, advance)
        for keys, found in ((holdout, scored), (rest, others)):
            for key, row, inside in zip(keys, found.logprobs, found.in_set, strict=True):
                scores[key] = (row, bool(inside))
        batches = []
        for size in BATCH_SIZES:
            found = score_keys(scorer, prompts, probes, size, advance)
            batches += _batch_scores(probes, size, found, names)
    return scores, batches, speed


def score_keys(
    scorer: PromptScorer,
    prompts: Mapping[str, PromptIds],
    keys: Sequence[str],
    batch_size: int,
    on_progress: Callable[[int], None],
) -> Scores:
    """Score the prompts of some keys, in their order."""
    chosen = [prompts[key] for key in keys]
    return scorer.score(chosen, batch_size=batch_size, on_progress=on_progress)


def run_worker(
    adapter: Path,
    base: Path | None,
    sets: MessageSets,
    console: Console,
    *,
    holdout_alone: bool,
    settings: Sequence[str],
) -> WorkerAnswers:
    """Have the worker label every message, or with ``holdout_alone`` those of the hold-out."""
    messages = sets.messages
    if holdout_alone:
        messages = {key: text for key, text in messages.items() if key.startswith("h:")}
    console.print("starting the worker's engine (half a minute, or minutes)", style="dim")
    with make_bar(console, "labelling", len(messages)) as advance:
        return ask_worker(
            messages,
            adapter=adapter,
            base=base,
            settings=settings,
            alone=min(_ALONE, len(sets.holdout)),
            on_progress=advance,
        )


def scores_of(answers: WorkerAnswers, manifest: Manifest) -> ScoresByKey:
    """Turn a worker's calibrated scores back into raw log-probabilities, as far as six decimals
    carry: T * ln(score) up to a constant, which the off-label mass tells. Raises BadInput for a
    model with a head: the labels' scores do not tell the logits of its outputs."""
    if manifest.head is not None:
        raise BadInput(
            f"--engine {WORKER_ENGINE}: the worker tells the labels' scores, not the logits of a "
            "head: choose --engine both"
        )
    scores: ScoresByKey = {}
    for key, answer in answers.answers.items():
        printed = [answer["scores"][label] for label in manifest.taxonomy.names]
        known = np.maximum(ROUNDED_TO_ZERO, np.array(printed))
        logits = manifest.calibration.temperature * np.log(known)
        mass = max(ROUNDED_TO_ZERO, 1.0 - answer["off_label_mass"])
        scores[key] = (logits - math.log(np.exp(logits).sum()) + math.log(mass), None)
    return scores


def worker_answers(holdout: Sequence[Example], answers: WorkerAnswers) -> list[WorkerAnswer]:
    """Return the worker's answers to the hold-out as records for a file."""
    records = []
    for example in holdout:
        key = f"h:{example.id}"
        answer = answers.answers[key]
        records.append(
            WorkerAnswer(
                id=example.id,
                label=example.label,
                predicted=answer["label"],
                confidence=answer["confidence"],
                off_label_mass=answer["off_label_mass"],
                scores=answer["scores"],
                seconds_alone=answers.seconds_alone.get(key),
            )
        )
    return records


def _batch_scores(
    keys: Sequence[str], size: int, scores: Scores, names: Sequence[str]
) -> list[BatchScore]:
    rows = zip(keys, scores.logprobs, scores.batch_seconds, strict=True)
    return [
        BatchScore(
            id=key.removeprefix("h:"),
            batch_size=size,
            seconds=float(seconds),
            logprobs=dict(zip(names, map(float, row), strict=True)),
        )
        for key, row, seconds in rows
    ]
