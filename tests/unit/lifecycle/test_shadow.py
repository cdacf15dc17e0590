"""A shadow labels a share of the records for comparison and affects no result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.follower import WIDE, AdapterStore, FakeLoader, Follower
from tests.support.rig import Rig, too_large
from tests.support.toy_adapter import answer_with, toy_manifest
from worker.core.arms import ShadowTraffic
from worker.core.publisher import TopicRouter
from worker.errors import OutcomeUnknown, PublishAborted
from worker.lifecycle.events import Serving
from worker.observe.listener import AdapterMetrics
from worker.observe.registry import Registry

MAIN = replace(toy_manifest(), name="main")
SHADOW = replace(toy_manifest(), name="shadow")


def shadowed(tmp_path: Path, share: float = 1.0, at_a_time: int = 64, label: str = "other") -> Any:
    loader = FakeLoader()
    loader.respond[MAIN.digest] = lambda _: answer_with(MAIN, "billing")
    loader.respond[SHADOW.digest] = lambda _: answer_with(SHADOW, label)
    store = AdapterStore(tmp_path)
    store.add(SHADOW)
    follower = Follower(
        store,
        MAIN,
        rig=Rig(policy=WIDE),
        loader=loader,
        shadow=SHADOW.digest[:12],
        shadow_share=share,
    )
    loop = follower.rig.loop
    loop._publisher._topic_router = TopicRouter("out", "review", "shadow")
    loop._pipeline._shadow_traffic = ShadowTraffic(follower.router, at_a_time, follower.rig.clock)
    registry = Registry()
    metrics = AdapterMetrics(registry)
    metrics(Serving(follower.router.latest))
    follower.rig.on_published(metrics.published)
    follower.rig.stream.assign(0)
    follower.rig.iterate()
    return follower, lambda: registry.page().decode()


def work(follower: Any, count: int = 200) -> tuple[list[Any], list[Any]]:
    """Label messages; return the records of the real topics and of the shadow's."""
    for number in range(count):
        follower.rig.stream.add(b"hello %d" % number, key=b"customer-%d" % number)
    while follower.rig.committed() < count:
        follower.rig.iterate()
    outputs = follower.rig.stream.outputs
    real = [outgoing for outgoing in outputs if outgoing.topic in {"out", "review"}]
    shadow = [outgoing for outgoing in outputs if outgoing.topic == "shadow"]
    assert len(real) + len(shadow) == len(outputs)
    return [json.loads(outgoing.value) for outgoing in real], shadow


def shadow_engine(follower: Any) -> Any:
    return follower.shadow.engine


def test_a_share_of_records_has_a_shadows_label_too(tmp_path: Path) -> None:
    follower, page = shadowed(tmp_path, share=0.25)
    real, shadow = work(follower, 400)
    assert {value["adapter"]["digest"] for value in real} == {MAIN.digest}
    assert len(real) == 400
    assert 60 < len(shadow) < 140
    value, headers = json.loads(shadow[0].value), dict(shadow[0].headers)
    assert (value["label"], value["adapter"]["digest"]) == ("other", SHADOW.digest)
    assert headers["clerk.main.label"] == b"billing"
    assert headers["clerk.main.adapter.digest"] == MAIN.digest.encode()
    assert f'clerk_shadow_records_total{{agrees="no",label="billing"}} {len(shadow)}.0' in page()
    assert "\n".join(page().splitlines()).count("clerk_shadow_records_total{") == 6


def test_a_late_shadow_delays_no_result(tmp_path: Path) -> None:
    follower, page = shadowed(tmp_path, at_a_time=16)
    engine = shadow_engine(follower)
    engine.held = True
    real, shadow = work(follower, 100)
    assert (len(real), len(shadow)) == (100, 0)
    dropped = {
        line.split('"')[1]: float(line.split()[-1])
        for line in page().splitlines()
        if line.startswith("clerk_shadow_dropped_records_total{")
    }
    assert dropped["late"] + dropped["busy"] == 100
    assert dropped["late"] > 0
    assert dropped["busy"] > 0


def test_a_shadow_whose_engine_dies_affects_no_result(tmp_path: Path) -> None:
    follower, _ = shadowed(tmp_path)
    shadow_engine(follower).die()
    real, shadow = work(follower, 50)
    assert (len(real), len(shadow)) == (50, 0)
    assert follower.shadow is None
    follower.rig.iterate()
    follower.poll_once()
    assert len(follower.loader.open) == 1


@pytest.mark.parametrize(
    "error", [PublishAborted("x"), too_large([0]), too_large([63]), OutcomeUnknown("x")]
)
def test_a_batch_that_failed_is_published_again_without_shadows(
    tmp_path: Path, error: Exception
) -> None:
    follower, page = shadowed(tmp_path)
    follower.rig.stream.failures.append(error)
    real, shadow = work(follower, 40)
    assert len(real) == 40
    assert {value["label"] for value in real} == {"billing"}
    assert shadow == []
    assert 'clerk_shadow_dropped_records_total{reason="not_published"} 40.0' in page()
