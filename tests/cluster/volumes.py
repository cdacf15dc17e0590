"""Folders of this machine, which is the node, as volumes for claims; and a pod that fills one."""

from __future__ import annotations

import uuid
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


def filling_pod(image: str, pull_policy: str, claim: str) -> Document:
    """Return a pod named ``fill`` that has a claim at /store: that of the chart's examples."""
    path = EXAMPLES / "objects" / "fill-dataset.yaml"
    pod: Document = yaml.safe_load(path.read_text(encoding="utf-8"))
    (container,) = pod["spec"]["containers"]
    container |= {"image": image, "imagePullPolicy": pull_policy}
    container["volumeMounts"][0]["mountPath"] = "/store"
    pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = claim
    return pod
