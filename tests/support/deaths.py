"""A worker whose engine dies, and a supervisor that starts it again: one stream, many processes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.fakes import FakeWitness, isolation, message_of
from tests.support.policies import make_loop_policy
from tests.support.records import Published, read_output
from tests.support.rig import Rig
from worker.errors import EngineDied, StreamFailed
from worker.records.types import Batch
from worker.stream.fake import FakeStream

Death = Literal["engine", "process"]
"""The engine dies and the worker can leave word; or both are gone at once, without a note."""

POLICY = make_loop_policy()


class Killed(BaseException):
    """The whole process is killed, in the middle of whatever it does: by a message, or not."""


class _EachPoll(deque[Callable[[], None]]):
    """A script that never ends: the same step at each poll."""

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__([step])
        self._step = step

    def popleft(self) -> Callable[[], None]:
        return self._step


@dataclass
class Supervisor:
    """Starts a worker, and another when it has died, until everything is committed.

    ``dies`` is asked with the texts that the engine has, at each of its steps; ``answers`` is how
    many of them it answers in one.
    """

    stream: FakeStream
    dies: Callable[[Sequence[str]], bool]
    death: Death = "engine"
    answers: int = 16
    hosts: int = 1
    """Workers are started on so many hosts in turn."""
    killed_every: int = 0
    """Kill the worker every so many steps for no fault of a message's; 0: never."""
    killed: int = 0
    lost_every: int = 0
    """Take the partitions away every so many steps, and give them back; 0: never."""
    refused_for: int = 0
    """So many workers meet an output topic that refuses, and end."""
    deaths: int = 0
    events: list[tuple[Any, ...]] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.witnesses = [FakeWitness() for _ in range(self.hosts)]

    @property
    def witness(self) -> FakeWitness:
        """What the disk of the present worker's host holds."""
        return self.witnesses[(self.deaths + self.killed) % self.hosts]

    def run(self, max_deaths: int, idle_steps: int = 400) -> bool:
        """Tell whether all was committed within so many deaths."""
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
        """Whether every record is committed."""
        return all(
            self.stream.committed.get(source, 0) == len(log)
            for source, log in self.stream.log.items()
        )

    @property
    def outputs(self) -> list[Published]:
        """What was published, in order."""
        return [read_output(outgoing) for outgoing in self.stream.outputs]

    @property
    def rejected(self) -> list[str]:
        """Ids of the dead letters."""
        return [each.id for each in self.outputs if each.reason == "killed_engine"]

    def verify(self, count: int) -> None:
        """Each record has exactly one result."""
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
    """A stream with so many messages dealt over its partitions, some of which kill the engine."""
    stream = FakeStream("in", partitions)
    for number in range(count):
        text = f"poison {number}" if number in poison else f"message {number}"
        stream.add(text.encode(), number % partitions)
    return stream


def of_poison(texts: Sequence[str]) -> bool:
    """Die of a message that is poison."""
    return any(text.startswith("poison") for text in texts)


def at_random(ratio: float, seed: int) -> Callable[[Sequence[str]], bool]:
    """Die of so many of the messages that are worked on, whichever they are."""
    chance = random.Random(seed)
    return lambda texts: any(chance.random() < ratio for _ in texts[:16])
