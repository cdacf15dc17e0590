"""The worker's half of the smoke test: two adapters served by the real worker through Kafka, its
scores held against transformers', and one adapter swapped for the other while messages come."""

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
from types import TracebackType
from typing import Any, Self

import psutil

from worker.contract import Encoders, Manifest, build_prompt, read_manifest
from worker.contract.scoring import decide_from_codes
from worker.contract.store import Pointer, write_pointer
from worker.contract.timestamps import rfc3339_now
from worker.demo.broker import LocalBroker
from worker.demo.client import Publisher, Watcher, create_demo_topics
from worker.demo.models import read_samples
from worker.demo.program import Program, start_worker
from worker.engine.open import open_engine
from worker.engine.port import CodeScores, Engine

# The worker's engine alone, for a machine on which no broker can be had.


class DirectEngine:
    """Prompts in, scores out: the worker's contract and engine, without its loop."""

    def __init__(self, base: Path, adapter: Path) -> None:
        opened = open_engine(
            base=base,
            adapter=adapter,
            cache_dir=base.parent / "cache",
            serving="runtime",
            max_adapters=2,
        )
        assert opened.loader is not None
        self._loader = opened.loader
        self._encoders: Encoders = opened.encoders
        self._manifest: Manifest = opened.manifest
        self._engine: Engine = opened.engine
        self._engine.warm_up([golden.ids for golden in opened.manifest.golden])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.close()

    def scores(self, messages: Mapping[str, str]) -> dict[str, dict[str, float]]:
        """Return each message's probabilities by label; all are under way at once."""
        waiting = {}
        for message_id, text in messages.items():
            prompt = build_prompt(self._manifest.prompt, text, self._encoders.plain)
            assert prompt is not None
            waiting[message_id] = self._engine.submit(prompt.ids)
        found = {}
        for message_id, future in waiting.items():
            answer = future.result()
            assert isinstance(answer, CodeScores)
            decision = decide_from_codes(
                answer.logprobs, self._manifest.codes, self._manifest.calibration.temperature
            )
            found[message_id] = dict(decision.scores)
        return found

    def swap(self, adapter: Path) -> None:
        """Load another adapter and let the one before go."""
        manifest = read_manifest(adapter)
        engine = self._loader.load(adapter, manifest)
        self._engine.close()
        self._engine, self._manifest = engine, manifest


_READY_S = 3600.0
_STALL_S = 900.0
_TOPICS = ("smoke.in", "smoke.out", "smoke.review", "smoke.dead")
_AGREES = 0.25
"""The engine may differ from transformers by a quarter of what the adapter moves, on average. One
that applied no adapter, or the other one, would differ by all of it."""

_LEAST = 1e-3
"""Probabilities below are not compared: records are rounded to six digits."""


class SmokeFailed(RuntimeError):
    """What the engine does is not what was expected of it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What transformers made of each message, and without an adapter: natural log-probabilities."""

    adapters: tuple[str, ...]
    labels: tuple[str, ...]
    messages: Mapping[str, str]
    logprobs: Mapping[str, Mapping[str, list[float]]]

    @classmethod
    def read(cls, work: Path) -> Expected:
        """Read what the trainer's half has left."""
        data = json.loads((work / "expected.json").read_text(encoding="utf-8"))
        return cls(
            tuple(data["adapters"]), tuple(data["labels"]), data["messages"], data["expected"]
        )

    def compare(self, digest: str, found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Hold found scores (message, label, probability among the labels) against an adapter's.

        Returns the mean and the largest difference of a log-probability, and the mean by which the
        adapter moves one. Raises SmokeFailed unless the first is small next to the last.
        """
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
                f"and the adapter moves them by {moves:.4f}: it is not what answers"
            )
        return {"mean": mean, "largest": max(differences), "moved": moves}


def _among_labels(logprobs: list[float]) -> list[float]:
    total = math.log(sum(math.exp(one) for one in logprobs))
    return [one - total for one in logprobs]


@dataclass
class Service:
    """A running worker on topics of its own, and what it has answered: record by message id."""

    publisher: Publisher
    watcher: Watcher
    worker: Program
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(self, messages: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Publish messages and wait for the results. Raises SmokeFailed when none come."""
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
                raise SmokeFailed(f"{len(missing)} of {len(messages)} messages are not answered")
        return {message_id: self.answers[message_id] for message_id in messages}

    def digest(self, message_id: str) -> str:
        """Return the adapter that answered a message."""
        return str(self.answers[message_id]["adapter"]["digest"])


def run_worker(
    work: Path, *, count: int, sets: list[str], broker: bool, serving: str = "runtime"
) -> dict[str, Any]:
    """Serve, measure, compare and swap; return the figures. Raises SmokeFailed."""
    expected = Expected.read(work)
    if not broker:
        return run_direct(work, expected, count)
    with ExitStack() as stack:
        began = time.monotonic()
        service = start(stack, work, sets, serving)
        ready_s = time.monotonic() - began
        first, second = expected.adapters
        compared = check(service, expected, first, "first")
        stream = {f"load-{n}": text for n, text in enumerate(distinct(count))}
        began = time.monotonic()
        service.ask(stream)
        loaded_s = time.monotonic() - began
        memory = memory_bytes(service.worker.child.pid)
        swap_s = swap(service, work / "store", first, second, distinct(1)[0])
        again = check(service, expected, second, "second")
    return {
        "broker": "Apache Kafka, on this machine",
        "ready_s": ready_s,
        "messages": count,
        "messages_per_s": count / loaded_s,
        "memory_bytes": memory,
        "swap_s": swap_s,
        "largest_difference": max(compared["largest"], again["largest"]),
        "first": compared,
        "second": again,
    }


def start(stack: ExitStack, work: Path, sets: list[str], serving: str) -> Service:
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
        "model.serving": f"'{serving}'",
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
    """Have the compared messages labelled by ``digest``, and compare. Raises SmokeFailed."""
    answers = service.ask({f"{name}-{one}": text for one, text in expected.messages.items()})
    by = {service.digest(message_id) for message_id in answers}
    if by != {digest}:
        raise SmokeFailed(f"answered by {sorted(by)}, not by {digest}")
    found = {one: answers[f"{name}-{one}"]["scores"] for one in expected.messages}
    return expected.compare(digest, found)


def swap(service: Service, store: Path, first: str, second: str, text: str) -> float:
    """Make another adapter current; return the seconds until it answers. Raises SmokeFailed."""
    began = time.monotonic()
    write_pointer(
        store, Pointer(second, "smoke", rfc3339_now(), first, "gpu-smoke", None, "rollback")
    )
    for number in itertools.count():
        service.ask({f"swap-{number}": text})
        if service.digest(f"swap-{number}") == second:
            return time.monotonic() - began
        if (why := _refusal(service)) is not None:
            raise SmokeFailed(f"adapter {second[:12]} is refused: {why}")
        if time.monotonic() - began > _STALL_S:
            break
        time.sleep(0.1)
    raise SmokeFailed(f"adapter {second[:12]} does not serve; {service.worker.log_path} says why")


def _refusal(service: Service) -> str | None:
    """Return why the worker has refused an adapter, None where it has not."""
    for line in service.worker.log_path.read_text(encoding="utf-8").splitlines():
        if '"adapter.refused"' in line:
            return str(json.loads(line)["problem"])
    return None


def run_direct(work: Path, expected: Expected, count: int) -> dict[str, Any]:
    """The same without Kafka: prompts go into the engine that the worker opens."""
    first, second = expected.adapters
    began = time.monotonic()
    with DirectEngine(work / "base", work / "store" / first) as engine:
        ready_s = time.monotonic() - began
        compared = expected.compare(first, engine.scores(expected.messages))
        began = time.monotonic()
        engine.scores({str(n): text for n, text in enumerate(distinct(count))})
        loaded_s = time.monotonic() - began
        memory = memory_bytes(psutil.Process().pid)
        began = time.monotonic()
        engine.swap(work / "store" / second)
        swap_s = time.monotonic() - began
        again = expected.compare(second, engine.scores(expected.messages))
    return {
        "broker": "none",
        "ready_s": ready_s,
        "messages": count,
        "messages_per_s": count / loaded_s,
        "memory_bytes": memory,
        "swap_s": swap_s,
        "largest_difference": max(compared["largest"], again["largest"]),
        "first": compared,
        "second": again,
    }


def distinct(count: int) -> list[str]:
    """Return so many messages, no two of which begin alike: of each the fixed part of the prompt is
    in the engine's cache, and no more."""
    texts = [one.message for one in read_samples("holdout.jsonl")]
    return [f"{number}: {texts[number % len(texts)]}" for number in range(count)]


def memory_bytes(pid: int) -> int:
    """Return the memory in use: of the first GPU, else of the process and all below it."""
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
