"""Crash isolation in worlds with a known truth: who is lost, and what a crashing message costs.

    python -m tests.bench.crashes [--runs 100]

Each line is one kind of world, run with so many seeds on the fakes (400 messages on one to four
partitions): how often the engine or the worker died, how many innocent messages became dead
letters, and the most deaths that one crashing message cost before it was rejected. About ten
minutes.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.rig import (
    FakeWitness,
    Rig,
    SinkRecord,
    isolation,
    make_loop_policy,
    message_of,
    read_output,
)
from worker.errors import EngineDied, StreamFailed
from worker.records.types import Batch
from worker.stream.fake import FakeStream

# A worker whose engine dies, and a supervisor that restarts it: one stream, many processes.


Death = Literal["engine", "process"]
"""Whether the worker survives its engine and can write a note, or both die without one."""

POLICY = make_loop_policy()


class Killed(BaseException):
    """The whole process is killed at any point, by a message or not."""


class _EachPoll(deque[Callable[[], None]]):
    """A script that never ends: the same step at each poll."""

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__([step])
        self._step = step

    def popleft(self) -> Callable[[], None]:
        return self._step


@dataclass
class Supervisor:
    """Starts a worker, and another after each death, until everything is committed. ``dies``
    gets the texts in the engine at each of its steps; it answers ``answers`` of them in one."""

    stream: FakeStream
    dies: Callable[[Sequence[str]], bool]
    death: Death = "engine"
    answers: int = 16
    hosts: int = 1
    """Number of hosts on which workers are started in turn."""
    killed_every: int = 0
    """Kill the worker after this many steps, without any message's fault; 0: never."""
    killed: int = 0
    lost_every: int = 0
    """Revoke the partitions after this many steps, and assign them again; 0: never."""
    refused_for: int = 0
    """How many workers meet an output topic that refuses records, and end."""
    deaths: int = 0
    events: list[tuple[Any, ...]] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.witnesses = [FakeWitness() for _ in range(self.hosts)]

    @property
    def witness(self) -> FakeWitness:
        """The disk of the present worker's host."""
        return self.witnesses[(self.deaths + self.killed) % self.hosts]

    def run(self, max_deaths: int, idle_steps: int = 400) -> bool:
        """Return whether everything was committed within so many deaths."""
        while self.deaths <= max_deaths:
            rig = self._start(idle_steps)
            try:
                rig.loop.run()
            except EngineDied:
                self.deaths += 1
            except StreamFailed:
                self.refused_for -= 1
                continue
            except Killed as kill:
                self.witness.killed()
                self.killed += bool(kill.args)
                self.deaths += not kill.args
            finally:
                self.events += rig.events.log
            if self.done:
                return True
            if not self._died(rig):
                return False
        return False

    @property
    def done(self) -> bool:
        return all(
            self.stream.committed.get(source, 0) == len(log)
            for source, log in self.stream.log.items()
        )

    @property
    def outputs(self) -> list[SinkRecord]:
        return [read_output(outgoing) for outgoing in self.stream.outputs]

    @property
    def rejected(self) -> list[str]:
        """Ids of the dead letters."""
        return [each.id for each in self.outputs if each.reason == "killed_engine"]

    def verify(self, count: int) -> None:
        ids = [each.id for each in self.outputs]
        assert len(ids) == len(set(ids)) == count

    def _died(self, rig: Rig) -> bool:
        return rig.loop.state.stopping is False

    def _start(self, idle_steps: int) -> Rig:
        self.stream.assigned.clear()
        self.stream.paused.clear()
        rig = Rig(
            partitions=len(self.stream.sources),
            policy=POLICY,
            isolation=isolation(
                f"process-{self.deaths}-{self.killed}", POLICY.bounds.max_records, self.witness
            ),
            shared=self.stream,
        )
        left = idle_steps

        def step() -> None:
            nonlocal left
            if not self.stream.assigned:
                self.stream.assign(*range(len(self.stream.sources)))
            rig.clock.advance(0.1)
            self.steps += 1
            if self.killed_every and self.steps % self.killed_every == 0:
                raise Killed("for no fault of a message's")
            left = idle_steps if rig.engine.pending else left - 1
            if self.lost_every and self.steps % self.lost_every == 0:
                self.stream.lose(*range(len(self.stream.sources)))
                self.stream.assign(*range(len(self.stream.sources)))
            if self.done or not left:
                rig.loop.stop()
            else:
                self._work(rig)

        def publish(batch: Batch) -> None:
            if batch.outputs and self.refused_for > 0:
                raise StreamFailed("producing to out: TOPIC_AUTHORIZATION_FAILED")
            FakeStream.publish(self.stream, batch)

        self.stream.publish = publish  # type: ignore[method-assign]
        self.stream.script = _EachPoll(step)
        return rig

    def _work(self, rig: Rig) -> None:
        golden = message_of(rig.router.main.manifest.golden[0].ids)
        pending = rig.engine.pending
        if pending and self.dies([text for text in pending if text != golden]):
            if self.death == "process":
                raise Killed
            rig.engine.fake.die()
            return
        for text in pending[: self.answers]:
            rig.engine.answer(text)


def filled(count: int, partitions: int, poison: Sequence[int] = ()) -> FakeStream:
    """A stream with messages over its partitions, some of which crash the engine."""
    stream = FakeStream("in", partitions)
    for number in range(count):
        text = f"poison {number}" if number in poison else f"message {number}"
        stream.add(text.encode(), number % partitions)
    return stream


def of_poison(texts: Sequence[str]) -> bool:
    """Die of a poisonous message."""
    return any(text.startswith("poison") for text in texts)


def at_random(ratio: float, seed: int) -> Callable[[Sequence[str]], bool]:
    """Die of this share of the messages in the engine, at random."""
    chance = random.Random(seed)
    return lambda texts: any(chance.random() < ratio for _ in texts[:16])


COUNT = 400


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of world. ``guilty`` messages crash the engine, unless ``dies`` is set."""

    name: str
    guilty: int = 0
    death: Death = "engine"
    hosts: int = 1
    killed_every: int = 0
    lost_every: int = 0
    refused_for: int = 0
    dies: Callable[[int], Callable[[Sequence[str]], bool]] | None = None
    broken_for: int = 0


CASES = (
    Case("1 guilty, the engine dies", 1),
    Case("1 guilty, the process is killed", 1, "process"),
    Case("1 guilty, the process is killed, 2 hosts in turn", 1, "process", hosts=2),
    Case("1 guilty, the process is killed, 4 hosts in turn", 1, "process", hosts=4),
    Case("4 guilty, the engine dies", 4),
    Case("4 guilty, the process is killed", 4, "process"),
    Case("none, the engine dies of 1 in 300", dies=lambda seed: at_random(1 / 300, seed)),
    Case("none, the process of 1 in 300", 0, "process", dies=lambda s: at_random(1 / 300, s)),
    Case("none, the engine answers nothing for 40 deaths", broken_for=40),
    Case("none, the process answers nothing for 40 deaths", 0, "process", broken_for=40),
    Case("none, the worker is killed every 7 steps", killed_every=7),
    Case("1 guilty, and the worker is killed every 11 steps", 1, "process", killed_every=11),
    Case("none, partitions are lost every 3 steps", lost_every=3),
    Case("1 guilty, and partitions are lost every 5 steps", 1, lost_every=5),
    Case("none, the output topic refuses for 20 starts", refused_for=20),
)


def run(case: Case, seed: int) -> tuple[int, int, int]:
    """Return the deaths, the innocent messages lost, and the guilty ones rejected."""
    draw = random.Random(seed)
    partitions = draw.randint(1, 4)
    guilty = draw.sample(range(COUNT), case.guilty)
    world = Supervisor(filled(COUNT, partitions, guilty), of_poison, case.death, hosts=case.hosts)
    world.killed_every, world.lost_every = case.killed_every, case.lost_every
    world.refused_for = case.refused_for
    if case.dies is not None:
        world.dies = case.dies(seed)
    if case.broken_for:
        world.dies = bool
        assert not world.run(case.broken_for)
        world.dies = lambda _: False
    count = COUNT
    for _ in range(5):
        if world.run(max_deaths=500):
            break
        world.stream.add(b"message to come", draw.randrange(partitions))
        count += 1
    world.verify(count)
    names = {f"in-{at % partitions}-{at // partitions}" for at in guilty}
    rejected = set(world.rejected)
    assert names <= rejected, "a guilty message was labelled"
    return world.deaths, len(rejected - names), len(names)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100)
    runs = parser.parse_args().runs
    print(f"{'world':<55} {'deaths':>7} {'innocent lost':>14} {'most deaths a guilty one':>25}")
    for case in CASES:
        found = [run(case, seed) for seed in range(runs)]
        deaths = sum(each[0] for each in found) / runs
        lost = sum(each[1] for each in found)
        most = max((-(-each[0] // each[2]) for each in found if each[2]), default=0)
        share = f"{lost} of {runs * COUNT}"
        print(f"{case.name:<55} {deaths:>7.1f} {share:>14} {most or '-':>25}", flush=True)


if __name__ == "__main__":
    main()
