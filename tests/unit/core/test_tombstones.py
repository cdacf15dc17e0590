"""Records without a value become a dead letter, are skipped, or are forwarded."""

from dataclasses import replace
from typing import Literal

from tests.support.rig import NOW, Rig, started, toy_completed, toy_record
from worker.core.assignment import PartitionState
from worker.core.publisher import TopicRouter, build_batch, replace_refused, take_ready
from worker.records.types import Outcome, Rejected, Tombstone, TopicPartition

TOO_LARGE = Rejected("output_too_large", "encode", "")


def rig_with(tombstones: Literal["dead", "skip", "forward"]) -> Rig:
    rig = started()
    main = rig.router.split.main
    main.labeller = replace(main.labeller, tombstones=tombstones)
    return rig


def test_by_default_a_tombstone_is_a_dead_letter() -> None:
    rig = rig_with("dead")
    rig.stream.add(None, key=b"k")
    rig.iterate()
    assert [published.reason for published in rig.outputs] == ["tombstone"]


def test_a_skipped_tombstone_is_counted_and_its_offset_committed() -> None:
    rig = rig_with("skip")
    kinds: list[str] = []
    rig.on_published(lambda batch: kinds.extend(each.outcome.kind for each in batch))
    rig.stream.add(None, key=b"k")
    rig.stream.add(None)
    rig.iterate()
    assert (rig.outputs, rig.committed()) == ([], 2)
    rig.add("m")
    rig.stream.add(None, key=b"k")
    rig.iterate()
    rig.answer("m")
    assert (rig.ids, rig.committed()) == (["in-0-2"], 4)
    assert kinds == ["skipped", "skipped", "output", "skipped"]


def test_a_forwarded_tombstone_deletes_the_label_of_its_key() -> None:
    rig = rig_with("forward")
    rig.stream.add(b"m", key=b"k")
    rig.stream.add(None, key=b"k")
    rig.stream.add(None)
    rig.iterate()
    rig.answer("m")
    label, tombstone, dead = rig.stream.outputs
    assert (label.key, label.value is None) == (b"k", False)
    assert (tombstone.topic, tombstone.key, tombstone.value) == ("out", b"k", None)
    assert (dead.topic, dict(dead.headers)["clerk.reason"]) == ("dead", b"tombstone")
    assert rig.committed() == 3


def test_a_refused_record_is_found_behind_a_skipped_tombstone() -> None:
    source = TopicPartition("in", 0)
    partition = PartitionState(source)
    rejected = Rejected("not_json", "decode", "")
    outcomes: tuple[Outcome, ...] = (Tombstone(forwarded=False), rejected, rejected)
    for offset, outcome in enumerate(outcomes):
        partition.watermark.add(offset)
        record = toy_record(source=source, offset=offset)
        partition.watermark.finish(offset, toy_completed(record, outcome))
    batches = take_ready([partition], 10)
    assert len(build_batch(batches, TopicRouter("out", None), NOW).outputs) == 2
    replace_refused(batches, [1], TOO_LARGE)
    assert [each.without_payload for _, each in partition.watermark.peek(9)] == [False, False, True]


def test_a_forwarded_tombstone_keeps_the_senders_headers_only() -> None:
    router = TopicRouter("out", None)
    record = toy_record(headers=(("clerk.main.label", b"1"), ("kept", b"2")))
    passed = router.route(toy_completed(record, Tombstone(forwarded=True)), NOW)
    assert passed is not None
    assert passed.headers == (("kept", b"2"),)
