"""Whether a worker's memory grows with the records that it has done.

    python -m tests.bench.memory loop [--records 2000000]
    python -m tests.bench.memory worker [--records 1000000] [--rate 3000] [--prefetch-kb 1024]

``loop``: all that a worker wires but Kafka and the model, in this process, metrics, drift and
log included: resident memory and live Python objects after each tenth of the records.

``worker``: the real worker on a real Kafka, with an engine that answers at once. First a steady
load; then the broker is stopped (SIGSTOP) for ten seconds under it, three times, and what waited
comes all at once; then as quick a load as ``--rate`` says, so that there is always a backlog.
``--prefetch-kb`` is the client's bound on what it reads ahead (``queued.max.messages.kbytes``).
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing

from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.harness import Arena
from tests.chaos.load import Load, plain_values
from tests.chaos.soak import read_usage
from tests.support.toy_adapter import ENCODERS, scores, small_manifest
from worker.app import make_loop
from worker.common.logs import configure_logging
from worker.demo.broker import LocalBroker
from worker.demo.program import Program
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.observe.observer import Observer
from worker.policies import kafka_config, loop_policy
from worker.records.types import Batch, CommittedOffset, NextOffset, Record, TopicPartition
from worker.serving import make_adapter_router
from worker.settings import HttpSettings, Settings
from worker.stream.port import AssignmentListener

PARTITIONS = 4
STEADY_PER_S = 200.0
STEADY_S = 30.0
PARTS = 10
STALLS = 3
STALL_S = 10.0


class EndlessStream:
    """See ``worker.stream.port.Stream``: makes records up, and keeps nothing but offsets."""

    def __init__(self, partitions: int) -> None:
        self.sources = [TopicPartition("in", number) for number in range(partitions)]
        self.done = 0
        self._next = dict.fromkeys(self.sources, 0)
        self._paused: set[TopicPartition] = set()

    def subscribe(self, listener: AssignmentListener) -> None:
        """Give it all partitions."""
        listener.on_assigned(self.sources)

    def poll(
        self,
        max_records: int,
        timeout_s: float,
        *,
        max_bytes: int | None = None,
        stop_after: Callable[[Record], bool] | None = None,
    ) -> Sequence[Record]:
        """Return as many as are wanted, of each partition that is not paused in turn."""
        records: list[Record] = []
        ours = [source for source in self.sources if source not in self._paused]
        for at in range(max_records if ours else 0):
            source = ours[at % len(ours)]
            offset = self._next[source]
            self._next[source] += 1
            value = b'{"id": "%d", "message": "where is parcel %d?"}' % (offset, offset)
            at_ms = 1_700_000_000_000 + offset
            records.append(Record(source, offset, b"%d" % offset, value, timestamp_ms=at_ms))
        return records

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Give no more of these."""
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Give these again."""
        self._paused.difference_update(partitions)

    def seek(self, source: TopicPartition, offset: int) -> None:
        """Go on there."""
        self._next[source] = offset

    def publish(self, batch: Batch) -> None:
        """Count."""
        self.done += len(batch.outputs)

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """Nothing is ever unknown."""
        return ()

    def read_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[CommittedOffset]:
        """Nothing was committed before."""
        return [CommittedOffset(source, None) for source in partitions]

    def lag(self) -> Mapping[TopicPartition, int]:
        """Of nothing anything is known."""
        return {}

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """Nor of how old it is."""
        return {}

    def close(self) -> None:
        """Nothing is open."""


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("loop", "worker"))
    parser.add_argument("--records", type=int)
    parser.add_argument("--rate", type=float, default=3000.0)
    parser.add_argument("--prefetch-kb", type=int, default=16384)
    given = parser.parse_args(arguments)
    configure_logging("console", "error")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if given.part == "loop":
        measure_loop(given.records or 2_000_000)
    else:
        measure_worker(given.records or 1_000_000, given.rate, given.prefetch_kb)
    return 0


def measure_loop(records: int) -> None:
    """Do so many records in this process."""
    settings = Settings(http=HttpSettings(port=0))
    engine = FakeEngine(lambda prompt: scores("billing" if sum(prompt) % 3 else "other"))
    opened = OpenedEngine(engine, small_manifest(), ENCODERS, "merged")
    stream = EndlessStream(PARTITIONS)
    with closing(Observer(settings, 60.0)) as observer:
        router, adapter_events = make_adapter_router(settings, opened, observer.adapters)
        observer.model_ready(opened, router, adapter_events)
        loop = make_loop(
            settings,
            stream,
            router,
            kafka_config(settings.kafka).topics,
            loop_policy(settings.loop),
            observer=observer,
            adapter_events=adapter_events,
        )
        observer.runs(loop, stream, {})
        stream.subscribe(loop)
        print("   records  resident MB  live objects")
        for part in range(PARTS + 1):
            while stream.done < records * part // PARTS:
                loop.run_once()
                engine.finish_all()
            observer.metrics()
            gc.collect()
            resident = read_usage(os.getpid(), 0.0).rss_mb
            print(f"{stream.done:10}  {resident:11.2f}  {len(gc.get_objects()):12}", flush=True)


def measure_worker(records: int, rate: float, prefetch_kb: int) -> None:
    """Have a real worker do so many records quickly, and wait out a broker that stands still."""
    os.environ |= {"CHAOS_SERVICE_S": "0", "CHAOS_CONCURRENCY": "4"}
    consumer = f"{{'queued.max.messages.kbytes' = {prefetch_kb}}}"
    with LocalBroker() as broker, ExitStack() as stack:
        arena = Arena(
            broker.bootstrap_servers,
            stack,
            settings={"kafka.consumer": consumer},
            partitions=PARTITIONS,
        )
        worker = arena.start_worker()
        worker.wait_until_ready("partitions.assigned")
        published = 0

        def run(what: str, per_s: float, seconds: float, stall_s: float = 0.0) -> None:
            nonlocal published
            load = Load(
                broker.bootstrap_servers, arena.topics["in"], PARTITIONS, plain_values(), per_s
            )
            load.begin()
            try:
                time.sleep(seconds / 2)
                if stall_s:
                    stop_for(broker, stall_s)
                time.sleep(seconds / 2)
                load.finish(0)
            finally:
                load.abandon()
            published += load.published
            wait_for(worker, published)
            resident = read_usage(worker.child.pid, 0.0).rss_mb
            print(f"{what:15}  {published:10}  {resident:11.2f}", flush=True)

        print("                    records  resident MB")
        for _ in range(2):
            run("steady", STEADY_PER_S, STEADY_S)
        for _ in range(STALLS):
            run(f"stall of {STALL_S:g} s", STEADY_PER_S, STEADY_S / 2, STALL_S)
        for _ in range(PARTS):
            run("quick", rate, records / PARTS / rate)
        run("steady", STEADY_PER_S, STEADY_S)
        arena.stop(worker)


def stop_for(broker: LocalBroker, seconds: float) -> None:
    """Have the broker do nothing for so long."""
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def wait_for(worker: Program, records: int) -> None:
    """Wait until a worker says that it has committed so many."""
    until = time.monotonic() + 600
    while (done := committed(worker)) < records:
        assert time.monotonic() < until, f"stuck at {done} of {records}"
        time.sleep(0.5)


def committed(worker: Program) -> float:
    """How many records a worker says it has committed."""
    worker.check()
    with urllib.request.urlopen(f"{worker.url}/metrics", timeout=20) as answer:
        page = answer.read().decode()
    families = text_string_to_metric_families(page)
    records = next(family for family in families if family.name == "clerk_records")
    return sum(sample.value for sample in records.samples)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
