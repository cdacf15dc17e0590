"""Which replay made a result, and which of several results holds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.errors import RecordRefused
from worker.contract.records import Replay, read_replay, supersedes

MONDAY = Replay("monday", "2026-03-02T08:00:00Z", "bug 17")
TUESDAY = Replay("again", "2026-03-03T09:00:00+01:00", "the mend of bug 17 had a bug")


def test_the_replay_that_began_last_holds() -> None:
    """Whatever the order of arrival; the first run yields to any."""
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
    """On a dead letter, among others'."""
    reason = reason.encode("utf-8", "replace").decode()
    replay = Replay(name, MONDAY.at, reason)
    assert read_replay((("trace", None), *replay.headers())) == replay


def test_a_dead_letter_of_the_first_run_has_none() -> None:
    """And what is no replay is refused, by field."""
    assert read_replay((("trace", b"x"),)) is None
    with pytest.raises(RecordRefused, match=r"replay\.id"):
        read_replay((("clerk.replay.id", b"two words"),))
    with pytest.raises(RecordRefused, match=r"replay\.at"):
        read_replay((("clerk.replay.id", b"x"), ("clerk.replay.at", b"yesterday")))
