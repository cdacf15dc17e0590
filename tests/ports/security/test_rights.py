"""A worker on a Kafka with access rules: missing rights are named. Real broker."""

from __future__ import annotations

import pytest

from tests.chaos.harness import FAKE_WORKER
from tests.support.secure_desk import FAILS_WITHIN_S, Desk, mostly_long, ways
from worker.demo.program import start_worker

MISSING = {
    "input": "read the topic '{in}' (kafka.input_topics)",
    "output": "write the topic '{out}' (kafka.output_topic)",
    "review": "write the topic '{review}' (kafka.review_topic)",
    "dead": "write the topic '{dead}' (kafka.dead_letter_topic)",
    "group": "read as the consumer group '{group}' (kafka.group_id)",
    "transactions": "(kafka.group_id begins it)",
}


@pytest.mark.parametrize("right", mostly_long(MISSING, ("dead", "group")))
@pytest.mark.parametrize("described", [False, True], ids=["nothing at all", "may be described"])
def test_a_missing_right_is_named(desk: Desk, right: str, described: bool) -> None:
    """Before the model is loaded; also where the worker may describe the object and no more."""
    desk.allow("scram", but=right)
    if described:
        kind, name, _ = desk.rights[right]
        desk.kafka.allow("User:scram-clerk", [(kind, name, "DESCRIBE")])
    ended, written, seconds = desk.start_failing(ways(desk.kafka)["scram"])
    assert ended == 4, written
    (error,) = written.splitlines()
    assert error.startswith("error: ")
    assert "'scram-clerk' may not " in error
    assert MISSING[right].format(**desk.topics, group=desk.group) in error
    assert desk.kafka.address_of("SASL") in error
    assert seconds < FAILS_WITHIN_S


def test_all_missing_rights_are_named_at_once(desk: Desk) -> None:
    desk.kafka.forbid("User:scram-clerk")
    ended, written, _ = desk.start_failing(ways(desk.kafka)["scram"])
    assert ended == 4
    for topic in (*desk.topics.values(), desk.group):
        assert repr(topic) in written


def test_a_worker_ends_naming_the_right_it_lost(desk: Desk) -> None:
    """The running worker learns it from the first refusal, and loses nothing."""
    desk.allow("scram")
    log = desk.folder / "worker.log"
    given = desk.settings(ways(desk.kafka)["scram"])
    with start_worker({**given, "http.port": "0"}, log, FAKE_WORKER) as worker:
        desk.label_all(worker, 5)
        desk.kafka.take_away("User:scram-clerk", desk.rights["output"])
        desk.publish(5)
        assert worker.child.wait(60) == 4
    (error,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert "producing to " in error
    assert desk.topics["out"] in error.partition(": no right to use the topic: ")[0]
    assert desk.results() == 7
