"""Which records become suspects, are cleared, and are rejected, step by step."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rig import FakeWitness, Rig, SinkRecord, isolation, make_loop_policy
from worker.core.assignment import OffsetNote, Suspects, read_note
from worker.core.crash_isolation import ProvenDeath
from worker.errors import EngineDied, OutcomeUnknown, PublishAborted, StreamFailed
from worker.records.types import Batch
from worker.stream.fake import FakeStream

offsets = st.integers(100, 10_000)
deaths = st.dictionaries(offsets, st.integers(1, 9), max_size=40)


@given(offsets, st.integers(1, 512), deaths, st.sampled_from([None, "p1"]))
def test_a_note_is_read_as_it_was_written(
    first: int, length: int, proven: dict[int, int], owner: str | None
) -> None:
    note = OffsetNote(owner, range(first, first + length), proven)
    assert read_note(note.encode(100), 100) == note


@given(st.dictionaries(offsets, st.integers(1, 9), max_size=2_000))
def test_a_note_stays_small(proven: dict[int, int]) -> None:
    """Kafka takes 4,096 bytes."""
    assert len(OffsetNote("12345678", range(100, 612), proven).encode(0)) < 1500


@pytest.mark.parametrize(
    "text",
    [
        "anything",
        "[]",
        "7",
        '{"v":2,"by":"p"}',
        '{"v":1,"suspects":7}',
        '{"v":1,"suspects":[1]}',
        '{"v":1,"suspects":[-1,2]}',
        '{"v":1,"suspects":["a","b"]}',
        '{"v":1,"suspects":[true,1]}',
        '{"v":1,"deaths":true}',
        '{"v":1,"deaths":[1,2,3]}',
        "[" * 100_000,
    ],
)
def test_a_note_that_is_not_ours_is_ignored(text: str) -> None:
    assert read_note(text, 0) == OffsetNote()


def test_committed_and_cleared_records_are_no_longer_suspects() -> None:
    note = OffsetNote("p0", deaths={3: 1})
    suspects = Suspects.take_over(note, 0, range(6), "p1")
    assert [offset for offset in range(8) if offset in suspects] == [0, 1, 2, 3, 4, 5]
    for offset in (0, 1, 3, 4):
        suspects.clear(offset)
    assert [offset for offset in range(8) if offset in suspects] == [2, 5]
    assert read_note(suspects.note(1), 1) == OffsetNote("p1", range(2, 6))
    suspects.commit(6)
    assert len(suspects) == 0
    assert read_note(suspects.note(6, closing=True), 6) == OffsetNote()


def worker(stream: FakeStream, process: str, witness: FakeWitness | None = None) -> Rig:
    """Another worker on this stream, with all of its partitions."""
    stream.assigned.clear()
    stream.paused.clear()
    rig = Rig(
        partitions=len(stream.sources),
        policy=make_loop_policy(drain_s=5.0),
        isolation=isolation(process, witness=witness),
        shared=stream,
    )
    stream.assign(*range(len(stream.sources)))
    return rig


def note(stream: FakeStream, partition: int = 0) -> dict[str, object]:
    text = stream.notes.get(stream.sources[partition], "")
    found = dict(json.loads(text)) if text else {}
    assert found.pop("topic", None) == (stream.topic_id if text else None)
    return found


def filled(*texts: str, partitions: int = 1) -> FakeStream:
    stream = FakeStream("in", partitions)
    for at, text in enumerate(texts):
        stream.add(text.encode(), at % partitions)
    return stream


def die(rig: Rig) -> None:
    """The engine dies, and the worker handles it as ``run`` does."""
    rig.engine.fake.die()
    with pytest.raises(EngineDied):
        rig.iterate()
    rig.loop._isolation.engine_died()


def answer_all(rig: Rig, iterations: int = 20) -> None:
    """Answer all messages in the engine, iteration by iteration."""
    for _ in range(iterations):
        rig.iterate()
        for text in rig.engine.pending:
            rig.engine.answer(text)
    rig.iterate(2)


def test_the_note_is_open_while_records_are_in_the_engine_and_closed_after_a_revoke() -> None:
    stream = filled("a", "b")
    rig = worker(stream, "p1")
    rig.iterate()
    assert note(stream) == {"v": 1, "by": "p1"}
    assert rig.engine.pending == ["a", "b"]
    rig.answer("a", "b")
    rig.iterate()
    stream.revoke(0)
    assert note(stream) == {"v": 1}
    assert rig.committed() == 2


def test_an_open_note_makes_suspects_which_are_tried_one_at_a_time() -> None:
    stream = filled(*(f"m{at}" for at in range(9)))
    worker(stream, "p1").iterate(2)
    rig = worker(stream, "p2")
    for number in range(9):
        while not rig.engine.pending:
            rig.iterate()
        assert rig.engine.pending == [f"m{number}"]
        rig.answer(f"m{number}")
    rig.iterate(3)
    assert ("suspected", 0, 0, 9, 0) in rig.events.log
    assert rig.ids == [f"in-0-{at}" for at in range(9)]
    assert rig.events.kinds("cleared")
    assert note(stream) == {"v": 1, "by": "p2"}


def test_nothing_else_is_in_the_engine_while_the_last_suspect_is_tried() -> None:
    """Otherwise the suspect would be blamed if another record crashed the engine."""
    stream = filled("a")
    worker(stream, "p1").iterate(2)
    rig = worker(stream, "p2")
    rig.iterate(2)
    assert rig.engine.pending == ["a"]
    rig.add("next", "after")
    rig.iterate(3)
    assert rig.engine.pending == ["a"]
    rig.answer("a")
    rig.iterate(2)
    assert rig.engine.pending == ["next", "after"]


def test_lost_partitions_never_count_as_deaths() -> None:
    """However often they are lost in the middle of a trial: the processes are alive."""
    stream = filled("a")
    for number in range(8):
        rig = worker(stream, f"p{number}")
        rig.iterate(3)
        assert rig.engine.pending == ["a"]
        stream.lose(0)
    rig = worker(stream, "last")
    answer_all(rig)
    assert rig.outputs == [SinkRecord("out", "in-0-0", label="billing")]


def test_a_message_is_not_blamed_when_the_output_topic_refuses_its_result() -> None:
    stream = filled("a")

    def refuse(batch: Batch) -> None:
        if batch.outputs:
            raise StreamFailed("producing to out: TOPIC_AUTHORIZATION_FAILED")
        FakeStream.publish(stream, batch)

    stream.publish = refuse  # type: ignore[method-assign]
    for number in range(8):
        rig = worker(stream, f"p{number}")
        stream.script.extend([lambda: None, lambda rig=rig: rig.engine.answer("a")])  # type: ignore[misc]
        with pytest.raises(StreamFailed):
            rig.loop.run()
        assert note(stream) == {"v": 1}
    del stream.publish
    rig = worker(stream, "last")
    answer_all(rig)
    assert rig.outputs == [SinkRecord("out", "in-0-0", label="billing")]
    assert not rig.events.kinds("suspected")


def test_a_partition_that_this_process_lost_and_got_back_has_no_suspects() -> None:
    stream = filled("a", "b")
    rig = worker(stream, "p1")
    rig.iterate(2)
    stream.lose(0)
    stream.assign(0)
    rig.iterate(2)
    assert not rig.events.kinds("suspected")
    assert rig.engine.pending


def test_when_the_engine_dies_the_records_in_it_become_suspects() -> None:
    stream = filled("a", "b", "c")
    rig = worker(stream, "p1")
    rig.iterate(2)
    rig.answer("a")
    rig.iterate()
    die(rig)
    assert note(stream) == {"v": 1, "suspects": [0, 2]}
    assert rig.committed() == 1


@pytest.mark.parametrize("death", ["engine", "process"])
def test_a_record_is_rejected_after_three_proven_deaths(death: str) -> None:
    stream, witness = filled("bad", "good"), FakeWitness()
    rig = worker(stream, "p0", witness)
    rig.iterate(2)
    witness.killed()  # with both messages in the engine: no proof
    for deaths in range(3):
        rig = worker(stream, f"p{deaths + 1}", witness)
        for _ in range(20):
            if rig.engine.pending == ["bad"]:
                break
            rig.iterate()
            if "good" in rig.engine.pending:
                rig.answer("good")
        assert rig.engine.pending == ["bad"]
        assert rig.outputs == []
        if death == "engine":
            die(rig)
            assert note(stream) == {"v": 1, "deaths": [0, deaths + 1]}
        else:
            witness.killed()
    rig = worker(stream, "p9", witness)
    answer_all(rig)
    assert rig.outputs[0] == SinkRecord("dead", "in-0-0", reason="killed_engine")
    assert rig.ids == ["in-0-0", "in-0-1"]
    assert ("rejected", 0, 0, 1, 3) in rig.events.log
    assert note(stream) == {"v": 1, "by": "p9"}


def test_an_engine_that_died_before_a_trial_began_proves_nothing() -> None:
    stream = filled("a")
    worker(stream, "p0").iterate(2)
    rig = worker(stream, "p1")
    rig.iterate()
    check_health, rig.engine.check_health = rig.engine.check_health, lambda: None  # type: ignore[method-assign]
    stream.assigned.clear()
    rig.loop._pipeline.requests.terminate(list(rig.loop._assignment))
    stream.lose(0)
    stream.assign(0)
    rig.engine.fake.die()
    with pytest.raises(EngineDied):
        rig.iterate(3)
    rig.engine.check_health = check_health  # type: ignore[method-assign]
    rig.loop._isolation.engine_died()
    assert "deaths" not in note(stream)


def test_a_death_whose_note_failed_is_proven_by_its_witness_and_no_death_counts_twice() -> None:
    stream, witness = filled("bad"), FakeWitness()
    worker(stream, "p0").iterate(2)
    for failure, left in ((StreamFailed("fenced"), 1), (None, 0), (OutcomeUnknown("no answer"), 0)):
        rig = worker(stream, "p1", witness)
        rig.iterate(3)
        assert rig.engine.pending == ["bad"]
        stream.failures.append(failure)
        die(rig)
        witness.killed()
        assert len(witness.deaths) == left
        stream.notes[stream.sources[0]] = json.dumps({"v": 1, "by": "p0"})
        witness.deaths.clear()


def test_a_deciding_trial_waits_until_the_engine_has_answered_another_record() -> None:
    """Until then the engine may be broken, and the record innocent."""
    stream = filled("bad")
    stream.notes[stream.sources[0]] = '{"v":1,"deaths":[0,2]}'
    stream.committed[stream.sources[0]] = 0
    rig = worker(stream, "p1")
    rig.iterate(5)
    assert rig.engine.pending == []
    rig.add("good")
    rig.iterate(2)
    rig.answer("good")
    rig.iterate(2)
    assert rig.engine.pending == ["bad"]
    rig.answer("bad")
    rig.iterate(2)
    assert [each.label for each in rig.outputs] == ["billing", "billing"]


@pytest.mark.parametrize("error", [PublishAborted("no"), OutcomeUnknown("no answer")])
def test_no_record_is_submitted_before_the_note_of_its_partition_is_committed(
    error: Exception,
) -> None:
    stream = filled("a", "b")
    rig = worker(stream, "p1")
    stream.failures.append(error)
    rig.iterate()
    assert rig.engine.pending == []
    rig.iterate(3)
    assert rig.engine.pending == ["a", "b"]
    assert note(stream) == {"v": 1, "by": "p1"}


def test_an_unknown_commit_is_resolved_before_a_note_is_committed() -> None:
    """Otherwise the note would move the offset back, and results would be published twice."""
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
    assert note(stream) == {"v": 1, "suspects": [0, 1]}


def test_losing_the_partition_ends_a_trial() -> None:
    stream, witness = filled("a"), FakeWitness()
    worker(stream, "p0").iterate(2)
    rig = worker(stream, "p1", witness)
    rig.iterate(2)
    assert witness.trial == ProvenDeath(stream.sources[0], 0)
    stream.lose(0)
    assert witness.trial is None


def test_a_drain_leaves_untried_suspects_to_the_next_owner() -> None:
    stream = filled("a", "b")
    worker(stream, "p1").iterate(2)
    rig = worker(stream, "p2")
    rig.iterate(2)
    rig.loop.stop()
    rig.clock.tick = 0.1
    rig.loop.drain()
    assert note(stream) == {"v": 1, "suspects": [0, 2]}


def test_records_of_a_canary_in_the_same_process_are_suspects_too() -> None:
    """The canary's record may have crashed the engine process that both share."""
    stream = filled("a", "b", partitions=2)
    rig = worker(stream, "p1")
    rig.iterate(2)
    requests = rig.loop._requests
    canary = rig.router.main.__class__(
        rig.router.main.labeller, rig.engine, rig.router.main.outputs, rig.router.main.dead_letters
    )
    lane = requests.monitor(rig.router.main).lane
    moved = lane.requests[0]
    lane.remove(moved)
    moved.adapter, canary.unfinished = canary, 1
    requests.monitor(canary).lane.give(moved, rig.clock())
    die(rig)
    assert [note(stream, partition).get("suspects") for partition in (0, 1)] == [[0, 1], [0, 1]]


def test_without_crash_isolation_only_the_topics_id_is_noted() -> None:
    rig = Rig()
    rig.add("a")
    rig.stream.assign(0)
    rig.iterate()
    rig.answer("a")
    assert note(rig.stream) == {"v": 1}
    assert len(rig.stream.publishes) == 1
