"""The worker's own command line as a second engine: the same messages through vLLM.

The trainer never imports vLLM. It starts ``python -m worker classify`` and reads JSON lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from trainer.errors import BadInput, ProofFailed

_START_S = 1800.0
_ANSWER_S = 300.0
_STOP_S = 60.0
_LAST_WORDS = 600


@dataclass(frozen=True, slots=True)
class WorkerAnswers:
    """A worker's answers by message id ({label, confidence, off_label_mass, scores...}), the
    seconds of those asked one at a time, and the speed of all together."""

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
    on_progress: Callable[[int], None] | None = None,
    program: Sequence[str] = (sys.executable, "-m", "worker"),
) -> WorkerAnswers:
    """Label ``messages`` (id: text) with a worker process.

    The first ``alone`` of them are also asked one at a time, before the rest, for their latency.
    ``settings`` are further KEY=VALUE settings of the worker. Messages travel through a pipe and
    touch no disk. Raises BadInput when the worker does not start (its last words are in the
    error), ProofFailed when it leaves a message without a label.
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
        found = session.ask(
            [messages[key] for key in ids], wait_s=_ANSWER_S, on_progress=on_progress
        )
        seconds = time.perf_counter() - began
    finally:
        session.close()
    for key, answer in zip(ids, found, strict=True):
        if answer.get("label") is None:
            raise ProofFailed(f"message {key}: the worker gave no label: {answer.get('error')}")
    return WorkerAnswers(dict(zip(ids, found, strict=True)), seconds_alone, len(ids) / seconds)


class _Session:
    """One worker process. A thread reads its output, so that a full pipe blocks neither side."""

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

    def ask(
        self,
        messages: Sequence[str],
        *,
        wait_s: float,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Send messages and return their answers in order. ``wait_s`` bounds each answer's wait."""
        lines = [json.dumps({"message": text}, ensure_ascii=False) + "\n" for text in messages]
        # On a thread of its own: the worker reads no further while its answers are not read.
        writer = threading.Thread(target=self._write, args=(lines,), daemon=True)
        writer.start()
        answers = []
        for _ in lines:
            answers.append(self._answer(wait_s))
            if on_progress:
                on_progress(1)
        writer.join()
        return answers

    def close(self) -> None:
        """End the process: end of input first, then harder."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
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
            self._readers[-1].join(_STOP_S)  # its last words may be on their way
            words = " ".join("".join(self._errors).split())[-_LAST_WORDS:]
            raise BadInput(f"the worker ended early, with exit code {code}: {words}")
        return line

    def _write(self, lines: Sequence[str]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it ended: the end of its output says so
            self._process.stdin.writelines(lines)
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):  # a library's chatter, not an answer
                found = json.loads(line)
                if isinstance(found, dict) and "line" in found:
                    self._lines.put(found)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)


def _environment() -> dict[str, str]:
    """This process's environment without the worker's own settings: the adapter decides."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLERK_")}
    if cache := os.environ.get("CLERK_CACHE"):
        kept["CLERK_CACHE"] = cache
    return kept
