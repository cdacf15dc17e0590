"""A clock, an engine and listeners that do as a test says and keep what they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

from tests.support.toy_adapter import decode, scores, small_manifest
from worker.core.arms import AdapterFailed, AdapterIdle, RouterEvent, SplitChanged
from worker.core.crash_isolation import IsolationPolicy, ProvenDeath
from worker.core.events import (
    KafkaReachable,
    KafkaUnreachable,
    Listener,
    LoopEvent,
    PressureChanged,
    Published,
    PublishFailed,
    Publishing,
    Rebalanced,
    Rewound,
    SuspicionChanged,
    TransactionEnded,
)
from worker.engine.fake import FakeEngine
from worker.engine.port import Answer, CodeScores
from worker.records.types import TopicPartition

NOW = datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)


class Clock:
    """Monotonic seconds that go on only when read (by ``tick``), advanced or waited for."""

    def __init__(self, now: float = 1000.0, tick: float = 0.0) -> None:
        self.now = now
        self.tick = tick
        self._due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        """Read the time."""
        self.advance(self.tick)
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what falls due in it."""
        self.now += seconds
        due = [timer for timer in self._due if timer[0] <= self.now]
        self._due = [timer for timer in self._due if timer[0] > self.now]
        for _, action in due:
            action()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something once so much time has passed."""
        self._due.append((self.now + seconds, action))


class ScriptedEngine:
    """A FakeEngine that is told by a message's text what to do with it."""

    def __init__(self) -> None:
        self.fake = FakeEngine(self._respond)
        self.precisions: tuple[str, ...] = ("fp32",)
        self.submitted: list[tuple[str, Future[Answer]]] = []
        self._answer: Answer = CodeScores({})

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Take a prompt in."""
        future = self.fake.submit(prompt_ids)
        self.submitted.append((message_of(prompt_ids), future))
        return future

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Do nothing."""

    def check_health(self) -> None:
        """Raise EngineDied once the fake is dead."""
        self.fake.check_health()

    def close(self) -> None:
        """End it."""
        self.fake.close()

    @property
    def pending(self) -> list[str]:
        """Texts that wait for an answer, oldest first."""
        return [message_of(prompt) for prompt in self.fake.pending]

    def future(self, text: str) -> Future[Answer]:
        """The oldest future of a text that is not done."""
        return next(f for submitted, f in self.submitted if submitted == text and not f.done())

    def answer(self, text: str, label: str | None = "billing", p: float = 0.9) -> None:
        """Give the oldest of this text its label; no label: an answer that holds no scores."""
        self._answer = CodeScores({}) if label is None else scores(label, p=p)
        self.fake.finish(self.pending.index(text))

    def fail(self, text: str, error: Exception) -> None:
        """Fail the oldest of this text."""
        self.fake.fail(error, self.pending.index(text))

    def begin(self, text: str) -> None:
        """Make the oldest of this text one that is computed already and cannot be called off."""
        self.future(text).cancel = lambda: False  # type: ignore[method-assign]

    def _respond(self, prompt: Sequence[int]) -> Answer:
        return self._answer


def message_of(prompt_ids: Sequence[int]) -> str:
    """Return the message in a prompt of the small manifest's."""
    spec = small_manifest().prompt
    return decode(prompt_ids[len(spec.prefix_ids) : len(prompt_ids) - len(spec.suffix_ids)])


class Events:
    """A listener of the loop that keeps the events, in a short form, and passes them on."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.others: list[Listener] = []

    def __call__(self, event: LoopEvent) -> None:
        """Keep it."""
        self.log.append(_short(event))
        for listener in self.others:
            listener(event)

    def kinds(self, *wanted: str) -> list[tuple[Any, ...]]:
        """What was told of these kinds, in order."""
        return [event for event in self.log if event[0] in wanted]


def _short(event: LoopEvent) -> tuple[Any, ...]:  # noqa: C901, PLR0911 - one line per event
    match event:
        case Publishing(batch):
            return ("publishing", [completed.record.id for completed in batch])
        case TransactionEnded(result):
            return ("transaction", result)
        case Published(batch):
            return ("published", [completed.record.id for completed in batch])
        case PublishFailed(records, attempt):
            return ("publish_failed", records, attempt)
        case KafkaUnreachable():
            return ("outage", "began")
        case KafkaReachable(seconds):
            return ("outage", "ended", seconds)
        case Rebalanced():
            return (event.kind, [source.partition for source in event.partitions], event.dropped)
        case PressureChanged():
            return (event.kind, event.records)
        case Rewound(source, offset, committed):
            return ("rewound", source.partition, offset, committed)
        case SuspicionChanged():
            at = (event.source.partition, event.offset)
            return (event.kind, *at, event.records, event.deaths)


class RouterEvents:
    """A router's listener that keeps what it is told, and closes who is idle."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []

    def __call__(self, event: RouterEvent) -> None:
        """Keep the adapter's digest; of a change that of the main one."""
        match event:
            case SplitChanged(_, now):
                self.log.append(("changed", now.main.digest))
            case AdapterIdle(adapter):
                self.log.append(("idle", adapter.digest))
                adapter.engine.close()
            case AdapterFailed(adapter):
                self.log.append(("failed", adapter.digest))


class FakeWitness:
    """A TrialWitness that a test keeps beyond the death of a worker, as a host's disk would be."""

    def __init__(self) -> None:
        self.trial: ProvenDeath | None = None
        self.deaths: list[ProvenDeath] = []

    def begin(self, source: TopicPartition, offset: int) -> None:
        """Keep which record it is."""
        self.trial = ProvenDeath(source, offset)

    def end(self) -> None:
        """Forget it."""
        self.trial = None

    def killed(self) -> None:
        """The process is gone: what it wrote is what the next one finds."""
        if self.trial is not None:
            self.deaths.append(self.trial)
        self.trial = None

    def take_deaths(self) -> Sequence[ProvenDeath]:
        """Return them once."""
        found, self.deaths = self.deaths, []
        return found


def isolation(
    process: str = "p1", reach: int = 512, witness: FakeWitness | None = None
) -> IsolationPolicy:
    """Crash isolation of a process, with a witness of its own where none is given."""
    return IsolationPolicy(process, reach, witness or FakeWitness())
