"""The CPU example with its real model: it starts, labels, drains, grows, shrinks and recovers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest

from tests.cluster.kubectl import Cluster, Release, condition, container, wait_until, watching
from tests.cluster.load import Names, Traffic
from tests.cluster.values import demo_values
from worker.demo.models import adapter_dir, demo_samples

pytestmark = pytest.mark.long  # in CI the encoder of test_headers.py is on a cluster

PARTITIONS = 4
READY_S = 420.0
STEADY = 6  # messages a second; one worker does 60 on two idle cores, much less while others load


@dataclass
class Start:
    """A worker's pod and answers while it started."""

    pod: str
    install_output: str
    seen: list[tuple[bool, int, int, str]]
    """In order: the pod's condition Ready; statuses of /livez and /readyz; the latter's body."""


@pytest.fixture(scope="module")
def names() -> Names:
    return Names.fresh("real")


@pytest.fixture(scope="module")
def clerk(cluster: Cluster, kafka: str, names: Names) -> Iterator[Release]:
    release = Release(cluster, "clerk", demo_values(kafka, names, PARTITIONS))
    yield release
    cluster.helm("uninstall", "clerk", "--ignore-not-found", "--wait", "--timeout", "3m")


@pytest.fixture(scope="module")
def start(clerk: Release, note: Callable[[str], None]) -> Start:
    """Installed as the example says, and watched until the pod is ready."""
    began = time.monotonic()
    output = clerk.install()
    wait_until("a pod", clerk.pods, 30)
    start = Start(clerk.pod(), output, [])
    until = time.monotonic() + READY_S
    while True:
        (pod,) = clerk.pods()
        ready = condition(pod, "Ready")
        alive, _ = clerk.ask(start.pod, "/livez")
        readyz, body = clerk.ask(start.pod, "/readyz")
        start.seen.append((ready, alive, readyz, body))
        if ready:
            note(f"the real model: ready {time.monotonic() - began:.0f} s after helm install")
            return start
        assert time.monotonic() < until, body
        time.sleep(0.5)


@pytest.fixture(scope="module")
def traffic(clerk: Release, start: Start, kafka: str, names: Names) -> Iterator[Traffic]:
    with Traffic(kafka, names, PARTITIONS) as running:
        yield running


def test_its_pods_are_admitted_as_restricted(start: Start) -> None:
    assert "arning" not in start.install_output
    assert "violate" not in start.install_output


def test_a_pod_is_ready_only_when_its_model_is_warm(clerk: Release, start: Start) -> None:
    """While the model loads the worker is alive, says so on /readyz, and the pod is not ready.
    It becomes ready without a restart when the engine is warm and the group joined."""
    loading = [sight[:3] for sight in start.seen if "the model is loading" in sight[3]]
    assert len(loading) >= 3
    assert set(loading) == {(False, 200, 503)}
    assert start.seen[-1][:3] == (True, 200, 200)
    at = {event["event"]: moment(event["timestamp"]) for event in clerk.events(start.pod)}
    pod = clerk.cluster.get("pod", start.pod)
    (became,) = [entry for entry in pod["status"]["conditions"] if entry["type"] == "Ready"]
    # The condition's time is in whole seconds.
    assert moment(became["lastTransitionTime"]) >= at["engine.ready"] - 1
    assert moment(became["lastTransitionTime"]) >= at["partitions.assigned"] - 1
    assert container(pod)["restartCount"] == 0
    reasons = _kubelet_events(clerk, start.pod)
    assert any("Startup probe failed" in reason and "503" in reason for reason in reasons), reasons
    assert not any("Liveness" in reason for reason in reasons), reasons


def test_it_labels_what_is_published(traffic: Traffic, clerk: Release) -> None:
    """Each message gets one label of the adapter, mostly the right one, from the real model."""
    traffic.publish(60)
    traffic.finish()
    manifest = json.loads((adapter_dir() / "manifest.json").read_text(encoding="utf-8"))
    labels = {entry["name"] for entry in manifest["taxonomy"]["labels"]}
    assert {result.label for result in traffic.results} <= labels
    samples = demo_samples(200)[:60]
    by_source = {result.source: result.label for result in traffic.results}
    given = [by_source[f"{n % PARTITIONS}-{n // PARTITIONS}"] for n in range(60)]
    known = [
        (sample.label, label) for sample, label in zip(samples, given, strict=True) if sample.label
    ]
    assert sum(a == b for a, b in known) / len(known) > 0.6  # guessing would give a tenth


def test_helm_test_asks_the_workers(clerk: Release, start: Start) -> None:
    """`helm test` passes, and changing its targets restarts no worker."""
    cluster = clerk.cluster
    if not cluster.has_dns():
        address = cluster.get("pod", start.pod)["status"]["podIP"]
        clerk.upgrade("--set", f"tests.targets={{{address}:8080}}")
    output = cluster.helm("test", clerk.name, "--logs", "--timeout", "2m")
    assert "1 of 1 workers are ready" in output
    assert clerk.pod() == start.pod
    assert not cluster.exists("pod", f"{clerk.name}-filing-clerk-test")


def test_a_pod_that_is_deleted_drains(
    clerk: Release, traffic: Traffic, note: Callable[[str], None]
) -> None:
    """Under load it exits with code 0 well within its grace period. Its successor continues, and
    nothing is lost or duplicated."""
    traffic.per_second = STEADY
    time.sleep(5)
    pod = clerk.pod()
    grace_s = clerk.cluster.get("pod", pod)["spec"]["terminationGracePeriodSeconds"]
    with watching(clerk.cluster, pod) as ends:
        began = time.monotonic()
        clerk.cluster.kubectl("delete", "pod", pod, f"--timeout={grace_s + 30}s")
        took_s = time.monotonic() - began
    assert [end["exitCode"] for end in ends] == [0]
    assert took_s < grace_s - 30, "it needed the reserve of its grace period"
    clerk.wait_for_ready(1, READY_S)
    assert clerk.pod() != pod
    note(
        f"the real model: a deleted pod drained in {took_s:.0f} s of its {grace_s} s; the next one"
        f" was ready {time.monotonic() - began:.0f} s after the deletion"
    )
    traffic.finish()


def test_it_grows_and_shrinks_under_load(clerk: Release, traffic: Traffic) -> None:
    """From 1 worker to 2 and back while messages flow: both take part, and each message has
    exactly one result. (Two cores cannot load more models in bounded time; test_rollouts has
    more workers.)"""
    traffic.per_second = STEADY
    clerk.cluster.kubectl("scale", clerk.deployment, "--replicas=2")
    clerk.wait_for_ready(2, READY_S)
    wait_until("two workers share the partitions", lambda: _shares(clerk) == [2, 2], 90)
    began = time.time()
    wait_until("results", lambda: traffic.done_since(began) > 5 * STEADY, 90)
    clerk.cluster.kubectl("scale", clerk.deployment, "--replicas=1")
    clerk.wait_for_ready(1, 120)
    wait_until("one worker has all partitions", lambda: _shares(clerk) == [PARTITIONS], 90)
    traffic.finish()


def test_a_dead_engine_ends_the_container_and_no_more(
    clerk: Release, traffic: Traffic, note: Callable[[str], None]
) -> None:
    """After kill -9 of the engine under load: exit code 5, the container restarts in the same
    pod, and nothing is lost or duplicated."""
    traffic.per_second = STEADY
    time.sleep(3)
    pod = clerk.pod()
    before = container(clerk.cluster.get("pod", pod))["restartCount"]
    began = time.monotonic()
    clerk.cluster.kubectl("exec", pod, "-c", "worker", "--", "python3", "-c", _KILL_ENGINE)

    def restarted() -> bool:
        return bool(container(clerk.cluster.get("pod", pod))["restartCount"] == before + 1)

    wait_until("the container is restarted", restarted, 120)
    state = container(clerk.cluster.get("pod", pod))["lastState"]["terminated"]
    assert state["exitCode"] == 5
    clerk.wait_for_ready(1, READY_S)
    assert clerk.pod() == pod
    note(
        f"the real model: ready again {time.monotonic() - began:.0f} s after its engine was killed"
    )
    traffic.finish(180)


_KILL_ENGINE = """
import os, signal
for one in filter(str.isdigit, os.listdir("/proc")):
    name = open(f"/proc/{one}/cmdline", "rb").read()
    if one != "1" and b"EngineCore" in name:
        os.kill(int(one), signal.SIGKILL)
        break
else:
    raise SystemExit("no engine process")
"""


def moment(text: str) -> float:
    """Unix seconds of a time in logs and Kubernetes objects."""
    return datetime.fromisoformat(text).timestamp()


def _kubelet_events(release: Release, pod: str) -> list[str]:
    found = release.cluster.get("events", "--field-selector", f"involvedObject.name={pod}")
    return [str(event.get("message")) for event in found]


def _shares(release: Release) -> list[int]:
    shares = []
    for pod in release.ready():
        _, page = release.ask(pod, "/metrics")
        lines = [
            line for line in page.splitlines() if line.startswith("clerk_assigned_partitions ")
        ]
        shares += [int(float(line.split()[1])) for line in lines]
    return sorted(shares)
