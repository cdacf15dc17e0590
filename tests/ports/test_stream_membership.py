"""A member that its group has expelled can publish nothing, on real Kafka.

Its link is cut for longer than its session and comes back while it publishes, before it has heard
that it was expelled. Its client refuses anyway: Kafka lets a client without member id commit
anything, even while the group has members.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chaos.proxy import Proxy
from tests.ports.test_stream import KafkaBench, Listener, batch, fetch, poll_until
from worker.errors import PublishAborted
from worker.stream.topics import Topics

MEMBER: dict[str, Any] = {"session.timeout.ms": 3000, "heartbeat.interval.ms": 500}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as closing:
        yield closing


def test_a_member_that_was_cut_off_publishes_nothing(
    bootstrap_servers: str, topic: Callable[[str], str], stack: ExitStack
) -> None:
    names = Topics((topic("in"),), topic("out"), topic("review"), topic("dead"))
    proxy = Proxy(int(bootstrap_servers.rpartition(":")[2]))
    stack.callback(proxy.close)
    cut = KafkaBench(proxy.address, names, consumer=MEMBER, transactional_id=topic("cut"))
    stack.callback(cut.close)
    heir = KafkaBench(bootstrap_servers, names, consumer=MEMBER, transactional_id=topic("heir"))
    stack.callback(heir.close)
    stream, listener = cut.open(), Listener()
    cut.subscribe(stream, listener)
    for number in range(6):
        heir.send(b"%d" % number, partition=number % 2)
    held = batch(fetch(stream, 6), names.output, b"of the member that was cut off")

    proxy.set_link("cut")
    next_owner = heir.open()
    next_owner.subscribe(Listener())
    next_owner.publish(batch(fetch(next_owner, 6, 90), names.output, b"of its heir"))
    proxy.set_link("whole")
    time.sleep(3)  # until its client has heard of it
    with pytest.raises(PublishAborted):
        stream.publish(held)

    assert heir.visible(names.output) == [b"of its heir"] * 6
    assert [heir.committed(0), heir.committed(1)] == [3, 3]
    assert "lost" not in dict(listener.events)
    poll_until(lambda: "lost" in dict(listener.events), stream)
