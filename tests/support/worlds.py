"""Random worlds around a loop: arrivals, response times, refusals, workers that leave.

The truth of a world is known: which records the output topic refuses, which the engine refuses, and
that nothing else is wrong. So each record has one correct outcome.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
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
        self.stream = FakeStream("in", self.partitions)
        self.refused: dict[str, str] = {}
        """Ids of records that end as dead letters, with the reason."""
        self.witness = FakeWitness()
        self.process = 0
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
            self.rig.loop.run_once()
        except EngineDied:
            self.rig.loop._isolation.engine_died()
            self.start()

    def run(self, steps: int) -> None:
        """Some steps in trouble, while more messages come."""
        self.trouble = self.draw.choice([0.0, 0.02, 0.1])
        for _ in range(steps):
            if self.draw.random() < 0.1:
                self._add()
            self.step()

    def finish(self, most_steps: int = 200_000) -> bool:
        """Continue without trouble until all is committed; return whether that took at most
        ``steps``."""
        self.trouble = 0.0
        self.stream.failures.clear()
        self.paces = (self.paces[0], max(self.paces[1], self.quick_enough))
        self.engines[-1].pace = self.paces[1]
        for number in range(self.partitions):
            if self.stream.sources[number] not in self.stream.assigned:
                self.stream.assign(number)
        for _ in range(most_steps):
            if all(self.stream.committed.get(at, 0) == len(log) for at, log in self._logs):
                return True
            self.step()
        return False

    def verify(self) -> None:
        """Each record has one result, the right one."""
        ends = [read_output(outgoing) for outgoing in self.stream.outputs]
        counts = Counter(published.id for published in ends)
        assert max(counts.values(), default=1) == 1, "a record has two results"
        assert set(counts) == {record.id for _, log in self._logs for record in log}, "one is lost"
        dead = {published.id: published.reason for published in ends if published.reason}
        assert dead == self.refused, "a good record is a dead letter, or a bad one is not"
        assert (self.rig.loop.state.in_flight_records, self.rig.loop._pressure.bytes) == (0, 0)

    @property
    def _logs(self) -> list[tuple[TopicPartition, list[Record]]]:
        return list(self.stream.log.items())

    def _add(self) -> None:
        text = "sure" if self.draw.random() < 0.8 else "unsure"
        kind = self.draw.random()
        if kind < 0.02:
            text = "reject"
        record = self.stream.add(f"{text} it is".encode(), self.draw.randrange(self.partitions))
        if kind < 0.02:
            self.refused[record.id] = "engine_rejected"
        elif kind < 0.05:
            self.refused[record.id] = "output_refused"
        elif kind < 0.07:
            self.refused[record.id] = "output_too_large"

    def _publish(self, batch: Batch, publish: object) -> None:
        """Refuse as a broker does: the batch for one of its records, or a record by name for its
        size."""
        wrong = {
            index: self.refused.get(read_output(outgoing).id)
            for index, outgoing in enumerate(batch.outputs)
            if outgoing.topic != "dead"
        }
        large = [index for index, reason in wrong.items() if reason == "output_too_large"]
        if large:
            raise RecordTooLarge(large)
        if "output_refused" in wrong.values():
            raise OutputRefused("INVALID_RECORD")
        publish(batch)  # type: ignore[operator]

    def _trouble(self) -> None:
        """One thing that goes wrong with a stream or a worker."""
        draw, stream = self.draw, self.stream
        number = draw.randrange(self.partitions)
        ours = stream.sources[number] in stream.assigned
        match draw.randrange(5):
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
