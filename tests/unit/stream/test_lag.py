"""How far behind a partition is, from the statistics of the client."""

from typing import Any

from tests.support.records import toy_record
from worker.records.types import NextOffset, Record, TopicPartition
from worker.stream.lag import Lag, has_coordinator, read_statistics

SOURCE = TopicPartition("in", 0)


def record(offset: int) -> Record:
    return toy_record(source=SOURCE, offset=offset, timestamp_ms=1_700_000_000_000 + offset)


def statistics(**facts: int) -> dict[str, Any]:
    """What the client says of one partition, as far as anybody here asks."""
    known = {
        "partition": 0,
        "lo_offset": -1001,
        "ls_offset": -1001,
        "committed_offset": -1001,
        "next_offset": 0,
        "fetchq_cnt": 0,
    }
    nobody = {**known, "partition": -1}
    partitions = {"0": {**known, **facts}, "-1": nobody}
    return {"topics": {"in": {"topic": "in", "partitions": partitions}}, "cgrp": {"state": "up"}}


def held() -> Lag:
    lag = Lag()
    lag.assigned([SOURCE])
    return lag


def test_it_is_counted_from_the_next_offset_to_be_committed() -> None:
    """Records in flight are not done."""
    lag = held()
    lag.delivered(record(n) for n in range(10, 30))
    lag.published([NextOffset(SOURCE, 20)])
    lag.update(statistics(ls_offset=50, committed_offset=5, next_offset=50, fetchq_cnt=20), set())
    assert lag.read() == {SOURCE: 30}


def test_before_the_first_commit_it_begins_where_the_group_left_off_or_at_the_beginning() -> None:
    """A backlog is seen before anything of it is done."""
    lag = held()
    lag.update(statistics(ls_offset=50, committed_offset=5, lo_offset=0, next_offset=5), set())
    assert lag.read() == {SOURCE: 45}
    lag.update(statistics(ls_offset=50, lo_offset=3, next_offset=3), set())
    assert lag.read() == {SOURCE: 47}


def test_the_oldest_message_is_the_first_that_is_delivered_and_not_published() -> None:
    """Records before the committed offset do not count, and partitions of others do not."""
    lag = held()
    lag.delivered(record(n) for n in range(10, 13))
    lag.update(statistics(), set())
    assert lag.oldest_ms() == {SOURCE: record(10).timestamp_ms}
    lag.published([NextOffset(SOURCE, 12)])
    lag.update(statistics(), set())
    assert lag.oldest_ms() == {SOURCE: record(12).timestamp_ms}
    lag.delivered([record(11), record(12)])
    lag.update(statistics(), set())
    assert lag.oldest_ms() == {SOURCE: record(12).timestamp_ms}
    lag.ended([SOURCE])
    assert lag.oldest_ms() == {}
    lag.assigned([SOURCE])
    lag.update(statistics(), set())
    assert lag.oldest_ms() == {}


def test_a_partition_delivered_from_its_beginning_keeps_nothing_of_what_is_published() -> None:
    """A million records that are skipped took 132 MB, and counted as waiting."""
    lag = held()
    lag.delivered(record(n) for n in range(500))
    lag.published([NextOffset(SOURCE, 1_000)])
    lag.delivered(record(n) for n in range(500, 1_002))
    assert [offset for offset, _ in lag._waiting[SOURCE]] == [1_000, 1_001]
    lag.update(statistics(ls_offset=1_002, lo_offset=0, next_offset=1_002), set())
    assert lag.read() == {SOURCE: 2}


def test_nothing_is_said_of_what_is_not_known() -> None:
    """No made-up zero."""
    lag = held()
    lag.update(statistics(ls_offset=50), set())
    assert lag.read() == {}
    lag.update(statistics(committed_offset=5), set())
    assert lag.read() == {}


def test_transaction_markers_at_the_end_are_no_lag() -> None:
    """Read to the end, all delivered is published, nothing waits in the client: 0."""
    lag = held()
    lag.delivered([record(7)])
    end = {"ls_offset": 9, "next_offset": 9, "committed_offset": 2}
    lag.update(statistics(**end), set())
    assert lag.read() == {SOURCE: 7}, "the record is in flight"
    lag.published([NextOffset(SOURCE, 8)])
    lag.update(statistics(**end, fetchq_cnt=1), set())
    assert lag.read() == {SOURCE: 1}, "another waits in the client"
    lag.update(statistics(**end), set())
    assert lag.read() == {SOURCE: 0}
    lag.update(statistics(**{**end, "ls_offset": 12}), set())
    assert lag.read() == {SOURCE: 4}, "more has come"


def test_what_the_client_had_read_ahead_counts_while_it_is_paused() -> None:
    """A pause throws it away: that the client has been at the end says nothing."""
    lag = held()
    lag.delivered([record(7)])
    lag.published([NextOffset(SOURCE, 8)])
    lag.update(statistics(ls_offset=20, next_offset=20), {SOURCE})
    assert lag.read() == {SOURCE: 12}
    lag.update(statistics(ls_offset=20, next_offset=20), set())
    assert lag.read() == {SOURCE: 0}


def test_markers_before_the_first_record_are_no_lag_either() -> None:
    """A worker that starts on a partition which is done."""
    lag = held()
    lag.update(statistics(ls_offset=9, committed_offset=8, next_offset=9), set())
    assert lag.read() == {SOURCE: 0}


def test_a_partition_that_goes_takes_its_lag_along() -> None:
    """And comes back without what was known of it: others have worked on it since."""
    lag = held()
    lag.delivered([record(5)])
    lag.published([NextOffset(SOURCE, 6)])
    lag.update(statistics(ls_offset=50), set())
    assert lag.read() == {SOURCE: 44}
    lag.ended([SOURCE])
    assert lag.read() == {}
    lag.update(statistics(ls_offset=50), set())
    assert lag.read() == {}
    lag.assigned([SOURCE])
    lag.update(statistics(ls_offset=50, committed_offset=40, next_offset=40), set())
    assert lag.read() == {SOURCE: 10}


def test_what_was_read_keeps_still() -> None:
    """Whoever reads on another thread never sees it half made."""
    lag = held()
    lag.update(statistics(ls_offset=50, committed_offset=5), set())
    before = lag.read()
    lag.update(statistics(ls_offset=60, committed_offset=5), set())
    assert before == {SOURCE: 45}


def test_the_coordinator_is_heard_of() -> None:
    """By a member that is told nothing else."""
    assert has_coordinator(read_statistics('{"cgrp": {"state": "up"}}'))
    assert not has_coordinator(read_statistics('{"cgrp": {"state": "wait-coord"}}'))
    assert not has_coordinator(read_statistics("{}"))
