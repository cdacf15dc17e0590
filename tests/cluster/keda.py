"""Workers that KEDA scales by the lag of a topic, with an engine of fixed service time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.chart.render import merge
from tests.cluster.kubectl import Cluster, Failed, Release
from tests.cluster.load import Names
from tests.cluster.values import Values, demo_values, put_fake_engine, with_fake_engine
from worker.demo.client import create_demo_topics


def fresh_topics(kafka: str, name: str, partitions: int) -> Names:
    """Make the topics of a run of its own."""
    found = Names.fresh(name)
    create_demo_topics(kafka, dict.fromkeys((found.inputs, *found.sinks), partitions))
    return found


@contextmanager
def scaled_release(
    cluster: Cluster,
    name: str,
    kafka: str,
    names: Names,
    *,
    partitions: int,
    scaling: Values,
    service_s: float,
) -> Iterator[Release]:
    """Install a release, and uninstall it in the end; skip the test where there is no KEDA."""
    try:
        cluster.kubectl("get", "--raw", "/apis/external.metrics.k8s.io/v1beta1")
    except Failed:
        pytest.skip("the cluster has no KEDA")
    config_map = f"fake-engine-{name}"
    put_fake_engine(cluster, config_map)
    base = merge(demo_values(kafka, names, partitions), scaling)
    base["config"]["kafka"]["topic_partitions"] = None
    release = Release(cluster, name, with_fake_engine(base, config_map, service_s=service_s))
    release.install("--wait", "--timeout", "3m")
    yield release
    cluster.helm("uninstall", name, "--wait", "--timeout", "3m")
