"""A mounted adapter store: running pods switch to a new adapter or refuse it, without a restart."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.chart.render import merge
from tests.cluster.kubectl import Cluster, Release, container, wait_until
from tests.cluster.load import Names, Traffic
from tests.cluster.values import IMAGE, PULL_POLICY, demo_values

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

PARTITIONS = 2
STEADY = 4  # messages a second, while a second engine loads on the same cores
READY_S = 600.0
TAKEN_S = 400.0

# Runs in a pod of the image, so with the worker's own code. Stores a copy of the image's adapter
# under another name, with other codes for its labels or a damaged file, and makes it current.
PUBLISH = """
import shutil, sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from worker.contract import read_manifest, write_manifest
from worker.contract.store import Pointer, write_pointer
from worker.contract.verify import probes_path, read_probes, write_probes
store, name, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
made = replace(read_manifest(Path("/adapters/demo")), name=name)
if how == "worse":
    codes = list(made.codes.values())
    codes = dict(zip(made.taxonomy.names, codes[3:] + codes[:3], strict=True))
    made = replace(made, codes=codes, reference=None)
folder = store / made.digest
shutil.copytree("/adapters/demo", folder)
write_manifest(folder, made)
if how == "sound":  # the next adapter is compared on the serving one's probes
    probes = read_probes(Path("/adapters/demo.probes.json"), read_manifest(Path("/adapters/demo")))
    write_probes(probes_path(folder), replace(probes, adapter=made.digest))
    probes_path(folder).chmod(0o644)  # workers have another user
if how == "damaged":
    with next(folder.glob("*.safetensors")).open("r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([file.read(1)[0] ^ 1]))
now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
write_pointer(store, Pointer(made.digest, name, now, None, "tests", None, "publish"))
print(made.digest)
"""


class Store:
    """A folder of the node: the workers' claim, and a pod that may write to it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.name = f"clerk-store-{uuid.uuid4().hex[:6]}"
        self.folder = f"/tmp/{self.name}"
        # The workers' namespace does not admit its pods: they write to the node's disk as root.
        self.beside = Cluster(self.name)

    def make(self) -> None:
        """Create volume, claim and writer."""
        source = {"hostPath": {"path": self.folder, "type": "DirectoryOrCreate"}}
        size = {"storage": "1Gi"}
        modes = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        volume: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": self.name},
            "spec": {"capacity": size, **modes, **source},
        }
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": self.name},
            "spec": {**modes, "volumeName": self.name, "resources": {"requests": size}},
        }
        self.cluster.apply([volume, claim])
        self.beside.kubectl("create", "namespace", self.name)
        writer = {
            "name": "writer",
            "image": IMAGE,
            "imagePullPolicy": PULL_POLICY,
            "command": ["/opt/filing-clerk/bin/python", "-c", "import time; time.sleep(3600)"],
            "securityContext": {"runAsUser": 0},
            "volumeMounts": [{"name": "store", "mountPath": "/store"}],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "writer"},
            "spec": {"containers": [writer], "volumes": [{"name": "store", **source}]},
        }
        self.beside.apply([pod])

        def runs() -> bool:
            found = self.beside.get("pod", "writer")
            return bool(found["status"]["phase"] == "Running")

        wait_until("the store's writer runs", runs, 120)

    def publish(self, name: str, how: str = "sound") -> str:
        """Make an adapter current; return its digest."""
        python = ("/opt/filing-clerk/bin/python", "-", "/store", name, how)
        output = self.beside.kubectl("exec", "-i", "writer", "--", *python, given=PUBLISH)
        return output.split()[-1]

    def remove(self) -> None:
        """Remove everything from cluster and node."""
        self.beside.kubectl("exec", "writer", "--", "find", "/store", "-mindepth", "1", "-delete")
        self.beside.kubectl("delete", "namespace", self.name, "--timeout=180s")
        self.cluster.kubectl("delete", "pvc", self.name)
        self.cluster.kubectl("delete", "pv", self.name)


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Store]:
    made = Store(cluster)
    made.make()
    yield made
    made.remove()


@pytest.fixture
def names() -> Names:
    return Names.fresh("swap")


@pytest.fixture
def clerk(cluster: Cluster, kafka: str, names: Names, store: Store) -> Iterator[Release]:
    mounted = {
        "config": {"model": {"adapter": "/store"}},
        "storage": {
            "adapters": {
                "mountPath": "/store",
                "volume": {"persistentVolumeClaim": {"claimName": store.name, "readOnly": True}},
            }
        },
        # Two adapters, each merged into a copy of the base, have two engines.
        "resources": {"limits": {"memory": "16Gi"}},
    }
    release = Release(cluster, "swap", merge(demo_values(kafka, names, PARTITIONS), mounted))
    yield release
    cluster.helm("uninstall", "swap", "--ignore-not-found", "--wait", "--timeout", "3m")


def test_pods_switch_to_a_new_adapter_and_refuse_a_bad_one(
    clerk: Release,
    store: Store,
    kafka: str,
    names: Names,
    note: Callable[[str], None],
) -> None:
    """Under load a valid adapter serves without a restart. One with a damaged file and one that
    misclassifies the probes are refused, and the pod continues. No message is lost or
    duplicated, and each result names the adapter that made it."""
    first = store.publish("first")
    clerk.install()
    clerk.wait_for_ready(1, READY_S)
    pod = clerk.pod()
    with Traffic(kafka, names, PARTITIONS) as traffic:
        traffic.per_second = STEADY
        time.sleep(5)

        second = store.publish("second")
        began = time.monotonic()
        wait_until("the new adapter serves", lambda: serves(clerk, pod) == second, TAKEN_S)
        taken_s = time.monotonic() - began
        time.sleep(5)

        reasons = {}
        for how in ("damaged", "worse"):
            bad = store.publish(how, how)
            wait_until(f"{how}: refused", partial(refused, clerk, pod, bad), TAKEN_S)
            reasons[how] = refused(clerk, pod, bad)
            assert serves(clerk, pod) == second
            assert clerk.ready() == [pod]
            time.sleep(5)
        assert reasons == {"damaged": "files", "worse": "worse"}
        count = traffic.finish()

    assert clerk.pod() == pod
    assert container(clerk.cluster.get("pod", pod))["restartCount"] == 0
    stamps = [result.adapter for result in sorted(traffic.results, key=lambda result: result.at)]
    assert set(stamps) == {first, second}
    by_first = stamps.count(first)
    # Around the swap, results of two partitions may arrive out of order, by a batch at most.
    assert stamps[: by_first - 20] == [first] * (by_first - 20)
    assert stamps[by_first + 20 :] == [second] * (count - by_first - 20)
    swapped = [event for event in clerk.events(pod) if event["event"] == "adapter.swapped"]
    assert len(swapped) == 1
    note(
        f"a new current in a mounted store served after {taken_s:.0f} s, no restart; a damaged and "
        f"a worse one were refused; {count} messages, each has one result"
    )


def serves(clerk: Release, pod: str) -> str | None:
    """The digest of the adapter that a worker labels with."""
    info = info_of(clerk, pod)
    return info and info["adapter"] and str(info["adapter"]["digest"])


def refused(clerk: Release, pod: str, digest: str) -> str | None:
    """The reason for which a worker refused this adapter, or None."""
    info = info_of(clerk, pod)
    last = info and info["last_refusal"]
    return str(last["reason"]) if last and last["digest"] == digest else None


def info_of(clerk: Release, pod: str) -> Any:
    """The worker's /info; None without an answer."""
    status, body = clerk.ask(pod, "/info")
    return json.loads(body) if status == 200 else None
