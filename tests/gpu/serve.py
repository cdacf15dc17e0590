"""The worker's half of the smoke test: two adapters served by the real worker through Kafka, its
scores compared with transformers', and one adapter swapped for the other while messages come.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from worker.contract.store import Pointer, write_pointer
from worker.contract.timestamps import rfc3339_now
from worker.demo.broker import LocalBroker
from worker.demo.client import Publisher, Watcher, create_demo_topics
from worker.demo.models import read_samples
from worker.demo.program import Program, start_worker

_READY_S = 3600.0
NO_ROOM = "another engine for it takes about"
"""What the worker says of an adapter that there is no memory for (worker.engine.memory)."""
_STALL_S = 900.0
_TOPICS = ("smoke.in", "smoke.out", "smoke.review", "smoke.dead")
_AGREES = 0.25
"""The engine may differ from transformers by a quarter of what the adapter changes, on average.
Without an adapter, or with the wrong one, it would differ by all of it."""

_LEAST = 1e-3
"""Smaller probabilities are not compared: records are rounded to six digits."""


class SmokeFailed(RuntimeError):
    """The engine does not do what was expected."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Transformers' scores for each message, with each adapter and without: natural log-
    probabilities."""

    adapters: tuple[str, ...]
    labels: tuple[str, ...]
    messages: Mapping[str, str]
    logprobs: Mapping[str, Mapping[str, list[float]]]

    @classmethod
    def read(cls, work: Path) -> Expected:
        data = json.loads((work / "expected.json").read_text(encoding="utf-8"))
        return cls(
            tuple(data["adapters"]), tuple(data["labels"]), data["messages"], data["expected"]
        )

    def compare(self, digest: str, found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Compare scores (message, label, probability among the labels) with an adapter's
        expected ones. Returns the mean and the largest difference of a log-probability, and
        the mean by which the adapter moves one. Raises SmokeFailed unless the first is small
        next to the last."""
        differences, moved = [], []
        for message, scores in found.items():
            expected = _among_labels(self.logprobs[digest][message])
            bare = _among_labels(self.logprobs["bare"][message])
            for label, one, without in zip(self.labels, expected, bare, strict=True):
                if min(scores[label], math.exp(one)) >= _LEAST:
                    differences.append(abs(math.log(scores[label]) - one))
                    moved.append(abs(one - without))
        mean, moves = statistics.fmean(differences), statistics.fmean(moved)
        if not mean < _AGREES * moves:
            raise SmokeFailed(
                f"adapter {digest[:12]}: scores are {mean:.4f} from transformers' on average, "
                f"and the adapter moves them by {moves:.4f}: another adapter or none answers"
            )
        return {"mean": mean, "largest": max(differences), "moved": moves}


def _among_labels(logprobs: list[float]) -> list[float]:
    total = math.log(sum(math.exp(one) for one in logprobs))
    return [one - total for one in logprobs]


@dataclass
class Service:
    """A running worker on its own topics, and its answers: record by message id."""

    publisher: Publisher
    watcher: Watcher
    worker: Program
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(self, messages: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Publish messages and wait for the results. Raises SmokeFailed if none come."""
        for message_id, text in messages.items():
            self.publisher.publish(message_id, text)
        moved = time.monotonic()
        while missing := messages.keys() - self.answers.keys():
            for seen in self.watcher.poll(0.5):
                if seen.value is None:
                    raise SmokeFailed(f"a dead letter: {seen.headers.get('clerk.reason')}")
                self.answers[seen.message_id] = seen.value
                moved = time.monotonic()
            self.worker.check()
            if time.monotonic() - moved > _STALL_S:
                raise SmokeFailed(f"{len(missing)} of {len(messages)} messages have no answer")
        return {message_id: self.answers[message_id] for message_id in messages}

    def digest(self, message_id: str) -> str:
        return str(self.answers[message_id]["adapter"]["digest"])


def run_worker(work: Path, *, count: int, sets: list[str]) -> dict[str, Any]:
    """Serve, measure, compare and swap; return the figures. Raises SmokeFailed."""
    expected = Expected.read(work)
    with ExitStack() as stack:
        first, second = expected.adapters
        _make_current(work / "store", first, second)  # an earlier run ended with the second
        began = time.monotonic()
        service = start(stack, work, sets)
        ready_s = time.monotonic() - began
        compared = check(service, expected, first, "first")
        stream = {f"load-{n}": text for n, text in enumerate(distinct(count))}
        worker = service.worker.child.pid
        service.ask({f"warm-{n}": text for n, text in stream.items()})  # compiled for its sizes
        began, used = time.monotonic(), cpu_seconds(worker)
        service.ask(stream)
        loaded_s = time.monotonic() - began
        used = {name: now - used[name] for name, now in cpu_seconds(worker).items()}
        memory = memory_bytes(worker)
        # Two engines of merged weights may be more than this machine holds: then the worker keeps
        # the first adapter, which is what it should do.
        swap_s, refused = swap(service, work / "store", first, second, distinct(1)[0])
        again = check(service, expected, first if refused else second, "second")
    return {
        "ready_s": ready_s,
        "messages": count,
        "messages_per_s": count / loaded_s,
        "cpu_ms_per_message": {name: 1000 * one / count for name, one in used.items()},
        "memory_bytes": memory,
        "swap_s": swap_s,
        "swap_refused": refused,
        "largest_difference": max(compared["largest"], again["largest"]),
        "first": compared,
        "second": again,
    }


def start(stack: ExitStack, work: Path, sets: list[str]) -> Service:
    """Start broker and worker; return when it reads."""
    kafka = stack.enter_context(LocalBroker())
    create_demo_topics(kafka.bootstrap_servers, dict.fromkeys(_TOPICS, 4))
    given = {
        "kafka.bootstrap_servers": f"'{kafka.bootstrap_servers}'",
        "kafka.group_id": "'gpu-smoke'",
        "kafka.input_topics": f"'{_TOPICS[0]}'",
        "kafka.output_topic": f"'{_TOPICS[1]}'",
        "kafka.review_topic": f"'{_TOPICS[2]}'",
        "kafka.dead_letter_topic": f"'{_TOPICS[3]}'",
        "model.base": f"'{work / 'base'}'",
        "model.adapter": f"'{work / 'store'}'",
        "model.serving": "'runtime'",
        "loop.deadline_s": "600",
        "log.format": "'json'",
        "http.port": "0",
        **dict(one.split("=", 1) for one in sets),
    }
    worker = stack.enter_context(start_worker(given, work / "worker.log"))
    until = time.monotonic() + _READY_S
    while "partitions.assigned" not in worker.events():
        worker.check()
        if time.monotonic() > until:
            raise SmokeFailed(f"the worker was not ready within {_READY_S:.0f} s")
        time.sleep(0.2)
    publisher = Publisher(kafka.bootstrap_servers, _TOPICS[0])
    kinds = dict(zip(_TOPICS[1:], ("output", "review", "dead letter"), strict=True))
    watcher = Watcher(kafka.bootstrap_servers, kinds)
    stack.callback(watcher.close)
    return Service(publisher, watcher, worker)


def check(service: Service, expected: Expected, digest: str, name: str) -> dict[str, float]:
    """Let ``digest`` label the compared messages, and compare. Raises SmokeFailed."""
    answers = service.ask({f"{name}-{one}": text for one, text in expected.messages.items()})
    by = {service.digest(message_id) for message_id in answers}
    if by != {digest}:
        raise SmokeFailed(f"answered by {sorted(by)}, not by {digest}")
    found = {one: answers[f"{name}-{one}"]["scores"] for one in expected.messages}
    return expected.compare(digest, found)


def swap(
    service: Service, store: Path, first: str, second: str, text: str
) -> tuple[float | None, str | None]:
    """Make another adapter current; return the seconds until it answers, or the worker's words if
    there is no memory for it. Raises SmokeFailed."""
    began = time.monotonic()
    _make_current(store, second, first)
    for number in itertools.count():
        service.ask({f"swap-{number}": text})
        if service.digest(f"swap-{number}") == second:
            return time.monotonic() - began, None
        if (why := _refusal(service)) is not None:
            if NO_ROOM in why:
                return None, why
            raise SmokeFailed(f"adapter {second[:12]} is refused: {why}")
        if time.monotonic() - began > _STALL_S:
            break
        time.sleep(0.1)
    raise SmokeFailed(f"adapter {second[:12]} does not serve; {service.worker.log_path} says why")


def _make_current(store: Path, digest: str, previous: str) -> None:
    pointer = Pointer(digest, "smoke", rfc3339_now(), previous, "gpu-smoke", None, "rollback")
    write_pointer(store, pointer)


def _refusal(service: Service) -> str | None:
    """The reason why the worker refused an adapter, or None."""
    for line in service.worker.log_path.read_text(encoding="utf-8").splitlines():
        if '"adapter.refused"' in line:
            return str(json.loads(line)["problem"])
    return None


def distinct(count: int) -> list[str]:
    """Messages that all begin differently: only the fixed part of the prompt is in the engine's
    cache."""
    texts = [one.message for one in read_samples("holdout.jsonl")]
    return [f"{number}: {texts[number % len(texts)]}" for number in range(count)]


def cpu_seconds(pid: int) -> dict[str, float]:
    """Seconds of CPU that the worker used so far, and its children: vLLM's engine is one. On a
    CPU the model's own computing is among the engine's."""
    worker = psutil.Process(pid)
    taken = [one.cpu_times() for one in (worker, *worker.children(recursive=True))]
    seconds = [one.user + one.system for one in taken]
    return {"worker": seconds[0], "engine": sum(seconds[1:])}


def memory_bytes(pid: int) -> int:
    """Memory in use: of the first GPU, else of the process and its children."""
    if shutil.which("nvidia-smi"):
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout.split()[0]) << 20
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
