"""A Kafka that cannot be reached while results wait."""

from __future__ import annotations

import pytest

from tests.support.policies import make_loop_policy
from tests.support.rig import started
from worker.errors import OutcomeUnknown, PublishAborted, StreamFailed

AWAY = PublishAborted("nobody answers", unreachable=True)
REFUSED = PublishAborted("no")


def test_an_unreachable_kafka_is_waited_for_and_told_once() -> None:
    """However many attempts that takes: a new worker would not reach it either."""
    rig = started("m0")
    rig.stream.failures.extend([AWAY] * 100)
    rig.answer("m0")
    rig.iterate(100)
    assert rig.ids == ["in-0-0"]
    assert [event[:2] for event in rig.events.kinds("outage")] == [
        ("outage", "began"),
        ("outage", "ended"),
    ]
    assert rig.events.kinds("publish_failed") == []
    assert max(rig.waits) <= 5.0


def test_the_state_says_since_when() -> None:
    """From the first failure to the first success."""
    rig = started("m0")
    rig.stream.failures.extend([AWAY, AWAY])
    rig.engine.answer("m0")
    rig.iterate()
    since = rig.loop.state.outage_since
    assert since is not None
    rig.iterate()
    assert rig.loop.state.outage_since == since
    rig.iterate()
    assert rig.loop.state.outage_since is None


def test_refusals_are_still_counted() -> None:
    """A Kafka that answers and refuses will refuse again."""
    rig = started("m0", policy=make_loop_policy(publish_attempts=3))
    rig.stream.failures.extend([REFUSED, AWAY, REFUSED, AWAY, REFUSED])
    rig.engine.answer("m0")
    with pytest.raises(StreamFailed, match="3 attempts"):
        rig.iterate(5)


def test_an_unanswered_commit_is_waited_for_too() -> None:
    """What became of it is found out when Kafka is back, and nothing is published twice."""
    rig = started("m0")
    rig.stream.commits_before_failure = True
    rig.stream.failures.append(OutcomeUnknown("no answer", unreachable=True))
    rig.engine.answer("m0")
    rig.iterate(3)
    assert rig.ids == ["in-0-0"]
    assert rig.loop.state.outage_since is None
