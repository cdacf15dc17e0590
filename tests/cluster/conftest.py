"""A cluster, an image that its nodes have, and a Kafka outside it that its pods reach.

Any cluster that KUBECONFIG names, kind and k3d too; never a person's default context. Settings are
environment variables:

KUBECONFIG                the cluster. The tests create and remove their own namespaces.
CLERK_TEST_IMAGE          the demo image (worker-cpu-demo), already loaded or pulled on the nodes:
                          filing-clerk-worker-cpu-demo:dev. Where only short tests run, any image
                          of workers
CLERK_TEST_PULL_POLICY    when the nodes pull it: IfNotPresent
CLERK_TEST_HOST           the address at which pods reach this machine; Kafka listens there.
                          Default: this machine's address on the way to the pod network or the node
CLERK_TEST_TOOLS_IMAGE    worker-tools, also on the nodes, for test_rollback.py; optional
CLERK_TEST_TRAINER_IMAGE  one with the trainer's packages, for the jobs in test_headers.py
CLERK_TEST_DESK_IMAGE     the desk's image, also on the nodes, for test_desk.py

test_headers.py also needs the image on the nodes under the names in the chart's examples, which
.ci/cluster sets up; it and test_runbook.py create and remove the namespace "support".

Without a cluster, an image or helm the tests are skipped; with CI set they fail. The test of
scaling by lag needs KEDA in the cluster.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.chart.get_helm import find_helm
from tests.cluster.kubectl import Cluster, Failed, have_kubectl, wait_until
from tests.cluster.values import IMAGE, PULL_POLICY
from worker.demo.broker import LocalBroker

_LEVEL = "pod-security.kubernetes.io"
_NOTES: list[str] = []


def missing(why: str) -> NoReturn:
    """Skip on a developer's machine, fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Loading a model on two cores takes time."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for sentence in _NOTES:
        terminalreporter.write_line(f"seen: {sentence}")


@pytest.fixture(scope="session")
def note() -> Callable[[str], None]:
    """Keeps a measured figure for the end of the run."""
    return _NOTES.append


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A fresh namespace in which Pod Security enforces ``restricted``."""
    if not os.environ.get("KUBECONFIG"):
        missing("KUBECONFIG names no cluster (kind, k3d, ...)")
    if not have_kubectl():
        missing("kubectl is not installed")
    if find_helm() is None:
        missing("no helm 4: make chart-tools")
    made = Cluster(f"clerk-test-{uuid.uuid4().hex[:6]}")
    try:
        made.kubectl("create", "namespace", made.namespace, timeout_s=30)
    except Failed as error:
        missing(f"the cluster does not answer: {error}")
    levels = [f"{_LEVEL}/{level}=restricted" for level in ("enforce", "warn")]
    made.kubectl("label", "namespace", made.namespace, *levels)
    yield made
    made.close()
    made.kubectl("delete", "namespace", made.namespace, "--timeout=180s")


@pytest.fixture(scope="session")
def host(cluster: Cluster) -> str:
    """The address at which pods reach this machine. Starts a pod to find out."""
    pod = "clerk-test-probe"
    script = ["python3", "-c", "import time; time.sleep(600)"]
    cluster.apply([_bare_pod(pod, script)])
    try:
        wait_until(
            f"a pod of {IMAGE} runs: do the nodes have it? (CLERK_TEST_IMAGE)",
            lambda: cluster.get("pod", pod)["status"]["phase"] == "Running",
            180,
        )
        status = cluster.get("pod", pod)["status"]
    except Failed as error:
        events = cluster.get("events", "--field-selector", f"involvedObject.name={pod}")
        said = [str(event.get("message")) for event in events]
        for node in cluster.get("nodes"):
            said += [f"{each['type']}: {each['message']}" for each in node["status"]["conditions"]]
        missing(f"{error}: " + " / ".join(said)[-1500:])
    finally:
        cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
    named = os.environ.get("CLERK_TEST_HOST")
    if named:
        return named
    towards_node = _own_address(status["hostIP"])
    # A node that is this machine: pods reach its end of their network.
    return _own_address(status["podIP"]) if towards_node == status["hostIP"] else towards_node


@pytest.fixture(scope="session")
def kafka(host: str) -> Iterator[str]:
    with LocalBroker(host=host, start_timeout_s=300) as broker:
        yield broker.bootstrap_servers


def _own_address(towards: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((towards, 9))  # sends nothing: the kernel chooses the route
        return str(probe.getsockname()[0])


def _bare_pod(name: str, command: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": IMAGE,
                    "imagePullPolicy": PULL_POLICY,
                    "command": command,
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
