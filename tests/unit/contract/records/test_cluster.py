"""Two clusters that mirror each other under one name give no two messages one id."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.records import toy_record
from worker.contract.records import DeadLetter, read_dead_letter, record_id
from worker.contract.records.identity import Source, check_identity
from worker.records.retry import RetryPolicy, restore
from worker.records.types import Postponed, Record, Rejected


def test_the_id_begins_with_the_clusters_name() -> None:
    """A slash is in no topic's name; without a name it is what it always was."""
    assert record_id("support.messages", 3, 42) == "support.messages-3-42"
    assert record_id("support.messages", 3, 42, "eu") == "eu/support.messages-3-42"
    assert toy_record(cluster="eu").id == f"eu/{toy_record().id}"


def test_a_reader_holds_the_id_to_the_source() -> None:
    """Of an output that names its cluster, and of one that does not."""
    check_identity("in-3-42", Source("in", 3, 42, None))
    check_identity("eu/in-3-42", Source("in", 3, 42, None, "eu"))
    for id_, cluster in (("in-3-42", "eu"), ("us/in-3-42", "eu"), ("eu/in-3-42", None)):
        with pytest.raises(ValueError, match="id is not that of its source"):
            check_identity(id_, Source("in", 3, 42, None, cluster))


def test_a_dead_letter_names_the_cluster_where_there_is_one() -> None:
    """In a header of its own."""
    plain = DeadLetter("not_json", "decode", "x", "in", 3, 42, None, 1, "1", "d")
    assert read_dead_letter(plain.headers()) == plain
    assert "clerk.source.cluster" not in dict(plain.headers())
    named = DeadLetter("not_json", "decode", "x", "in", 3, 42, None, 1, "1", "d", cluster="eu")
    assert read_dead_letter(named.headers()) == named
    assert named.id == "eu/in-3-42"


@pytest.mark.parametrize("first", ["eu", None])
def test_a_message_that_waits_keeps_the_cluster_that_it_was_first_read_in(
    first: str | None,
) -> None:
    """The retry topic is mirrored too, and after the failover its worker has another name."""
    now = datetime(2026, 3, 2, tzinfo=UTC)
    failed = toy_record(cluster=first)
    postponed = Postponed(Rejected("deadline_exceeded", "engine", "x"), 1)
    written = RetryPolicy("retry", 60.0, 3).encode(failed, postponed, now)
    mirrored = Record(
        failed.source, 7, written.key, written.value, written.headers, 1, cluster="us"
    )
    waiting = restore(mirrored, now)
    assert waiting.id == failed.id
    assert waiting.headers == failed.headers
