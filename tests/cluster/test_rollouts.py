"""Several workers and many changes, with an engine of fixed service time instead of the model.

Chart, pods, kubelet, Kafka and everything else of the worker are real: three models would not load
in bounded time on two cores. See fake_engine.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chart.render import merge
from tests.cluster.kubectl import Cluster, Release, container, wait_until
from tests.cluster.load import Names, Traffic
from tests.cluster.values import demo_values, put_fake_engine, with_fake_engine
from worker.settings import LoopSettings

pytestmark = pytest.mark.long

PARTITIONS = 6
STEADY = 40  # messages a second; a worker does 50
SERVICE_S = 0.02
LOAD_S = 3.0
READY_S = 120.0
CONFIG_MAP = "fake-engine"

# Short limits, so that a hung loop is noticed soon: 13 s without a poll. All documented values.
SHORT = {
    "config": {
        "kafka": {
            "publish_timeout_s": 2,
            "create_topics": False,
            # How long a group waits for a killed member.
            "consumer": {"session.timeout.ms": 10_000},
        },
        "loop": {"drain_s": 5},
    },
    "probes": {
        "liveness": {
            "periodSeconds": 2,
            "failureThreshold": 2,
            "terminationGracePeriodSeconds": 5,
        },
        "readiness": {"periodSeconds": 2},
        "startup": {"periodSeconds": 2},
    },
    "topics": {"create": True},
}


@pytest.fixture(scope="module")
def names() -> Names:
    return Names.fresh("fake")


@pytest.fixture(scope="module")
def values(kafka: str, names: Names) -> dict[str, Any]:
    base = merge(demo_values(kafka, names, PARTITIONS), SHORT)
    return with_fake_engine(base, CONFIG_MAP, service_s=SERVICE_S, load_s=LOAD_S)


@pytest.fixture(scope="module")
def workers(cluster: Cluster, values: dict[str, Any]) -> Iterator[Release]:
    """One worker; the topics job creates its topics before the install."""
    put_fake_engine(cluster, CONFIG_MAP)
    release = Release(cluster, "many", values)
    release.install("--wait", "--timeout", "3m")
    yield release
    cluster.helm("uninstall", "many", "--ignore-not-found", "--wait", "--timeout", "3m")


@pytest.fixture(scope="module")
def traffic(workers: Release, kafka: str, names: Names) -> Iterator[Traffic]:
    with Traffic(kafka, names, PARTITIONS) as running:
        yield running


def test_it_scales_and_rolls_under_load(
    workers: Release, traffic: Traffic, note: Callable[[str], None]
) -> None:
    """From 1 worker to 3, to other settings one by one, and back to 1, while messages flow: each
    message has exactly one result."""
    cluster = workers.cluster
    traffic.per_second = STEADY
    cluster.kubectl("scale", workers.deployment, "--replicas=3")
    workers.wait_for_ready(3, READY_S)
    time.sleep(5)
    before, checksum = set(workers.ready()), _checksum(workers)
    workers.upgrade(
        "--set", "replicaCount=3", "--set", "config.loop.max_in_flight=64", "--wait", "--timeout=4m"
    )
    workers.wait_for_ready(3, READY_S)
    assert _checksum(workers) != checksum
    assert not before & set(workers.ready())
    for pod in workers.ready():
        assert _setting(workers, pod, "loop.max_in_flight") == 64
    time.sleep(3)
    cluster.kubectl("scale", workers.deployment, "--replicas=1")
    workers.wait_for_ready(1, READY_S)
    time.sleep(3)
    count = traffic.finish()
    assert count > 15 * STEADY
    note(f"1 to 3 workers, to other settings, back to 1: {count} messages, each has one result")


def test_a_hung_loop_is_restarted(
    workers: Release, traffic: Traffic, note: Callable[[str], None]
) -> None:
    """If a call never returns, /livez says that the loop does not poll, although the rest of the
    process answers. The kubelet restarts the container in its pod without waiting for a
    drain, and each message has exactly one result."""
    cluster, pod = workers.cluster, workers.pod()
    grace_s = cluster.get("pod", pod)["spec"]["terminationGracePeriodSeconds"]
    traffic.per_second = STEADY / 4
    time.sleep(2)
    cluster.kubectl("exec", pod, "-c", "worker", "--", "python3", "-c", "open('/tmp/hang', 'w')")
    began = time.monotonic()

    def unwell() -> bool:
        status, body = workers.ask(pod, "/livez")
        return status == 503 and "the loop has not polled Kafka" in body

    wait_until("/livez reports that the loop hangs", unwell, 60)
    noticed_s = time.monotonic() - began
    assert workers.ask(pod, "/info")[0] == 200

    def restarted() -> bool:
        return bool(container(cluster.get("pod", pod))["restartCount"] == 1)

    wait_until("the container is restarted", restarted, grace_s)
    restarted_s = time.monotonic() - began
    assert container(cluster.get("pod", pod))["lastState"]["terminated"]["exitCode"] == 137
    found = cluster.get("events", "--field-selector", f"involvedObject.name={pod}")
    reasons = [str(event.get("message")) for event in found]
    assert any("Liveness probe failed" in reason and "503" in reason for reason in reasons), reasons
    workers.wait_for_ready(1, READY_S)
    note(
        f"a hung loop: /livez reports it after {noticed_s:.0f} s (limit: 13), the container is"
        f" restarted after {restarted_s:.0f} s, ready after {time.monotonic() - began:.0f} s"
    )
    traffic.finish(180)


def test_a_pod_that_is_killed_is_replaced(workers: Release, traffic: Traffic) -> None:
    """Killed without a grace period under load: another pod takes over, and each message has
    exactly one result."""
    pod = workers.pod()
    traffic.per_second = STEADY
    time.sleep(2)
    workers.cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    workers.wait_for_ready(1, READY_S)
    assert workers.pod() != pod
    traffic.finish(180)


def test_rollback_restores_the_settings(workers: Release, traffic: Traffic) -> None:
    assert _setting(workers, workers.pod(), "loop.max_in_flight") == 64
    traffic.per_second = STEADY
    workers.cluster.helm("rollback", workers.name, "1", "--wait", "--timeout", "3m")
    workers.wait_for_ready(1, READY_S)
    assert _setting(workers, workers.pod(), "loop.max_in_flight") == LoopSettings().max_in_flight
    traffic.finish(180)


def test_uninstall_leaves_nothing(workers: Release) -> None:
    """Hooks included."""
    workers.cluster.helm("uninstall", workers.name, "--wait", "--timeout", "3m")
    wait_until("no pod is left", lambda: not workers.pods(), 60)
    left = {name for name in workers.cluster.everything() if "many" in name}
    assert left == set()


def _checksum(release: Release) -> str:
    found = release.cluster.get(release.deployment)["spec"]["template"]["metadata"]["annotations"]
    return str(found["checksum/config"])


def _setting(release: Release, pod: str, name: str) -> Any:
    status, body = release.ask(pod, "/info")
    assert status == 200, body
    return json.loads(body)["settings"][name]
