"""Shares of traffic by hash."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import toy_record
from worker.core.share import place_of
from worker.records.types import TopicPartition


@given(st.binary(max_size=40), st.integers(0, 10**6), st.integers(0, 7))
def test_a_key_has_one_place_wherever_its_records_are(
    key: bytes, offset: int, partition: int
) -> None:
    """So it stays in a share that grows, on every worker, in every delivery."""
    record = toy_record(key=key)
    other = toy_record(key=key, offset=offset, source=TopicPartition("in", partition), value=b"x")
    assert 0 <= place_of(record, "s") == place_of(other, "s") < 1


def test_a_record_without_a_key_has_its_ids_place() -> None:
    """A record that is read again after a rebalance is in the same share."""
    record = toy_record(key=None)
    assert place_of(record, "s") == place_of(toy_record(key=None, value=b"other"), "s")
    assert place_of(record, "s") != place_of(toy_record(key=None, offset=43), "s")


def test_a_share_is_what_it_says_and_two_shares_are_independent() -> None:
    """A tenth is a tenth, and of the tenth of another salt a tenth is in it."""
    keys = [toy_record(key=b"customer-%d" % n) for n in range(20_000)]
    first = {record.key for record in keys if place_of(record, "canary a") < 0.1}
    second = {record.key for record in keys if place_of(record, "shadow a") < 0.1}
    assert 1850 < len(first) < 2150
    assert 130 < len(first & second) < 270
