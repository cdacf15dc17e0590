"""KEDA scales the workers by the lag of a real topic, up to its partitions and back.

The engine has a fixed service time (fake_engine.py): four models on two cores would measure the
cores. Times are shorter than the chart's, which suit models that take minutes to load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chart.render import merge
from tests.cluster.kubectl import Cluster, Failed, Release, wait_until
from tests.cluster.load import Lag, Names, Traffic
from tests.cluster.values import demo_values, put_fake_engine, with_fake_engine
from worker.demo.client import create_demo_topics

pytestmark = pytest.mark.long

PARTITIONS = 4
SERVICE_S = 0.04  # 25 messages a second from each worker
TRICKLE, PEAK = 10, 90  # messages a second
TRICKLE_S, PEAK_S, AFTER_S = 15, 45, 20
DOWN_S = 150.0

BY_LAG = {
    "autoscaling": {
        "kind": "keda",
        "minReplicas": 1,
        "maxReplicas": PARTITIONS,
        "behavior": {
            "scaleUp": {
                "stabilizationWindowSeconds": 0,
                "policies": [{"type": "Pods", "value": 2, "periodSeconds": 10}],
            },
            "scaleDown": {
                "stabilizationWindowSeconds": 20,
                "policies": [{"type": "Pods", "value": 1, "periodSeconds": 10}],
            },
        },
        "keda": {"lagThreshold": 150, "activationLagThreshold": 5, "pollingInterval": 3},
    },
    "probes": {"readiness": {"periodSeconds": 2}, "startup": {"periodSeconds": 2}},
}


@pytest.fixture
def names(kafka: str) -> Names:
    found = Names.fresh("keda")
    create_demo_topics(kafka, dict.fromkeys((found.inputs, *found.sinks), PARTITIONS))
    return found


@pytest.fixture
def workers(cluster: Cluster, kafka: str, names: Names) -> Iterator[Release]:
    try:
        cluster.kubectl("get", "--raw", "/apis/external.metrics.k8s.io/v1beta1")
    except Failed:
        pytest.skip("the cluster has no KEDA")
    put_fake_engine(cluster, "fake-engine-keda")
    base = merge(demo_values(kafka, names, PARTITIONS), BY_LAG)
    base["config"]["kafka"]["topic_partitions"] = None
    values = with_fake_engine(base, "fake-engine-keda", service_s=SERVICE_S)
    release = Release(cluster, "keda", values)
    release.install("--wait", "--timeout", "3m")
    yield release
    cluster.helm("uninstall", "keda", "--wait", "--timeout", "3m")


def test_keda_follows_the_lag(
    workers: Release,
    kafka: str,
    names: Names,
    note: Callable[[str], None],
) -> None:
    """A peak scales the workers from 1 to the number of partitions and its end back to 1, once
    up and once down; each message has exactly one result."""
    lag = Lag(kafka, names, PARTITIONS)
    rows: list[dict[str, float]] = []
    with Traffic(kafka, names, PARTITIONS) as traffic:
        began = time.monotonic()

        def watch(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                rows.append(_sample(workers, traffic, lag, began))
                time.sleep(max(0.0, 1 - (time.monotonic() - began) % 1))

        wait_until("KEDA has a scaler for it", lambda: _active(workers), 60)
        traffic.per_second = TRICKLE
        watch(TRICKLE_S)
        traffic.per_second = PEAK
        watch(PEAK_S)
        traffic.per_second = TRICKLE
        until = time.monotonic() + DOWN_S
        while rows[-1]["wanted"] > 1 and time.monotonic() < until:
            watch(1)
        watch(AFTER_S)
        count = traffic.finish()
    lag.close()
    wanted = [int(row["wanted"]) for row in rows]
    peak = wanted.index(max(wanted))
    assert wanted[0] == wanted[-1] == 1
    assert max(wanted) == PARTITIONS
    assert wanted[:peak] == sorted(wanted[:peak]), f"up and down again on the way up: {wanted}"
    assert wanted[peak:] == sorted(wanted[peak:], reverse=True), f"and on the way down: {wanted}"
    assert max(row["ready"] for row in rows) == PARTITIONS
    assert count > PEAK * PEAK_S
    all_ready_s = next(row["seconds"] for row in rows if row["ready"] == PARTITIONS) - TRICKLE_S
    one_left_s = next(row["seconds"] for row in reversed(rows) if row["wanted"] > 1) - TRICKLE_S
    most = max(row["lag"] for row in rows)
    note(
        f"KEDA: all {PARTITIONS} workers were ready {all_ready_s:.0f} s after the peak began, "
        f"{PEAK_S} s long, and one was left after {one_left_s:.0f} s; lag {most:.0f} at most; "
        f"{count} messages, each has one result"
    )


def _active(release: Release) -> bool:
    found = release.cluster.get("scaledobject", f"{release.name}-filing-clerk")
    conditions = {entry["type"]: entry["status"] for entry in found["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _sample(release: Release, traffic: Traffic, lag: Lag, began: float) -> dict[str, float]:
    found: dict[str, Any] = release.cluster.get(release.deployment)
    now = time.time()
    window_s = 5.0
    return {
        "seconds": round(time.monotonic() - began, 1),
        "published_per_s": sum(sent_at > now - window_s for sent_at in traffic.sent.copy().values())
        / window_s,
        "results_per_s": traffic.done_since(now - window_s) / window_s,
        "lag": lag.now(),
        "wanted": found["spec"]["replicas"],
        "ready": found["status"].get("readyReplicas", 0),
    }
