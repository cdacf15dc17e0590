"""Who is suspected, tried, acquitted and put aside, step by step."""

from __future__ import annotations

import json

import pytest

from tests.support.policies import make_loop_policy
from tests.support.records import Published
from tests.support.rig import Rig
from worker.core.quarantine import QuarantinePolicy
from worker.errors import EngineDied, OutcomeUnknown, PublishAborted, StreamFailed
from worker.stream.fake import FakeStream


def worker(stream: FakeStream, process: str) -> Rig:
    """Another worker on this stream, with all of its partitions."""
    stream.assigned.clear()
    stream.paused.clear()
    rig = Rig(
        partitions=len(stream.sources),
        policy=make_loop_policy(drain_s=5.0),
        quarantine=QuarantinePolicy(process, 512),
        shared=stream,
    )
    stream.assign(*range(len(stream.sources)))
    return rig


def note(stream: FakeStream, partition: int = 0) -> dict[str, object]:
    text = stream.notes.get(stream.sources[partition], "")
    return dict(json.loads(text)) if text else {}


def filled(*texts: str, partitions: int = 1) -> FakeStream:
    stream = FakeStream("in", partitions)
    for at, text in enumerate(texts):
        stream.add(text.encode(), at % partitions)
    return stream


def die(rig: Rig) -> None:
    """Let the engine die and the worker notice, as ``run`` does."""
    rig.engine.fake.die()
    with pytest.raises(EngineDied):
        rig.iterate()
    rig.loop._quarantine.died()


def test_a_partition_is_noted_as_open_before_its_first_record_is_in_the_engine() -> None:
    """And as closed when it is let go: nobody is suspected then."""
    stream = filled("a", "b")
    rig = worker(stream, "p1")
    rig.iterate()
    assert note(stream) == {"v": 1, "by": "p1"}
    rig.iterate(2)
    rig.answer("a", "b")
    assert note(stream) == {"v": 1, "by": "p1"}
    stream.revoke(0)
    assert note(stream) == {}
    assert rig.committed() == 2


def test_an_owner_that_was_killed_leaves_its_records_suspect() -> None:
    """They are tried some at a time, and acquitted by their answers."""
    stream = filled(*(f"m{at}" for at in range(9)))
    worker(stream, "p1").iterate(2)
    rig = worker(stream, "p2")
    rig.iterate(2)
    assert ("suspected", 0, 0, 9, 1) in rig.events.log
    assert rig.engine.pending == ["m0", "m1", "m2"]
    assert note(stream) == {
        "v": 1, "by": "p2", "group": [0, 3], "deaths": 1, "suspects": [0, 9],
    }  # fmt: skip
    while rig.engine.pending:
        rig.answer(*rig.engine.pending)
        rig.iterate(3)
    assert rig.ids == [f"in-0-{at}" for at in range(9)]
    assert rig.events.kinds("acquitted")
    assert note(stream) == {"v": 1, "by": "p2"}


def test_what_this_process_had_open_itself_is_no_death() -> None:
    """It lost the partition, and has it again."""
    stream = filled("a", "b")
    rig = worker(stream, "p1")
    rig.iterate(2)
    stream.lose(0)
    stream.assign(0)
    rig.iterate(2)
    assert not rig.events.kinds("suspected")
    assert rig.engine.pending


def test_an_engine_that_dies_names_who_it_had() -> None:
    """Not what was answered and waits to be published, and not what was never given to it."""
    stream = filled("a", "b", "c")
    rig = worker(stream, "p1")
    rig.iterate(2)
    rig.answer("b")
    die(rig)
    assert note(stream) == {"v": 1, "deaths": 1, "suspects": [0, 1, 2, 1]}
    assert rig.committed() == 0
    assert rig.outputs == []


def test_a_suspect_alone_is_tried_with_nothing_else_and_put_aside_at_its_second_death() -> None:
    """Once the engine has answered something else."""
    stream = filled("bad", "good")
    rig = worker(stream, "p1")
    rig.iterate(2)
    rig.engine.answer("good")
    die(rig)  # alone: the first
    assert note(stream)["lone_deaths"] == 1
    rig = worker(stream, "p2")
    rig.iterate(2)
    assert rig.engine.pending == ["bad"]
    assert note(stream)["alone"] == 1
    die(rig)
    assert note(stream) == {"v": 1, "condemned": [0, 2]}
    rig = worker(stream, "p3")
    rig.iterate(2)
    assert rig.engine.pending == ["good"]
    assert rig.outputs == []
    rig.answer("good")
    rig.iterate(2)
    assert rig.outputs[0] == Published("dead", "in-0-0", reason="killed_engine")
    assert rig.ids == ["in-0-0", "in-0-1"]
    assert note(stream) == {"v": 1, "by": "p3"}
    assert ("put_aside", 0, 0, 1, 2) in rig.events.log


def test_who_was_tried_before_is_not_blamed_for_what_follows() -> None:
    """Its note is taken back before anything else is in the engine."""
    stream = filled("a")
    worker(stream, "p1").iterate(2)
    rig = worker(stream, "p2")
    rig.iterate(2)
    assert note(stream)["alone"] == 1
    rig.stream.failures.extend([PublishAborted("no")] * 3)
    stream.add(b"next")
    rig.engine.answer("a")
    for _ in range(10):
        if "next" in rig.engine.pending:
            break
        rig.iterate()
    assert "next" in rig.engine.pending
    assert "group" not in note(stream)


@pytest.mark.parametrize("error", [PublishAborted("no"), OutcomeUnknown("no answer")])
def test_nothing_is_tried_before_that_is_noted(error: Exception) -> None:
    """A commit that fails is made again first."""
    stream = filled("a", "b")
    worker(stream, "p1").iterate(2)
    rig = worker(stream, "p2")
    stream.failures.append(error)
    rig.iterate()
    assert rig.engine.pending == []
    stream.failures.append(None)
    stream.failures.append(error)
    rig.iterate(2)
    assert rig.engine.pending == []
    rig.iterate(3)
    assert rig.engine.pending == ["a"]


def test_a_last_word_that_cannot_be_left_is_left_out() -> None:
    """The worker ends by its engine's death all the same, and what is in doubt stays as it is."""
    stream = filled("a", "b")
    rig = worker(stream, "p1")
    rig.iterate(2)
    stream.failures.append(StreamFailed("fenced"))
    die(rig)
    assert note(stream) == {"v": 1, "by": "p1"}


def test_a_commit_in_doubt_is_settled_before_an_offset_is_noted() -> None:
    """Else the note would move the offset back, and what was published would come twice."""
    stream = filled("a", "b")
    rig = worker(stream, "p1")
    rig.iterate(2)
    stream.commits_before_failure = True
    stream.failures.append(OutcomeUnknown("no answer"))
    rig.answer("a")
    assert rig.committed() == 1
    stream.commits_before_failure = False
    die(rig)
    assert rig.committed() == 1
    assert note(stream) == {"v": 1, "deaths": 1, "lone_deaths": 1, "suspects": [0, 1]}


def test_draining_with_suspects_ends_in_good_order() -> None:
    """They are tried as ever, and the partition is closed."""
    stream = filled("a", "b")
    worker(stream, "p1").iterate(2)
    rig = worker(stream, "p2")
    rig.iterate(2)
    rig.loop.stop()
    rig.clock.tick = 0.1
    rig.loop.drain()
    assert note(stream).get("by") is None
    assert note(stream)["deaths"] == 1


def test_without_it_nothing_is_noted() -> None:
    """And no transaction made for it."""
    rig = Rig()
    rig.add("a")
    rig.stream.assign(0)
    rig.iterate()
    rig.answer("a")
    assert rig.stream.notes[rig.stream.sources[0]] == ""
    assert len(rig.stream.publishes) == 1
