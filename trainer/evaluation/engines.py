"""The two engines of an evaluation: the trainer's model, and a worker process.

The trainer never imports vLLM. It starts ``python -m worker classify`` and reads JSON lines.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from trainer.artifacts.evaluation import WorkerAnswer
from trainer.dataset.folder import Example
from trainer.errors import BadInput, ProofFailed
from trainer.model.lora_model import encode_prompts
from trainer.model.prompt import BaseTokenizer
from trainer.model.published import open_scorer
from trainer.progress import progress
from trainer.steering.sentences import SteeringPair
from worker.common.tables import TableError, read_table
from worker.contract import Manifest

# A 7B base on two cores takes 270 s until it answers; slower machines get more.
_START_S = 1800.0
_ANSWER_S = 300.0
_STOP_S = 60.0
_LAST_WORDS = 600


@dataclass(frozen=True, slots=True)
class WorkerAnswers:
    """A worker's answers by message id ({label, confidence, off_label_mass, scores...}), the
    seconds of messages asked one at a time, and the speed of all messages together."""

    answers: Mapping[str, Mapping[str, Any]]
    seconds_alone: Mapping[str, float]
    messages_per_s: float


def ask_worker(
    messages: Mapping[str, str],
    *,
    adapter: Path,
    base: Path | None,
    settings: Sequence[str],
    alone: int,
    program: Sequence[str] = (sys.executable, "-m", "worker"),
) -> WorkerAnswers:
    """Label ``messages`` (id: text) with a worker process.

    The first ``alone`` messages are first asked one at a time, for their latency. ``settings`` are
    KEY=VALUE settings of the worker. Messages are sent through a pipe and never written to disk.
    Raises BadInput with the worker's last output if it exits early, ProofFailed if a message gets
    no label.
    """
    session = _Session(program, adapter, base, settings)
    try:
        ids = list(messages)
        session.ask([messages[ids[0]]], wait_s=_START_S)  # returns when the engine is warm
        seconds_alone = {}
        for key in ids[:alone]:
            began = time.perf_counter()
            session.ask([messages[key]], wait_s=_ANSWER_S)
            seconds_alone[key] = time.perf_counter() - began
        began = time.perf_counter()
        found = session.ask([messages[key] for key in ids], wait_s=_ANSWER_S)
        seconds = time.perf_counter() - began
    finally:
        session.close()
    for key, answer in zip(ids, found, strict=True):
        if answer.get("label") is None:
            raise ProofFailed(f"message {key}: the worker gave no label: {answer.get('error')}")
    return WorkerAnswers(dict(zip(ids, found, strict=True)), seconds_alone, len(ids) / seconds)


class _Session:
    """One worker process. Threads read its output, so a full pipe blocks neither side."""

    def __init__(
        self, program: Sequence[str], adapter: Path, base: Path | None, settings: Sequence[str]
    ) -> None:
        given = (f"model.adapter={adapter.resolve()}", *settings)
        if base is not None:
            given = (f"model.base={base.resolve()}", *given)
        flags = [part for setting in given for part in ("--set", setting)]
        self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            [*program, "classify", "-i", "-", "-f", "jsonl", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            bufsize=1,
            env=_environment(),
        )
        self._lines: Queue[dict[str, Any] | None] = Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=target, daemon=True)
            for target in (self._read, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def ask(self, messages: Sequence[str], *, wait_s: float) -> list[dict[str, Any]]:
        """Send messages and return their answers in order; ``wait_s`` is the limit for each."""
        lines = [json.dumps({"message": text}, ensure_ascii=False) + "\n" for text in messages]
        # On a thread, because the worker stops reading while nobody reads its answers.
        writer = threading.Thread(target=self._write, args=(lines,), daemon=True)
        writer.start()
        answers = []
        with progress("labelling", len(lines)) as advance:
            for _ in lines:
                answers.append(self._answer(wait_s))
                advance()
        writer.join()
        return answers

    def close(self) -> None:
        """End the process: close its input, then terminate, then kill."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        # None: a killed process ends for certain, so there is no limit to wait for.
        for harder in (self._process.terminate, self._process.kill, None):
            try:
                self._process.wait(_STOP_S if harder else None)
                break
            except subprocess.TimeoutExpired:
                assert harder is not None
                harder()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def _answer(self, wait_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=wait_s)
        except Empty:
            raise BadInput(f"the worker gave no answer for {wait_s:.0f} s") from None
        if line is None:
            code = self._process.wait()
            self._readers[-1].join(_STOP_S)  # its last output may still be in the pipe
            words = " ".join("".join(self._errors).split())[-_LAST_WORDS:]
            raise BadInput(f"the worker exited early with code {code}: {words}")
        return line

    def _write(self, lines: Sequence[str]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it exited; _answer reports that
            self._process.stdin.writelines(lines)
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):  # a line that a library printed
                found = json.loads(line)
                # Only answers have a source; a library may print JSON too.
                if isinstance(found, dict) and "source" in found:
                    self._lines.put(found)
        # Tells _answer that the process has ended.
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)


def _environment() -> dict[str, str]:
    """Return this process's environment without settings of the worker, which would change the
    measurement."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLERK_")}
    if cache := os.environ.get("CLERK_CACHE"):
        kept["CLERK_CACHE"] = cache
    return kept


ROUNDED_TO_ZERO = 5e-7
"""A worker prints scores to six decimals; a printed 0 counts as this."""

ScoresByKey = dict[str, tuple[NDArray[np.float64], bool | None]]
"""By message key: raw scores, (outputs), and whether the unconstrained answer was a label."""

WORKER_ENGINE = "vllm"
"""The name of the worker's engine for adapters of language models."""

_ALONE = 20


@dataclass(frozen=True, slots=True)
class MessageSets:
    """The sets of messages to answer. Out-of-scope messages (by id) have no label. ``written`` are
    candidates for probes and are not part of any figure; ``pairs`` are held-out messages with a
    sentence added; ``pool`` has a teacher's labels, and was not learnt."""

    holdout: tuple[Example, ...]
    validation: tuple[Example, ...]
    out_of_scope: Mapping[str, str]
    written: tuple[Example, ...] = ()
    pairs: tuple[SteeringPair, ...] = ()
    pool: tuple[Example, ...] = ()

    @property
    def messages(self) -> dict[str, str]:
        """Every message by a key with its set's prefix."""
        known = {f"h:{example.id}": example.message for example in self.holdout}
        known |= {f"v:{example.id}": example.message for example in self.validation}
        known |= {f"p:{example.id}": example.message for example in self.written}
        known |= {f"t:{example.id}": example.message for example in self.pool}
        known |= {f"s:{pair.id}": pair.steered for pair in self.pairs}
        known |= {f"n:{pair.id}": pair.neutral for pair in self.pairs}
        return known | {f"o:{name}": message for name, message in self.out_of_scope.items()}


def read_messages(path: Path) -> dict[str, str]:
    """Read messages by id from a table with the columns ``message`` and, optionally, ``id``
    (default: file name and line). Raises BadInput that lists all problems."""
    found: dict[str, str] = {}
    wrong = []
    for number, row in read_fields(path, ("message",)):
        name = row.get("id") or f"{path.name}:{number}"
        if not row["message"].strip():
            wrong.append(f"{path}: line {number} has no text in 'message'")
        elif name in found:
            wrong.append(f"{path}: line {number} has the id {name!r} a second time")
        found[name] = row["message"]
    if wrong:
        raise BadInput(*wrong)
    return found


def read_fields(path: Path, needed: Collection[str]) -> list[tuple[int, dict[str, str]]]:
    """Return (line, cells by column) of a table (``worker.common.tables``). Raises BadInput that
    lists all broken rows, and for a missing column or a table without rows."""
    try:
        table = read_table(path, path.name)
        names = [name.casefold() for name in table.columns]
        rows = [(number, dict(zip(names, row, strict=True))) for number, row in table.rows()]
    except TableError as error:
        raise BadInput(str(error)) from None
    wrong = [
        f"{path}: no column {name!r}: there are {', '.join(table.columns)}"
        for name in needed
        if name not in names
    ]
    wrong += [f"{path}: {each.sentence(table.unit)}" for each in table.problems if each.broken]
    if wrong:
        raise BadInput(*wrong)
    if not rows:
        raise BadInput(f"{path}: has no message")
    return rows


def run_transformers(
    adapter: Path,
    base: Path | None,
    manifest: Manifest,
    tokenizer: BaseTokenizer,
    sets: MessageSets,
) -> tuple[ScoresByKey, float]:
    """Score every message. Return scores by key, and messages per second over the hold-out."""
    prompts = encode_prompts(sets.messages, manifest.prompt, tokenizer)
    scorer = open_scorer(adapter, base, manifest, list(prompts.values()))
    holdout = [key for key in prompts if key.startswith("h:")]
    rest = [key for key in prompts if not key.startswith("h:")]
    scores: ScoresByKey = {}
    speed = 0.0
    # The hold-out by itself and first, because its time becomes the measured speed.
    for keys in (holdout, rest):
        # Once each: scoring some again in other batches was tried, and decided nothing.
        found = scorer.score([prompts[key] for key in keys])
        speed = speed or len(keys) / found.seconds
        for key, row, inside in zip(keys, found.logprobs, found.in_set, strict=True):
            scores[key] = (row, bool(inside))
    return scores, speed


def run_worker(
    adapter: Path,
    base: Path | None,
    sets: MessageSets,
    console: Console,
    *,
    holdout_alone: bool,
    settings: Sequence[str],
) -> WorkerAnswers:
    """Label every message with a worker, or with ``holdout_alone`` only the hold-out."""
    messages = sets.messages
    if holdout_alone:
        messages = {key: text for key, text in messages.items() if key.startswith("h:")}
    console.print("starting the worker's engine (takes up to some minutes)", style="dim")
    return ask_worker(
        messages,
        adapter=adapter,
        base=base,
        settings=settings,
        alone=min(_ALONE, len(sets.holdout)),
    )


def scores_of(answers: WorkerAnswers, manifest: Manifest) -> ScoresByKey:
    """Turn a worker's calibrated scores back into raw log-probabilities, to the six decimals that
    it prints: T * ln(score) plus a constant that follows from the off-label mass. Raises BadInput
    for a model with a head, whose logits do not follow from the labels' scores."""
    if manifest.head is not None:
        raise BadInput(
            f"--engine {WORKER_ENGINE}: a worker returns scores of labels, not a head's logits: "
            "use --engine both"
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
