"""Any interleaving of swaps, canaries, rebalances, failures: each record once, by one adapter."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.follower import AdapterStore, Follower
from tests.support.rig import Rig, make_bounds, make_loop_policy
from tests.support.toy_adapter import make_manifest
from worker.contract.errors import MessageRejected
from worker.contract.store import remove_canary
from worker.core.arms import CANARY
from worker.errors import EngineDied, OutcomeUnknown, PublishAborted

pytestmark = pytest.mark.slow

PARTITIONS = 2
MANIFESTS = [make_manifest(name) for name in ("ant", "bee", "cow")]
LABELS = {manifest.digest: set(manifest.taxonomy.names) for manifest in MANIFESTS}
partitions = st.integers(0, PARTITIONS - 1)
adapters = st.sampled_from(MANIFESTS)
POLICY = make_loop_policy(
    bounds=make_bounds(max_records=8, max_bytes=400),
    publish_max_records=5,
    publish_attempts=10_000,
    revoke_drain_s=0.5,
)


class Swapping(RuleBasedStateMachine):
    """One worker that follows a store, and another that owns the partitions it does not hold."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        rig = Rig(partitions=PARTITIONS, policy=POLICY, deadline_s=1e6, tick=0.01)
        self.follower = Follower(AdapterStore(self.folder), MANIFESTS[0], rig=rig)
        self.rig = rig
        self.added = 0
        self.by_the_other: list[str] = []
        self.hold()

    def hold(self) -> None:
        """Hold answers back until a rule releases them."""
        for engine in self.engines:
            engine.held = True

    @property
    def engines(self) -> list[Any]:
        return list(self.follower.loader.open)

    @property
    def waiting(self) -> list[Any]:
        return [engine for engine in self.engines if engine.fake.pending]

    def held(self, partition: int) -> bool:
        return self.rig.stream.sources[partition] in self.rig.stream.assigned

    @rule(partition=partitions, count=st.integers(1, 4), keyed=st.booleans())
    def messages_come(self, partition: int, count: int, keyed: bool) -> None:
        for _ in range(count):
            key = b"k%d" % (self.added % 7) if keyed else None
            self.rig.stream.add(b"m%d" % self.added, partition, key)
            self.added += 1

    @rule(times=st.integers(1, 3))
    def iterations_pass(self, times: int) -> None:
        self.rig.iterate(times)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def an_engine_answers(self, data: st.DataObject) -> None:
        engine = data.draw(st.sampled_from(self.waiting))
        engine.fake.finish(data.draw(st.integers(0, len(engine.fake.pending) - 1)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def an_engine_refuses(self, data: st.DataObject) -> None:
        engine = data.draw(st.sampled_from(self.waiting))
        engine.fake.fail(MessageRejected("engine_rejected", ""))

    @rule(manifest=adapters, event=st.sampled_from(["publish", "rollback"]))
    def an_adapter_becomes_current(self, manifest: Any, event: str) -> None:
        self.follower.store.publish(manifest, event)

    @rule(manifest=adapters, share=st.sampled_from([0.3, 0.6, 1.0]))
    def an_adapter_is_on_trial(self, manifest: Any, share: float) -> None:
        self.follower.store.canary(manifest, share)

    @rule()
    def the_trial_ends(self) -> None:
        remove_canary(self.follower.store.folder)

    @rule(fails=st.booleans())
    def the_watcher_polls(self, fails: bool) -> None:
        self.follower.loader.failures = [EngineDied("no memory")] if fails else []
        self.follower.poll_once()
        self.hold()

    @rule()
    def the_canary_is_stopped(self) -> None:
        arm = self.follower.router.split.get(CANARY)
        if arm is not None:
            self.follower.events.stop(arm, "review", "")
            self.follower.router.stop(arm.adapter)

    @rule(data=st.data())
    def an_engine_other_than_the_main_one_dies(self, data: st.DataObject) -> None:
        router = self.follower.router
        safe = {router.main, router.latest.main}
        others = [
            adapter for adapter in (*router.split.adapters, *router.retired) if adapter not in safe
        ]
        if others:
            data.draw(st.sampled_from(others)).engine.die()  # type: ignore[attr-defined]

    @rule(partition=partitions)
    def a_partition_is_assigned(self, partition: int) -> None:
        if not self.held(partition):
            self.rig.stream.assign(partition)

    @rule(partition=partitions, lost=st.booleans())
    def a_partition_goes(self, partition: int, lost: bool) -> None:
        if self.held(partition):
            go = self.rig.stream.lose if lost else self.rig.stream.revoke
            self.rig.stream.script.append(lambda: go(partition))
            self.rig.loop.run_once()

    @rule(partition=partitions, count=st.integers(1, 3))
    def another_worker_does_some(self, partition: int, count: int) -> None:
        if self.held(partition):
            return
        source = self.rig.stream.sources[partition]
        start = self.rig.committed(partition)
        for record in self.rig.stream.log[source][start : start + count]:
            self.by_the_other.append(record.id)
            self.rig.stream.committed[source] = record.offset + 1

    @precondition(lambda self: not self.rig.stream.failures)
    @rule(kind=st.sampled_from(["aborted", "unknown", "unknown, published"]))
    def the_next_publish_fails(self, kind: str) -> None:
        self.rig.stream.commits_before_failure = kind == "unknown, published"
        failed = PublishAborted("x") if kind == "aborted" else OutcomeUnknown("x")
        self.rig.stream.failures.append(failed)

    @precondition(lambda self: hasattr(self, "rig"))
    @invariant()
    def each_record_is_published_once_by_one_adapter(self) -> None:
        ids = list(self.by_the_other)
        for outgoing in self.rig.stream.outputs:
            if outgoing.topic == "dead":
                headers = dict(outgoing.headers)
                where = ("topic", "partition", "offset")
                ids.append("-".join(headers[f"clerk.source.{w}"].decode() for w in where))  # type: ignore[union-attr]
                assert headers["clerk.adapter.digest"].decode() in LABELS  # type: ignore[union-attr]
                continue
            assert outgoing.value is not None
            value = json.loads(outgoing.value)
            ids.append(value["id"])
            assert value["label"] in LABELS[value["adapter"]["digest"]], "a record mixes two"
        assert len(ids) == len(set(ids)), "published twice"
        assert set(ids) == {
            f"in-{partition}-{offset}"
            for partition in range(PARTITIONS)
            for offset in range(self.rig.committed(partition))
        }
        assert self.rig.loop.state.in_flight_records <= POLICY.bounds.max_records

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        try:
            self.all_is_done_and_nothing_is_left()
        finally:
            shutil.rmtree(self.folder)

    def all_is_done_and_nothing_is_left(self) -> None:
        for partition in range(PARTITIONS):
            if not self.held(partition):
                self.rig.stream.assign(partition)
        for _ in range(1000):
            if not self.rig.loop.state.in_flight_records and self.committed == self.added:
                break
            for engine in self.engines:
                engine.release()
            self.rig.iterate()
        self.each_record_is_published_once_by_one_adapter()
        assert self.committed == self.added, "a record is stuck"
        for _ in range(4):
            for engine in self.engines:
                engine.release()
            self.rig.iterate()
        self.follower.loader.failures = []
        self.follower.poll_once()
        self.rig.iterate(2)
        self.follower.poll_once()
        router = self.follower.router
        assert router.retired == ()
        assert all(adapter.unfinished == 0 for adapter in router.split.adapters)
        serving = {id(adapter.engine) for adapter in router.split.adapters}
        assert {id(engine) for engine in self.engines} == serving, "an adapter was not unloaded"

    @property
    def committed(self) -> int:
        return sum(self.rig.committed(partition) for partition in range(PARTITIONS))


class TestSwapping(Swapping.TestCase):  # type: ignore[misc,valid-type]
    """In any order of events; at the end no adapter is left loaded and no record unfinished."""

    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
