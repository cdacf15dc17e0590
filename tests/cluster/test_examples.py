"""Each example, rendered and sent to the API server: every object and every pod is accepted.

The custom resources need the definitions of KEDA and the Prometheus operator. Where the cluster has
none they are applied for the test, from the operators' Go modules (crds.py).
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.render import EXAMPLE_FILES, Document, pods, render
from tests.cluster.conftest import missing
from tests.cluster.kubectl import Cluster

# The operators' custom resource definitions, from their Go modules, for a cluster without them.
#
# Needs Go. A module is used only if it has the checksum below, as in a go.sum.


class NotThere(Exception):
    """No Go, or the module is not available."""


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module, and its folder with the definitions."""

    name: str
    checksum: str
    folder: str


_MODULES = {
    "keda.sh": Module(
        "github.com/kedacore/keda/v2@v2.21.0",
        "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        "config/crd/bases",
    ),
    "monitoring.coreos.com": Module(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd",
    ),
}


def definitions(name: str) -> dict[str, Any]:
    """The CustomResourceDefinition with this name (plural.group). Raises NotThere."""
    plural, _, group = name.partition(".")
    folder = _fetch(_MODULES[group])
    text = (folder / f"{group}_{plural}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    assert found["metadata"]["name"] == name
    return found


@functools.cache
def _fetch(module: Module) -> Path:
    if shutil.which("go") is None:
        raise NotThere("Go is not installed, which could get them")
    done = subprocess.run(
        ["go", "mod", "download", "-json", module.name],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        raise NotThere(f"the module cannot be downloaded: {done.stdout}{done.stderr}")
    answer = json.loads(done.stdout)
    if answer["Sum"] != module.checksum:
        raise NotThere(f"{module.name} has the checksum {answer['Sum']}, not {module.checksum}")
    return Path(answer["Dir"]) / module.folder


KINDS = {
    "scaledobjects.keda.sh",
    "triggerauthentications.keda.sh",
    "podmonitors.monitoring.coreos.com",
    "servicemonitors.monitoring.coreos.com",
    "prometheusrules.monitoring.coreos.com",
}

# keda.yaml names it and a cluster admin has it; without it the pods would be refused.
GIVEN: list[Document] = [
    {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "nvidia"},
        "handler": "runc",
    },
    {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "support"},
        "value": 1000,
    },
]


@pytest.fixture(scope="module")
def what_examples_name(cluster: Cluster) -> Iterator[None]:
    """The definitions and classes that the examples refer to; new ones are removed afterwards."""
    made = []
    for kind in sorted(KINDS):
        if not cluster.exists("crd", kind):
            try:
                document = definitions(kind)
            except NotThere as error:
                missing(f"the cluster has no {kind}, and {error}")
            cluster.apply([document])
            made.append(("crd", kind))
    for document in GIVEN:
        kind, name = document["kind"], document["metadata"]["name"]
        if not cluster.exists(kind, name):
            cluster.apply([document])
            made.append((kind, name))
    for kind, name in made:
        if kind == "crd":
            cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s")
    yield
    for kind, name in made:
        cluster.kubectl("delete", kind, name, "--ignore-not-found", "--timeout=60s")


each_example = pytest.mark.parametrize("example", EXAMPLE_FILES, ids=lambda path: path.stem)


@each_example
@pytest.mark.usefixtures("what_examples_name")
def test_the_api_server_accepts_each_object(cluster: Cluster, example: Path) -> None:
    """No unknown field, no deprecated version, no violation of the restricted Pod Security
    level."""
    text = yaml.safe_dump_all(render(None, example, namespace=cluster.namespace))
    words = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    assert cluster.warnings(*words, given=text) == []


@each_example
@pytest.mark.usefixtures("what_examples_name")
def test_each_pod_is_admitted_as_restricted(cluster: Cluster, example: Path) -> None:
    """The pods of Deployment, Jobs, CronJob and helm test pass the admission of a restricted
    namespace."""
    found = _bare_pods(cluster, example)
    assert len(found) >= 2
    words = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    assert cluster.warnings(*words, given=yaml.safe_dump_all(found)) == []


def _bare_pods(cluster: Cluster, example: Path) -> list[Document]:
    """The pods of an example, under an account that exists."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.owner["metadata"]["name"], "labels": dict(pod.labels)},
            "spec": {**pod.spec, "serviceAccountName": "default"},
        }
        for pod in pods(render(None, example, namespace=cluster.namespace))
    ]
