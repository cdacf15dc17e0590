"""Values for the chart: the CPU example, changed to fit a small test node and one run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.chart.render import EXAMPLES, Document, merge
from tests.cluster.kubectl import Cluster
from tests.cluster.load import Names

Values = dict[str, Any]

IMAGE = os.environ.get("CLERK_TEST_IMAGE", "filing-clerk-worker-cpu-demo:dev")
PULL_POLICY = os.environ.get("CLERK_TEST_PULL_POLICY", "IfNotPresent")

FAKE_AT = "/fake"
PATH = "/opt/app/bin:/opt/filing-clerk/bin:/usr/local/bin:/usr/bin:/bin"


def demo_values(kafka: str, names: Names, partitions: int, example: str = "cpu-demo") -> Values:
    """An example's values with this image, this Kafka and fresh topics. Three workers must fit on a
    node with two CPUs, so they request less than the example."""
    repository, _, tag = IMAGE.rpartition(":")
    given: Values = yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text(encoding="utf-8"))
    return merge(
        given,
        {
            "image": {"repository": repository, "tag": tag, "pullPolicy": PULL_POLICY},
            "config": {
                "kafka": {
                    "bootstrap_servers": kafka,
                    "group_id": names.group,
                    "input_topics": [names.inputs],
                    "output_topic": names.outputs,
                    "review_topic": names.review,
                    "dead_letter_topic": names.dead,
                    "topic_partitions": partitions,
                }
            },
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        },
    )


def with_fake_engine(
    values: Mapping[str, Any], config_map: str, *, service_s: float, load_s: float = 0.0
) -> Values:
    """Workers with an engine of fixed service time: fake_engine.py, first on the PATH."""
    return merge(
        values,
        {
            "env": {
                "PATH": f"{FAKE_AT}:{PATH}",
                "FAKE_SERVICE_S": str(service_s),
                "FAKE_LOAD_S": str(load_s),
            },
            "extraVolumes": [
                {"name": "fake", "configMap": {"name": config_map, "defaultMode": 0o555}}
            ],
            "extraVolumeMounts": [{"name": "fake", "mountPath": FAKE_AT, "readOnly": True}],
        },
    )


def put_fake_engine(cluster: Cluster, config_map: str) -> None:
    """Create the ConfigMap that ``with_fake_engine`` mounts."""
    program = Path(__file__).with_name("fake_engine.py").read_text(encoding="utf-8")
    cluster.apply(
        [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": config_map},
                "data": {"clerk-worker": program},
            }
        ]
    )


# Folders of this machine, which is the node, as volumes for claims; and a pod that fills one.


LABEL = "clerk=test"


def volume(folder: Path, namespace: str, claim: str, storage_class: str) -> Document:
    """Make a folder, and return a volume for a claim on it."""
    folder.mkdir(parents=True)
    folder.chmod(0o777)  # a hostPath ignores fsGroup
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


def filling_pod(image: str, pull_policy: str, claims: Mapping[str, str]) -> Document:
    """A pod named ``fill``, like the chart's examples, with these claims at their paths."""
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
