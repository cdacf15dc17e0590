"""A process whose commit is answered too late, while its client library stands still for a moment.

``python -m tests.support.late_commit SERVERS IN OUT REVIEW DEAD`` publishes a record and prints the
outcome. librdkafka's main thread is held up, as on a machine that is busy with something else, by
writing to a standard error that nobody reads.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from typing import Any
from unittest.mock import patch

from confluent_kafka import Producer

from tests.chaos.proxy import END_TXN, Proxy
from tests.ports.test_stream import KafkaBench, Listener, batch, fetch
from worker.errors import OutcomeUnknown
from worker.stream import kafka_publish
from worker.stream.topics import Topics

# The commit may take as long as the first one; longer than one blocking call of the worker.
PUBLISH_S = 6.0
STANDS_STILL_S = (2.0, 6.5)
ANSWERED_S = 8.0


class Talkative(Producer):
    """Logs metadata on standard error fifty times a second."""

    def __init__(self, config: dict[str, Any], **callbacks: Any) -> None:
        callbacks.pop("logger")
        super().__init__(
            {**config, "debug": "metadata", "topic.metadata.refresh.interval.ms": 20}, **callbacks
        )


def _stand_still(proxy: Proxy, commits: int) -> None:
    """Block standard error for a while, once the commit is on its way."""
    while proxy.requests[END_TXN] == commits:
        time.sleep(0.01)
    begins_s, ends_s = STANDS_STILL_S
    time.sleep(begins_s)
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.write(write, bytes(fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)))
    os.set_blocking(write, True)
    os.dup2(write, sys.stderr.fileno())
    time.sleep(ends_s - begins_s)
    os.close(write)
    while os.read(read, 65_536):
        pass


def main(servers: str, *topics: str) -> None:
    """Publish one record normally, and one whose commit is answered late."""
    proxy = Proxy(int(servers.rpartition(":")[2]))
    source, output, review, dead_letter = topics
    names = Topics((source,), output, review, dead_letter)
    bench = KafkaBench(proxy.address, names, publish_timeout_s=PUBLISH_S)
    with patch.object(kafka_publish, "Producer", Talkative):
        _run(proxy, bench)
    bench.close()
    proxy.close()


def _run(proxy: Proxy, bench: KafkaBench) -> None:
    names, stream, listener = bench.topics, bench.open(), Listener()
    bench.subscribe(stream, listener)
    bench.send(b"first")
    stream.publish(batch(fetch(stream, 1), names.output, b"first"))
    bench.send(b"second")
    records = fetch(stream, 1)
    proxy.hold_answer(END_TXN, ANSWERED_S)
    began = time.monotonic()
    threading.Thread(
        target=_stand_still, args=(proxy, proxy.requests[END_TXN]), daemon=True
    ).start()
    unknown = None
    try:
        stream.publish(batch(records, names.output, b"second"))
    except OutcomeUnknown as error:
        unknown = error  # and with it the frames that hold the client, as the loop's backoff does
    time.sleep(max(0.0, began + ANSWERED_S + 1.5 - time.monotonic()))
    print(f"outcome: {type(unknown).__name__}", flush=True)
    del unknown
    committed = stream.resolve_unknown_commit(listener.assigned)
    print(f"committed: {[each.offset for each in committed]}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
