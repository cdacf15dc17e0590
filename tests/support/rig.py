"""A loop and everything around it, wired as in the worker, on fakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.support.fakes import NOW, Clock, Events, RouterEvents, ScriptedEngine, message_of
from tests.support.policies import make_loop_policy
from tests.support.records import Published, read_output
from tests.support.toy_adapter import toy_serving_adapter
from worker.core import events
from worker.core.arms import AdapterRouter, TrafficSplit
from worker.core.assignment import CompletedRecord
from worker.core.crash_isolation import IsolationPolicy
from worker.core.loop import Loop
from worker.core.pipeline import Pipeline
from worker.core.publisher import LoopPolicy, TopicRouter
from worker.policies import admission_policy
from worker.records.encode import RetryPolicy
from worker.settings import Settings
from worker.stream.fake import FakeStream


@dataclass(slots=True)
class Rig:
    """A loop and everything around it. The loop has subscribed; no partition is assigned yet."""

    partitions: int = 1
    policy: LoopPolicy = field(default_factory=make_loop_policy)
    deadline_s: float = 60.0
    max_attempts: int = 2
    review_topic: str | None = "review"
    tick: float = 0.0
    admission: dict[str, Any] = field(default_factory=dict)
    isolation: IsolationPolicy | None = None
    retry: RetryPolicy | None = None
    """With it there is a retry topic of one partition, whose number is ``partitions``; and the
    wall clock goes with the other one."""
    shared: FakeStream | None = None
    """The stream of a worker before this one; None: a new one."""
    stream: FakeStream = field(init=False)
    engine: ScriptedEngine = field(init=False)
    clock: Clock = field(init=False)
    events: Events = field(init=False)
    router: AdapterRouter = field(init=False)
    router_events: RouterEvents = field(init=False)
    waits: list[float] = field(init=False)
    loop: Loop = field(init=False)

    def __post_init__(self) -> None:
        # The real wait for an answer is no use here: answers come when a test says so.
        policy = replace(self.policy, result_wait_s=0.0)
        retry_topic = self.retry.topic if self.retry is not None else None
        self.stream = self.shared or FakeStream("in", self.partitions, retry_topic)
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
        """The time of day."""
        return NOW if self.retry is None else NOW + timedelta(seconds=self.clock.now - 1000.0)

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)

    def use(self, router: AdapterRouter) -> None:
        """Have another router choose the adapters of the records to come."""
        self.router = router
        self.loop._pipeline._router = self.loop._requests._router = router

    def on_published(self, call: Callable[[Sequence[CompletedRecord]], None]) -> None:
        """Have what is published given to ``call``, beside being kept in ``events``."""
        self.events.others.append(
            lambda event: call(event.batch) if isinstance(event, events.Published) else None
        )

    def add(self, *texts: str, partition: int = 0) -> None:
        """Append messages to a partition."""
        for text in texts:
            self.stream.add(text.encode(), partition)

    def iterate(self, times: int = 1) -> None:
        """Run iterations of the loop, a second apart, so that publishing is due."""
        for _ in range(times):
            self.clock.advance(1.0)
            self.loop.run_once()

    def pass_time(self, seconds: int) -> None:
        """Iterate a second at a time; the engine answers the golden prompts it is given."""
        golden = message_of(self.router.main.manifest.golden[0].ids)
        for _ in range(seconds):
            self.iterate()
            while golden in self.engine.pending:
                self.engine.answer(golden)

    def answer(self, *texts: str) -> None:
        """Answer these messages, in this order, and run an iteration."""
        for text in texts:
            self.engine.answer(text)
        self.iterate()

    @property
    def outputs(self) -> list[Published]:
        """What was published, in order, over all topics."""
        return [read_output(outgoing) for outgoing in self.stream.outputs]

    @property
    def ids(self) -> list[str]:
        """Ids of what was published, in order."""
        return [published.id for published in self.outputs]

    def committed(self, partition: int = 0) -> int:
        """The committed offset of a partition."""
        return self.stream.committed.get(self.stream.sources[partition], 0)


def started(*texts: str, **options: Any) -> Rig:
    """A rig with all partitions assigned and these messages of partition 0 in the engine."""
    rig = Rig(**options)
    rig.add(*texts)
    rig.stream.assign(*range(rig.partitions))
    rig.iterate()
    return rig
