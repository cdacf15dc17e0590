"""The fakes, and a loop wired to them as in the worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from tests.support.toy_adapter import decode, scores, small_manifest, toy_serving_adapter
from worker.contract.errors import MessageRejected
from worker.contract.records import Headers, Retry
from worker.core import events
from worker.core.arms import (
    AdapterFailed,
    AdapterIdle,
    AdapterRouter,
    RouterEvent,
    SplitChanged,
    TrafficSplit,
)
from worker.core.assignment import Bounds, CompletedRecord
from worker.core.crash_isolation import IsolationPolicy, ProvenDeath
from worker.core.events import (
    BatchRefused,
    Distrusted,
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
from worker.core.labeller import ServingAdapter
from worker.core.loop import Loop
from worker.core.pipeline import Pipeline
from worker.core.publisher import LoopPolicy, TopicRouter
from worker.core.schema_waits import Schemas, SchemaWaits
from worker.engine.fake import FakeEngine
from worker.engine.port import Answer, CodeScores
from worker.errors import RecordTooLarge
from worker.lifecycle.canary_judge import JudgePolicy
from worker.policies import admission_policy, loop_policy
from worker.records.encode import RetryPolicy
from worker.records.types import Outcome, Outgoing, Record, TopicPartition
from worker.settings import KafkaSettings, Settings
from worker.stream.fake import FakeStream
from worker.stream.kafka_config import KafkaConfig, build_config
from worker.stream.topics import Topics

# A clock, an engine and listeners that follow a test's orders and record their calls.


NOW = datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)


class Clock:
    """Monotonic seconds that advance when read (by ``tick``), advanced or waited for."""

    def __init__(self, now: float = 1000.0, tick: float = 0.0) -> None:
        self.now = now
        self.tick = tick
        self._due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        self.advance(self.tick)
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass, and run the actions that fall due."""
        self.now += seconds
        due = [timer for timer in self._due if timer[0] <= self.now]
        self._due = [timer for timer in self._due if timer[0] > self.now]
        for _, action in due:
            action()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._due.append((self.now + seconds, action))


class ScriptedEngine:
    """A FakeEngine whose answers the test gives, by the text of the message."""

    def __init__(self) -> None:
        self.fake = FakeEngine(self._respond)
        self.precisions: tuple[str, ...] = ("fp32",)
        self.submitted: list[tuple[str, Future[Answer]]] = []
        self._answer: Answer = CodeScores({})

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        future = self.fake.submit(prompt_ids)
        self.submitted.append((message_of(prompt_ids), future))
        return future

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        pass

    def check_health(self) -> None:
        self.fake.check_health()

    def close(self) -> None:
        self.fake.close()

    @property
    def pending(self) -> list[str]:
        """Texts that wait for an answer, oldest first."""
        return [message_of(prompt) for prompt in self.fake.pending]

    def future(self, text: str) -> Future[Answer]:
        """The oldest unfinished future of a text."""
        return next(f for submitted, f in self.submitted if submitted == text and not f.done())

    def answer(self, text: str, label: str | None = "billing", p: float = 0.9) -> None:
        """Answer the oldest of this text; without a label, with no scores."""
        self._answer = CodeScores({}) if label is None else scores(label, p=p)
        self.fake.finish(self.pending.index(text))

    def fail(self, text: str, error: Exception) -> None:
        self.fake.fail(error, self.pending.index(text))

    def begin(self, text: str) -> None:
        """Make the oldest of this text one that can no longer be cancelled."""
        self.future(text).cancel = lambda: False  # type: ignore[method-assign]

    def _respond(self, prompt: Sequence[int]) -> Answer:
        return self._answer


def message_of(prompt_ids: Sequence[int]) -> str:
    """The message in a prompt of the small manifest."""
    spec = small_manifest().prompt
    return decode(prompt_ids[len(spec.prefix_ids) : len(prompt_ids) - len(spec.suffix_ids)])


class Events:
    """A listener of the loop that records events in a short form, and passes them on."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.others: list[Listener] = []

    def __call__(self, event: LoopEvent) -> None:
        self.log.append(_short(event))
        for listener in self.others:
            listener(event)

    def kinds(self, *wanted: str) -> list[tuple[Any, ...]]:
        """Recorded events of these kinds, in order."""
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
        case BatchRefused(records, replaced):
            return ("refused", records, replaced)
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
        case Distrusted(source, offset, committed):
            return ("distrusted", source.partition, offset, committed)
        case SuspicionChanged():
            at = (event.source.partition, event.offset)
            return (event.kind, *at, event.records, event.deaths)


class RouterEvents:
    """A router's listener that records events, and closes idle engines."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []

    def __call__(self, event: RouterEvent) -> None:
        match event:
            case SplitChanged(_, now):
                self.log.append(("changed", now.main.digest))
            case AdapterIdle(adapter):
                self.log.append(("idle", adapter.digest))
                adapter.engine.close()
            case AdapterFailed(adapter):
                self.log.append(("failed", adapter.digest))


class FakeWitness:
    """A TrialWitness that survives the death of a worker, as a host's disk would."""

    def __init__(self) -> None:
        self.trial: ProvenDeath | None = None
        self.deaths: list[ProvenDeath] = []

    def begin(self, source: TopicPartition, offset: int) -> None:
        self.trial = ProvenDeath(source, offset)

    def end(self) -> None:
        self.trial = None

    def killed(self) -> None:
        """The process died: the next one finds what it wrote."""
        if self.trial is not None:
            self.deaths.append(self.trial)
        self.trial = None

    def take_deaths(self) -> Sequence[ProvenDeath]:
        found, self.deaths = self.deaths, []
        return found


def isolation(
    process: str = "p1", reach: int = 512, witness: FakeWitness | None = None
) -> IsolationPolicy:
    """Crash isolation of a process, with its own witness unless one is given."""
    return IsolationPolicy(process, reach, witness or FakeWitness())


# Policies by the settings' defaults, except what a test sets itself.


def make_bounds(**changes: Any) -> Bounds:
    return replace(loop_policy(Settings()).bounds, **changes)


def make_loop_policy(**changes: Any) -> LoopPolicy:
    return replace(loop_policy(Settings()), **changes)


def make_judge_policy(**changes: Any) -> JudgePolicy:
    return replace(JudgePolicy(), **changes)


def make_kafka_config(**changes: Any) -> KafkaConfig:
    """Configuration for a cluster that does not exist; ``changes`` are arguments."""
    settings = KafkaSettings()
    given: dict[str, Any] = {
        "bootstrap_servers": "nowhere",
        "group_id": "g",
        "transactional_id": "t",
        "topics": Topics(("in",), "out", None, "dead"),
        "delivery": settings.delivery,
        "security": {},
        "client": {},
        "consumer": {},
        "producer": {},
        "create_topics": settings.create_topics,
        "topic_partitions": settings.topic_partitions,
        "publish_timeout_s": settings.publish_timeout_s,
        "start_timeout_s": settings.start_timeout_s,
    }
    return build_config(**{**given, **changes})


# Records for tests: made, completed, and read back once published.


def toy_record(value: bytes | None = b'{"message": "hi"}', **changes: Any) -> Record:
    """A record of partition 3 of the topic ``in``, at offset 42."""
    fields: dict[str, Any] = {
        "source": TopicPartition("in", 3),
        "offset": 42,
        "key": b"customer-7",
        "value": value,
        "headers": (("trace", b"\xff\x00"), ("none", None)),
        "timestamp_ms": 1_700_000_000_123,
    }
    return Record(**{**fields, **changes})


@cache
def default_adapter() -> ServingAdapter:
    return toy_serving_adapter()


def too_large(indexes: Sequence[int]) -> RecordTooLarge:
    """The error of a stream that knows which records are too large."""
    return RecordTooLarge("larger than its topic accepts", indexes, certain=True)


def toy_completed(record: Record, outcome: Outcome, *rest: Any, **changes: Any) -> CompletedRecord:
    return CompletedRecord(record, outcome, default_adapter(), *rest, **changes)


@dataclass(frozen=True, slots=True)
class SinkRecord:
    """One record of an output topic, easy to compare."""

    topic: str
    id: str
    label: str | None = None
    reason: str | None = None


def read_output(outgoing: Outgoing) -> SinkRecord:
    """Read an output, a review or a dead letter."""
    if outgoing.topic != "dead":
        assert outgoing.value is not None
        value = json.loads(outgoing.value)
        return SinkRecord(outgoing.topic, value["id"], label=value["label"])
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in outgoing.headers}
    source = "-".join(headers[f"clerk.source.{part}"] for part in ("topic", "partition", "offset"))
    return SinkRecord("dead", source, reason=headers["clerk.reason"])


@dataclass(slots=True)
class Rig:
    """A loop on fakes. It has subscribed; no partition is assigned yet."""

    partitions: int = 1
    policy: LoopPolicy = field(default_factory=make_loop_policy)
    deadline_s: float = 60.0
    max_attempts: int = 2
    review_topic: str | None = "review"
    tick: float = 0.0
    admission: dict[str, Any] = field(default_factory=dict)
    isolation: IsolationPolicy | None = None
    retry: RetryPolicy | None = None
    """Adds a retry topic with one partition, whose number is ``partitions``; the wall clock then
    follows the other clock."""
    urgent: int = 0
    """How many partitions, the first ones, are of the topic "urgent"."""
    schemas: Schemas | None = None
    schemas_wait_s: float = 30.0
    shared: FakeStream | None = None
    """The stream of the previous worker; None: a new one."""
    stream: FakeStream = field(init=False)
    engine: ScriptedEngine = field(init=False)
    clock: Clock = field(init=False)
    events: Events = field(init=False)
    router: AdapterRouter = field(init=False)
    router_events: RouterEvents = field(init=False)
    waits: list[float] = field(init=False)
    loop: Loop = field(init=False)

    def __post_init__(self) -> None:
        # The real wait for an answer is useless here: answers come when a test says so.
        policy = replace(self.policy, result_wait_s=0.0)
        retry_topic = self.retry.topic if self.retry is not None else None
        self.stream = self.shared or FakeStream(
            "in", self.partitions, retry_topic, urgent=self.urgent
        )
        self.engine = ScriptedEngine()
        self.clock = Clock(tick=self.tick)
        self.events = Events()
        self.waits = []
        self.router_events = RouterEvents()
        self.router = AdapterRouter(
            TrafficSplit.all_to(toy_serving_adapter(self.engine)), self.router_events
        )
        pipeline = Pipeline(
            self.router,
            admission=replace(
                admission_policy(Settings()), deadline_s=self.deadline_s, **self.admission
            ),
            max_attempts=self.max_attempts,
            clock=self.clock,
            retry=self.retry,
            rest_share=policy.urgency.rest_share,
            schemas=SchemaWaits(self.schemas, self.schemas_wait_s, self.clock)
            if self.schemas
            else None,
        )
        self.loop = Loop(
            self.stream,
            pipeline=pipeline,
            topic_router=TopicRouter("out", self.review_topic, retry=self.retry),
            listener=self.events,
            policy=policy,
            clock=self.clock,
            now=self.wall,
            wait=self._wait,
            isolation=self.isolation,
            retry_topic=retry_topic,
        )
        self.stream.subscribe(self.loop)

    def wall(self) -> datetime:
        return NOW if self.retry is None else NOW + timedelta(seconds=self.clock.now - 1000.0)

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)

    def use(self, router: AdapterRouter) -> None:
        """Let another router choose the adapters of records from now on."""
        self.router = router
        self.loop._pipeline._router = self.loop._requests._router = router

    def on_published(self, call: Callable[[Sequence[CompletedRecord]], None]) -> None:
        """Also pass published batches to ``call``."""
        self.events.others.append(
            lambda event: call(event.batch) if isinstance(event, events.Published) else None
        )

    def add(self, *texts: str, partition: int = 0) -> None:
        for text in texts:
            self.stream.add(text.encode(), partition)

    def iterate(self, times: int = 1) -> None:
        """Run iterations of the loop, a second apart, so that publishing is due."""
        for _ in range(times):
            self.clock.advance(1.0)
            self.loop.run_once()

    def pass_time(self, seconds: int) -> None:
        """Iterate once a second; the engine answers golden prompts."""
        golden = message_of(self.router.main.manifest.golden[0].ids)
        for _ in range(seconds):
            self.iterate()
            while golden in self.engine.pending:
                self.engine.answer(golden)

    def answer(self, *texts: str) -> None:
        """Answer these messages in this order, and run an iteration."""
        for text in texts:
            self.engine.answer(text)
        self.iterate()

    @property
    def outputs(self) -> list[SinkRecord]:
        """Everything published, in order, over all topics."""
        return [read_output(outgoing) for outgoing in self.stream.outputs]

    @property
    def ids(self) -> list[str]:
        return [published.id for published in self.outputs]

    def committed(self, partition: int = 0) -> int:
        return self.stream.committed.get(self.stream.sources[partition], 0)


def started(*texts: str, **options: Any) -> Rig:
    """A rig with all partitions assigned and these messages of partition 0 in the engine."""
    rig = Rig(**options)
    rig.add(*texts)
    rig.stream.assign(*range(rig.partitions))
    rig.iterate()
    return rig


# A loop with a retry topic, on the fakes.


POLICY = RetryPolicy("retry", delay_s=10.0, max_attempts=2)
REFUSED = MessageRejected("engine_rejected", "why")
OWN: Headers = (("trace", b"\xff\x00"), ("none", None))


def rig_with(*texts: str, headers: Headers = OWN, **options: Any) -> Rig:
    """A rig with a retry topic, everything assigned, and these messages in the engine."""
    rig = Rig(**{"retry": POLICY, "max_attempts": 1, **options})
    add(rig, *texts, headers=headers)
    rig.stream.assign(*range(len(rig.stream.sources)))
    rig.iterate()
    return rig


def add(rig: Rig, *texts: str, partition: int = 0, headers: Headers = ()) -> None:
    for text in texts:
        record = rig.stream.add(text.encode(), partition, key=b"k")
        rig.stream.log[record.source][-1] = replace(record, headers=headers)


def refuse(rig: Rig, text: str = "m0") -> None:
    """Let the engine reject a message; the batch is published."""
    rig.engine.fail(text, REFUSED)
    rig.iterate()


def results(rig: Rig) -> list[SinkRecord]:
    """Records on the topics for results."""
    return [read_output(each) for each in rig.stream.outputs if each.topic != "retry"]


def waiting(rig: Rig) -> list[Outgoing]:
    """Records on the retry topic."""
    return [each for each in rig.stream.outputs if each.topic == "retry"]


def now_ms(rig: Rig) -> int:
    return int(rig.wall().timestamp() * 1000)


def of_retry(rig: Rig, headers: Headers, text: str = "stranger") -> None:
    """Append a record to the retry topic as another producer might."""
    source = rig.stream.sources[-1]
    log = rig.stream.log[source]
    log.append(Record(source, len(log), b"k", text.encode(), headers, 1_600_000_000_000))


def made_up(rig: Rig, due_in_s: float, offset: int = 7, **changes: Any) -> Retry:
    due = now_ms(rig) + int(due_in_s * 1000)
    return replace(
        Retry("in", 0, offset, 17, 1, due, "engine_rejected", 1_700_000_000_000, 1), **changes
    )
