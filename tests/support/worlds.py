"""Random worlds around a loop: arrivals, response times, refusals, workers that leave, topics that
are created again.

The truth of a world is known: which records the output topic refuses, which the engine refuses, and
that nothing else is wrong. So each record has one correct outcome. Its key is its name, because the
records of a topic that is created again have the ids of earlier ones.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from tests.support.rig import (
    FakeWitness,
    Rig,
    isolation,
    make_bounds,
    make_loop_policy,
    read_output,
)
from tests.support.toy_adapter import (
    CASCADE,
    ENCODERS,
    LARGE,
    SMALL,
    large,
    small,
    toy_serving_adapter,
)
from worker.core.arms import AdapterRouter, TrafficSplit
from worker.core.urgency import Urgency
from worker.engine.cascade import CascadeEngine, OpenStage
from worker.engine.fake import FakeEngine
from worker.engine.pacing import AdmissionPolicy
from worker.engine.port import Answer, Engine
from worker.errors import (
    EngineDied,
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    RecordTooLarge,
    StreamFailed,
)
from worker.records.types import Batch, Record, TopicPartition
from worker.stream.fake import FakeStream

STEP_S = 0.25


class PacedEngine:
    """A FakeEngine that answers ``pace`` messages a second by the world's clock, in order."""

    def __init__(self, fake: FakeEngine, pace: float) -> None:
        self.fake = fake
        self.pace = pace
        self.precisions: tuple[str, ...] = ("fp32",)
        self._credit = 0.0

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        return self.fake.submit(prompt_ids)

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        pass

    def check_health(self) -> None:
        pass

    def close(self) -> None:
        self.fake.close()

    def work(self, seconds: float) -> None:
        """Answer what falls due in this time; idle time is not saved up."""
        self._credit += self.pace * seconds
        while self._credit >= 1 and self.fake.pending:
            self.fake.finish()
            self._credit -= 1
        if not self.fake.pending:
            self._credit = 0.0


class World:
    """One worker at a time on one stream. Everything is drawn from the seed."""

    def __init__(self, seed: int) -> None:
        self.draw = draw = random.Random(seed)
        self.partitions = draw.randint(1, 4)
        self.stream = FakeStream(
            "in", self.partitions, urgent=draw.choice([0, draw.randint(0, self.partitions)])
        )
        self.refused: dict[bytes, str] = {}
        """Keys of records that end as dead letters, with the reason."""
        self.sent: dict[bytes, float] = {}
        """Keys of all records, and when they came."""
        self.gone: set[bytes] = set()
        """Keys of records that were deleted with their topic, perhaps without a result."""
        self.done: dict[bytes, float] = {}
        self.load = 0.0
        """Messages a second that come all the time."""
        self.names_refused = draw.random() < 0.5
        self.witness = FakeWitness()
        self.process = 0
        self.time = self.due = 0.0
        self.trouble = 0.0
        """The chance, at each step, that a publish fails and that a rebalance comes."""
        for _ in range(draw.randint(20, 400)):
            self._add()
        refuse = self.stream.publish
        self.stream.publish = lambda batch: self._publish(batch, refuse)  # type: ignore[method-assign]
        self.policy = make_loop_policy(
            bounds=make_bounds(max_records=draw.choice([8, 64, 512])),
            publish_max_records=draw.choice([3, 50, 500]),
            publish_attempts=1_000,
            revoke_drain_s=draw.choice([0.0, 5.0]),
            urgency=Urgency("urgent".__eq__, draw.choice([0.0, 0.1, 0.9])),
        )
        self.admission = AdmissionPolicy(draw.choice([4, 64, 256]), draw.choice([20.0, 60.0]))
        # Slower than a golden prompt may be behind a window of eight: that counts as a hang.
        self.quick_enough = 16 / self.admission.deadline_s
        self.paces = (draw.uniform(5, 300), self.quick_enough * 10 ** draw.uniform(-2, 2.5))
        self.cascade = draw.random() < 0.7
        self.start()

    def start(self) -> None:
        """Start another worker, as after a kill."""
        self.stream.assigned.clear()
        self.stream.paused.clear()
        self.rig = Rig(
            partitions=self.partitions,
            policy=self.policy,
            deadline_s=self.admission.deadline_s,
            tick=0.001,
            isolation=isolation(f"p{self.process}", self.policy.bounds.max_records, self.witness),
            shared=self.stream,
            admission={"max_in_engine": self.admission.max_in_engine},
        )
        self.process += 1
        self.engines = [PacedEngine(FakeEngine(small), self.paces[0])]
        engine: Engine = self.engines[0]
        manifest = SMALL
        if self.cascade:
            self.engines.append(PacedEngine(FakeEngine(large), self.paces[1]))
            stages = [
                OpenStage(rule, own, ENCODERS.plain, each)
                for rule, own, each in zip(
                    CASCADE.stages, (SMALL, LARGE), self.engines, strict=True
                )
            ]
            engine, manifest = CascadeEngine(stages, self.admission, self.rig.clock), CASCADE
        else:
            self.engines[0].pace = self.paces[1]
        adapter = toy_serving_adapter(engine, manifest)
        self.rig.use(AdapterRouter(TrafficSplit.all_to(adapter), self.rig.router_events))
        self.stream.assign(*range(self.partitions))

    def step(self) -> None:
        """Let a little time pass, with trouble."""
        try:
            if self.draw.random() < self.trouble:
                self._trouble()
            self.rig.clock.advance(STEP_S)
            for engine in self.engines:
                engine.work(STEP_S)
            self.due += self.load * STEP_S
            while self.due >= 1:
                self._add()
                self.due -= 1
            self.rig.loop.run_once()
        except EngineDied:
            self.rig.loop._isolation.engine_died()
            self.start()
        except StreamFailed:  # the topic was created again
            self.rig.loop._isolation.close(self.rig.loop._assignment)
            self.start()
        self.time += STEP_S

    def run(self, steps: int) -> None:
        """Some steps in trouble, while more messages come."""
        self.trouble = self.draw.choice([0.0, 0.02, 0.1])
        self.load = self.draw.choice([0.0, 0.0, 4.0, 8.0])
        for _ in range(steps):
            if self.draw.random() < 0.1:
                self._add()
            self.step()

    def finish(self, most_steps: int = 200_000) -> bool:
        """Continue without trouble until all have results; return whether that took at most
        ``most_steps``."""
        self._calm_down()
        self.load = 0.0
        for _ in range(most_steps):
            idle = not self.rig.loop.state.in_flight_records
            if idle and set(self.sent) - self.gone <= set(self.done):
                return True
            self.step()
        return False

    def settle(self, seconds: float = 120.0) -> float:
        """Continue without trouble under a load that the engine can bear. Return the longest time
        until a result, of the records that came after the backlog was done."""
        self.finish()
        self.load = min(4.0, self.pace / 2)
        began = self.time
        while self.time < began + seconds:
            self.step()
        self.load = 0.0
        self.finish()
        came = {key: at for key, at in self.sent.items() if at >= began}
        return max((self.done[key] - at for key, at in came.items()), default=0.0)

    def _calm_down(self) -> None:
        self.trouble = 0.0
        self.stream.failures.clear()
        self.paces = (self.paces[0], max(self.paces[1], self.quick_enough))
        self.engines[-1].pace = self.paces[1]
        for number in range(self.partitions):
            if self.stream.sources[number] not in self.stream.assigned:
                self.stream.assign(number)

    @property
    def pace(self) -> float:
        """Messages a second that the engine labels."""
        return min(self.paces) if self.cascade else self.paces[1]

    def verify(self) -> None:
        """Each record has one result, the right one."""
        assert None not in {outgoing.key for outgoing in self.stream.outputs}
        ends = {outgoing.key or b"": read_output(outgoing) for outgoing in self.stream.outputs}
        counts = Counter(outgoing.key for outgoing in self.stream.outputs)
        assert max(counts.values(), default=1) == 1, "a record has two results"
        assert set(self.sent) - self.gone <= set(ends) <= set(self.sent), "one is lost"
        dead = {key: published.reason for key, published in ends.items() if published.reason}
        assert dead == {key: why for key, why in self.refused.items() if key in ends}, (
            "a good record is a dead letter, or a bad one is not"
        )
        assert (self.rig.loop.state.in_flight_records, self.rig.loop._pressure.bytes) == (0, 0)

    @property
    def _logs(self) -> list[tuple[TopicPartition, list[Record]]]:
        return list(self.stream.log.items())

    def _add(self) -> None:
        text = "sure" if self.draw.random() < 0.8 else "unsure"
        kind = self.draw.random()
        if kind < 0.02:
            text = "reject"
        key = f"{len(self.sent)}".encode()
        self.sent[key] = self.time
        self.stream.add(f"{text} it is".encode(), self.draw.randrange(self.partitions), key)
        if kind < 0.02:
            self.refused[key] = "engine_rejected"
        elif kind < 0.05:
            self.refused[key] = "output_refused"
        elif kind < 0.07:
            self.refused[key] = "output_too_large"

    def _publish(self, batch: Batch, publish: Callable[[Batch], None]) -> None:
        """Refuse as a broker does: the batch for some of its records, named or not."""
        wrong: dict[str | None, list[int]] = {}
        for index, outgoing in enumerate(batch.outputs):
            if outgoing.topic != "dead":
                wrong.setdefault(self.refused.get(outgoing.key or b""), []).append(index)
        for reason, error in (
            ("output_too_large", RecordTooLarge),
            ("output_refused", OutputRefused),
        ):
            if reason in wrong and self.names_refused:
                raise error("no", wrong[reason], certain=True)
            if reason in wrong:
                suspects = {*wrong[reason], *self.draw.sample(range(len(batch.outputs)), 1)}
                raise error("no", sorted(suspects) if self.draw.random() < 0.5 else ())
        before = len(self.stream.outputs)
        try:
            publish(batch)
        finally:  # an answer may be lost
            written = self.stream.outputs[before:]
            self.done.update({outgoing.key or b"": self.time for outgoing in written})

    def _trouble(self) -> None:
        """One thing that goes wrong with a stream or a worker."""
        draw, stream = self.draw, self.stream
        number = draw.randrange(self.partitions)
        ours = stream.sources[number] in stream.assigned
        match draw.randrange(6):
            case 0 | 1 if stream.failures:
                pass
            case 0:
                stream.commits_before_failure = draw.random() < 0.5
                stream.failures.append(OutcomeUnknown("no answer"))
            case 1:
                stream.commits_before_failure = False
                stream.failures.append(PublishAborted("aborted", unreachable=draw.random() < 0.5))
            case 2 if ours:
                stream.revoke(number)
            case 3 if ours:
                stream.lose(number)
            case 2 | 3:
                stream.assign(number)
            case 4 if draw.random() < 0.2:
                self.witness.killed()
                self.start()
            case 5 if draw.random() < 0.1:
                self.gone |= {record.key or b"" for _, log in self._logs for record in log}
                stream.recreate()
                stream.forgets_committed = draw.random() < 0.5
