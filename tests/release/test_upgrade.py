"""One version after another on a cluster, from a registry alone: started by rehearse.sh.

CLERK_RELEASES names the registry's folder and two versions, older first:
127.0.0.1:5000/clerk 0.1.0 0.1.1. Images and charts come from there and from nowhere else; the
encoder is the one that ships.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chart.render import merge
from tests.cluster.conftest import cluster, host, kafka, missing, note  # noqa: F401 - fixtures
from tests.cluster.kubectl import Cluster, Release, wait_until
from tests.cluster.load import Names, Traffic
from tests.cluster.values import LABEL, demo_values, filling_pod, volume
from trainer.store.publish import plan_publication, publish_adapter
from worker.demo.models import ensure_model

pytestmark = pytest.mark.timeout(1500)

PARTITIONS = 6
STEADY = 60  # messages a second
READY_S = 240.0
REGISTRY, OLD, NEW = (os.environ.get("CLERK_RELEASES", "") + " - - -").split()[:3]
IMAGE = f"{REGISTRY}/filing-clerk-worker-encoder"


@pytest.fixture
def claim(cluster: Cluster, tmp_path: Path) -> Iterator[str]:  # noqa: F811
    """A claim with a store: the encoder that ships, published."""
    if REGISTRY == "-":
        missing("CLERK_RELEASES names no registry: make release-rehearsal")
    adapter = ensure_model("encoder").adapter
    publish_adapter(
        plan_publication(adapter, tmp_path / "store", allow_unjudged=True),
        force=True,
        reason="for the rehearsal",
    )
    cluster.apply([volume(tmp_path / "volume", cluster.namespace, "adapters", "")])
    pod = filling_pod(f"{IMAGE}:{OLD}", "Always", {"/adapters": "adapters"})
    claimed = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "adapters"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    cluster.apply([claimed, pod])
    cluster.kubectl("wait", "--for=condition=Ready", "pod/fill", "--timeout=180s")
    cluster.kubectl("cp", f"{tmp_path / 'store'}/.", "fill:/adapters")
    cluster.kubectl("delete", "pod", "fill", "--grace-period=0", "--force")
    yield "adapters"
    cluster.kubectl("delete", "pvc", "adapters")
    cluster.kubectl("delete", "pv", "-l", LABEL, "--wait=false")


def test_the_next_version_and_back_under_load(
    cluster: Cluster,  # noqa: F811
    claim: str,
    kafka: str,  # noqa: F811
    note: Callable[[str], None],  # noqa: F811
) -> None:
    """Installed, upgraded and rolled back with two workers while messages flow: the pods run what
    the version's chart says, and each message has exactly one result."""
    names = Names.fresh("release")
    # No tag: the chart's own version chooses it.
    image = {"repository": IMAGE, "tag": "", "pullPolicy": "Always"}
    values = merge(
        demo_values(kafka, names, PARTITIONS, "encoder"), {"replicaCount": 2, "image": image}
    )
    release = Release(cluster, "clerk", values)
    release.chart = _chart(OLD)
    release.install("--wait", "--timeout", "4m")
    release.wait_for_ready(2, READY_S)
    try:
        with Traffic(kafka, names, PARTITIONS) as traffic:
            traffic.per_second = STEADY
            wait_until("labels", lambda: len(traffic.results) > 5 * STEADY, READY_S)
            assert _versions(release) == {OLD}
            release.chart = _chart(NEW)
            release.upgrade("--wait", "--timeout", "4m")
            release.wait_for_ready(2, READY_S)
            assert _versions(release) == {NEW}
            _more(traffic)
            cluster.helm("rollback", "clerk", "--wait", "--timeout", "4m")
            release.wait_for_ready(2, READY_S)
            assert _versions(release) == {OLD}
            _more(traffic)
            count = traffic.finish()
    finally:
        cluster.helm("uninstall", "clerk", "--ignore-not-found", "--wait", "--timeout", "3m")
    assert count > 15 * STEADY
    note(f"{OLD}, then {NEW}, then {OLD} at {STEADY} messages/s: {count} messages, one result each")


def _chart(version: str) -> tuple[str, ...]:
    return (f"oci://{REGISTRY}/charts/filing-clerk", "--version", version, "--plain-http")


def _more(traffic: Traffic) -> None:
    seen = len(traffic.results)
    wait_until("more labels", lambda: len(traffic.results) > seen + 5 * STEADY, READY_S)


def _versions(release: Release) -> set[str]:
    """The versions that the ready pods' images and their own programs name."""
    found = set()
    for pod in release.ready():
        spec = release.cluster.get("pod", pod)["spec"]
        image = next(one["image"] for one in spec["containers"] if one["name"] == "worker")
        said = release.cluster.kubectl(
            "exec", pod, "-c", "worker", "--", "clerk-worker", "--version"
        )
        found |= {image.removeprefix(f"{IMAGE}:"), said.split()[-1]}
    return found
