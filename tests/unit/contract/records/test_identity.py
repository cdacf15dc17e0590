"""Ids, replays, and clusters that mirror each other."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rig import toy_record
from worker.contract.errors import RecordRefused
from worker.contract.records import (
    DeadLetter,
    Replay,
    read_dead_letter,
    read_replay,
    supersedes,
)
from worker.records.encode import RetryPolicy, restore
from worker.records.types import Postponed, Record, Rejected


def test_a_dead_letter_names_the_cluster_where_there_is_one() -> None:
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
    """The retry topic may be mirrored, and after a failover the worker has another cluster name."""
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


# Which replay made a result, and which of several results holds.


MONDAY = Replay("monday", "2026-03-02T08:00:00Z", "bug 17")
TUESDAY = Replay("again", "2026-03-03T09:00:00+01:00", "the fix of bug 17 had a bug")


def test_the_replay_that_began_last_holds() -> None:
    """In any order of arrival."""
    for _ in range(10):
        held: Replay | None = None
        runs: list[Replay | None] = [None, MONDAY, TUESDAY]
        random.shuffle(runs)
        for run in runs:
            held = run if supersedes(run, held) else held
        assert held == TUESDAY
    assert not supersedes(MONDAY, MONDAY)
    assert not supersedes(None, None)


@given(st.from_regex(r"[A-Za-z0-9._-]{1,100}", fullmatch=True), st.text(max_size=50))
def test_headers_are_read_back(name: str, reason: str) -> None:
    reason = reason.encode("utf-8", "replace").decode()
    replay = Replay(name, MONDAY.at, reason)
    assert read_replay((("trace", None), *replay.headers())) == replay


def test_a_dead_letter_of_the_first_run_has_none() -> None:
    assert read_replay((("trace", b"x"),)) is None
    with pytest.raises(RecordRefused, match=r"replay\.id"):
        read_replay((("clerk.replay.id", b"two words"),))
    with pytest.raises(RecordRefused, match=r"replay\.at"):
        read_replay((("clerk.replay.id", b"x"), ("clerk.replay.at", b"yesterday")))
