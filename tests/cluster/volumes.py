"""Folders of this machine, which is the node, as volumes for claims."""

from __future__ import annotations

import uuid
from pathlib import Path

from tests.chart.render import Document

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
