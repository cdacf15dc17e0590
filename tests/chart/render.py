"""The chart as Helm renders it: documents to look at, or the refusal. Needs the helm binary.

documents = render({"replicaCount": 2}, EXAMPLES / "one-gpu.yaml", release="clerk")
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.chart.get_helm import find_helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "filing-clerk"
EXAMPLES = CHART / "examples"
EXAMPLE_FILES = tuple(sorted(EXAMPLES.glob("*.yaml")))
Document = dict[str, Any]

# The minimum that works.
MINIMAL: Mapping[str, Any] = {
    "image": {"repository": "registry.example/clerk/worker"},
    "config": {
        "kafka": {"bootstrap_servers": "kafka:9092"},
        "model": {"base": "/models/base", "adapter": "/adapters"},
    },
    "storage": {
        "models": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}},
        "adapters": {"volume": {"persistentVolumeClaim": {"claimName": "adapters"}}},
    },
}


class Refused(Exception):
    """Helm's own message when it refuses to render."""


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc] # yaml has no types
    """Reads YAML as a cluster does: a duplicate key is an error."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    pairs = loader.construct_pairs(node, deep=True)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise yaml.YAMLError(f"a key stands twice: {node.start_mark}")
    return found


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    binary = find_helm()
    assert binary is not None
    return subprocess.run(
        [binary, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def render(
    values: Mapping[str, Any] | None = None,
    *files: Path,
    release: str = "clerk",
    namespace: str = "support",
    kube_version: str = "1.36.0",
    chart: Path = CHART,
    flags: Sequence[str] = (),
) -> list[Document]:
    """Return all documents, with hooks and tests; ``values`` override ``files``. Raises Refused."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        # Helm reads it as YAML, which has no escaped surrogates and no bare DEL.
        text = json.dumps(values or {}, ensure_ascii=False).replace("\x7f", "\\u007f")
        file.write(text)
        file.flush()
        named = [word for path in (*files, Path(file.name)) for word in ("-f", str(path))]
        done = helm("template", release, str(chart), "--namespace", namespace,
                    "--kube-version", kube_version, *named, *flags)  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr)
    return [document for document in yaml.load_all(done.stdout, _StrictLoader) if document]


def render_minimal(values: Mapping[str, Any] | None = None, **options: Any) -> list[Document]:
    return render(merge(MINIMAL, values or {}), **options)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two maps of values as Helm does."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def at(path: str, value: Any) -> dict[str, Any]:
    """Values with this one at a path of keys."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


@dataclass(frozen=True)
class PodSpec:
    """The pod of a document: its owner, labels and spec."""

    owner: Document
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.owner['kind']} {self.owner['metadata']['name']}"

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def pods(documents: Sequence[Document]) -> Iterator[PodSpec]:
    """Yield the pods of all documents, of Jobs and CronJobs too."""
    for document in documents:
        match document["kind"]:
            case "Pod":
                yield PodSpec(document, document["metadata"]["labels"], document["spec"])
            case "Deployment" | "Job":
                template = document["spec"]["template"]
                yield PodSpec(document, template["metadata"]["labels"], template["spec"])
            case "CronJob":
                template = document["spec"]["jobTemplate"]["spec"]["template"]
                yield PodSpec(document, template["metadata"]["labels"], template["spec"])


def find(documents: Sequence[Document], kind: str, ending: str = "") -> Document:
    (found,) = [
        document
        for document in documents
        if document["kind"] == kind and document["metadata"]["name"].endswith(ending)
    ]
    return found


def worker_container(documents: Sequence[Document]) -> Mapping[str, Any]:
    (container,) = find(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)
