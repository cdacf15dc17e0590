"""Values for the chart: the CPU example, with what a small test node and a run of its own need."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.chart.render import EXAMPLES, merge
from tests.cluster.kubectl import Cluster
from tests.cluster.load import Names

Values = dict[str, Any]

IMAGE = os.environ.get("CLERK_TEST_IMAGE", "filing-clerk-worker-cpu-demo:dev")
PULL_POLICY = os.environ.get("CLERK_TEST_PULL_POLICY", "IfNotPresent")

FAKE_AT = "/fake"
PATH = "/opt/app/bin:/opt/filing-clerk/bin:/usr/local/bin:/usr/bin:/bin"


def demo_values(kafka: str, names: Names, partitions: int) -> Values:
    """The example for the CPU, with this image, this Kafka and topics of this run's own.

    Three workers must find room on a node with two CPUs, so they ask for less than the example.
    """
    repository, _, tag = IMAGE.rpartition(":")
    example: Values = yaml.safe_load((EXAMPLES / "cpu-demo.yaml").read_text(encoding="utf-8"))
    return merge(
        example,
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
    """Workers whose engine takes a fixed time a message: fake_engine.py, first on the PATH."""
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
    """Make the ConfigMap that ``with_fake_engine`` mounts."""
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
