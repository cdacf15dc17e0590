"""Folders of this machine, which is the node, as volumes for claims; and a pod that fills one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.chart.render import EXAMPLES, Document

LABEL = "clerk=test"


def volume(folder: Path, namespace: str, claim: str, storage_class: str) -> Document:
    """Make a folder, and return the volume in which a claim finds it."""
    folder.mkdir(parents=True)
    folder.chmod(0o777)  # a hostPath knows no fsGroup
    label, _, value = LABEL.partition("=")
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"clerk-{uuid.uuid4().hex[:6]}", "labels": {label: value}},
        "spec": {
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
            "storageClassName": storage_class,
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": str(folder)},
        },
    }


def claim(name: str, storage_class: str | None = None) -> Document:
    """Return a claim; without a class: the cluster's default."""
    spec: dict[str, object] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    metadata = {"name": name}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def filling_pod(image: str, pull_policy: str, claims: Mapping[str, str]) -> Document:
    """Return a pod named ``fill``, that of the chart's examples, with these claims, each at its
    path."""
    path = EXAMPLES / "objects" / "fill-dataset.yaml"
    pod: Document = yaml.safe_load(path.read_text(encoding="utf-8"))
    (container,) = pod["spec"]["containers"]
    container |= {"image": image, "imagePullPolicy": pull_policy}
    names = {path: f"claim-{at}" for at, path in enumerate(claims)}
    container["volumeMounts"] = [{"name": names[path], "mountPath": path} for path in claims]
    pod["spec"]["volumes"] = [
        {"name": names[path], "persistentVolumeClaim": {"claimName": claim}}
        for path, claim in claims.items()
    ]
    return pod
