"""A record whose schema is not known holds up its partition alone, and not for ever."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.support.rig import Rig, SinkRecord, isolation, make_loop_policy
from tests.unit.core.test_crash_isolation import answer_all, filled, worker
from worker.contract.errors import MessageRejected
from worker.contract.records import Headers


@dataclass
class FewSchemas:
    """Knows the schemas of all values but those that begin with a number that is not known."""

    known: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    away_since: float | None = None

    def is_known(self, topic: str, value: bytes | None, headers: Headers) -> bool:
        text = (value or b"").decode()
        self.asked.append(text)
        return not text[0].isdigit() or text[0] in self.known

    def plain(self, topic: str, value: bytes | None, headers: Headers) -> bytes | None:
        if not self.is_known(topic, value, headers):
            raise MessageRejected("unknown_schema", "no answer")
        return value


def rig_with(schemas: FewSchemas, **options: object) -> Rig:
    rig = Rig(partitions=2, policy=make_loop_policy(drain_s=5.0), schemas=schemas, **options)  # type: ignore[arg-type]
    rig.add("1 waits", "behind it")
    rig.add("a", "b", "c", partition=1)
    rig.stream.assign(0, 1)
    return rig


def test_a_partition_waits_for_its_first_record_and_the_other_goes_on() -> None:
    schemas = FewSchemas()
    rig = rig_with(schemas)
    answer_all(rig, 5)
    assert rig.ids == ["in-1-0", "in-1-1", "in-1-2"]
    assert rig.committed(0) == 0
    schemas.known.add("1")
    answer_all(rig, 5)
    assert rig.ids[3:] == ["in-0-0", "in-0-1"]
    assert rig.committed(0) == 2
    asked = len(schemas.asked)
    answer_all(rig, 5)
    assert len(schemas.asked) == asked, "it is asked only for records that wait"


def test_a_record_that_has_waited_long_enough_becomes_a_dead_letter() -> None:
    """Each record has its own time; those behind it are labelled."""
    rig = rig_with(FewSchemas())
    rig.iterate(2)
    answer_all(rig, int(rig.schemas_wait_s) - 5)
    assert SinkRecord("dead", "in-0-0", reason="unknown_schema") not in rig.outputs
    answer_all(rig, 10)
    assert SinkRecord("dead", "in-0-0", reason="unknown_schema") in rig.outputs
    assert rig.ids[-1] == "in-0-1"
    assert rig.committed(0) == 2


def test_the_partition_of_a_waiting_record_can_be_revoked_and_read_by_another_worker() -> None:
    rig = rig_with(FewSchemas(), tick=0.01)  # the revoke waits by the clock
    answer_all(rig, 5)
    rig.stream.revoke(0, 1)
    assert rig.committed(0) == 0
    after = Rig(partitions=2, schemas=FewSchemas({"1"}), shared=rig.stream)
    rig.stream.assign(0, 1)
    answer_all(after, 5)
    assert sorted(after.ids) == ["in-0-0", "in-0-1", "in-1-0", "in-1-1", "in-1-2"]


def test_a_suspect_waits_for_its_schema_too() -> None:
    """After a crash the next worker knows no schema: its suspects are tried when it does."""
    stream = filled("1 a", "1 b")
    first = worker(stream, "p1")
    first.iterate(2)
    schemas = FewSchemas()
    second = Rig(isolation=isolation("p2"), schemas=schemas, shared=stream)
    stream.assigned.clear()
    stream.assign(0)
    second.iterate(5)
    assert second.engine.pending == []
    assert second.loop.state.suspect_records == 2
    schemas.known.add("1")
    answer_all(second)
    assert second.ids == ["in-0-0", "in-0-1"]
