"""ClerkScaledToMaximum over a real autoscaler: KEDA's, as kube-state-metrics reports it.

It is the only alert that asks Kubernetes, so tests.rules.night, which provokes all others, cannot
cover it. kube-state-metrics and Prometheus, with the shipped rules, run on this machine; durations
are divided by 30 as there: the hour is two minutes. Needs KEDA in the cluster.
"""

from __future__ import annotations

import json
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.chart.render import merge
from tests.cluster import state_metrics
from tests.cluster.conftest import missing
from tests.cluster.kubectl import Cluster, Release, wait_until
from tests.cluster.load import Names, Traffic
from tests.cluster.values import Values, fresh_topics, scaled_release
from tests.rules.live import Prometheus, running
from tests.rules.night import fast_rules

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

PARTITIONS = 4
MOST = 2
SERVICE_S = 0.2  # 5 messages a second from each worker
BACKLOG = 6000
LAG_THRESHOLD = 1500  # four workers for all of it, two or three for the rest after the "hour"
HOUR_S = 3600 / 30
JOB = "maximum-filing-clerk"
ALERT = f'ALERTS{{alertname="ClerkScaledToMaximum", job="{JOB}"}}'
WANTED = "kube_horizontalpodautoscaler_status_desired_replicas"


def scaled(most: int) -> Values:
    at_once = {"type": "Pods", "value": 4, "periodSeconds": 5}
    return {
        "autoscaling": {
            "kind": "keda",
            "minReplicas": 1,
            "maxReplicas": most,
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "policies": [at_once]}},
            "keda": {"lagThreshold": LAG_THRESHOLD, "pollingInterval": 3},
        },
        "probes": {"readiness": {"periodSeconds": 2}, "startup": {"periodSeconds": 2}},
    }


@pytest.fixture
def names(kafka: str) -> Names:
    return fresh_topics(kafka, "maximum", PARTITIONS)


@pytest.fixture
def workers(cluster: Cluster, kafka: str, names: Names) -> Iterator[Release]:
    with scaled_release(
        cluster,
        "maximum",
        kafka,
        names,
        partitions=PARTITIONS,
        scaling=scaled(MOST),
        service_s=SERVICE_S,
    ) as release:
        yield release


@contextmanager
def watching(cluster: Cluster, folder: Path) -> Iterator[Prometheus]:
    """Prometheus over kube-state-metrics and the workers that ``tell_pods`` writes down."""
    program = shutil.which("prometheus")
    if program is None:
        missing("Prometheus is not installed (Debian: apt-get install prometheus)")
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(fast_rules({})), encoding="utf-8")
    with state_metrics.telling(cluster, folder) as address:
        config = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": "state", "static_configs": [{"targets": [address]}]},
                {
                    "job_name": "workers",
                    "file_sd_configs": [
                        {"files": [str(folder / "pods.json")], "refresh_interval": "1s"}
                    ],
                },
            ],
        }
        with running(program, folder, config) as prometheus:
            yield prometheus


def tell_pods(release: Release, folder: Path) -> None:
    """Write the targets of the ready workers, through the API server."""
    targets = []
    for pod in release.ready():
        url = urllib.parse.urlsplit(release.cluster.url(pod, 8080, "/metrics"))
        labels = {
            "namespace": release.cluster.namespace,
            "job": JOB,
            "pod": pod,
            "instance": pod,
            "__metrics_path__": url.path,
        }
        targets.append({"targets": [url.netloc], "labels": labels})
    (folder / "pods.new").write_text(json.dumps(targets), encoding="utf-8")
    (folder / "pods.new").replace(folder / "pods.json")


def figure(prometheus: Prometheus, expr: str) -> float | None:
    found = prometheus.query(expr)
    return float(found[0]["value"][1]) if found else None


def state(prometheus: Prometheus) -> str | None:
    found = prometheus.query(ALERT)
    return str(found[0]["metric"]["alertstate"]) if found else None


def test_an_hour_at_the_maximum_with_waiting_work(
    workers: Release,
    cluster: Cluster,
    kafka: str,
    names: Names,
    tmp_path: Path,
    note: Callable[[str], None],
) -> None:
    """It does not fire while a worker can be added; then it is pending for an hour and fires,
    only for this install. The runbook's step ends it, although as much work waits."""
    with watching(cluster, tmp_path) as prometheus, Traffic(kafka, names, PARTITIONS) as traffic:
        wait_until(
            "kube-state-metrics knows it",
            lambda: figure(prometheus, f"{WANTED}{{namespace='{cluster.namespace}'}}") == 1,
            120,
        )
        tell_pods(workers, tmp_path)
        time.sleep(10)  # a few scrapes, for which one worker is enough
        assert state(prometheus) is None
        traffic.publish(BACKLOG)
        began = time.monotonic()
        at_most_s, fired_s = None, None
        while fired_s is None:
            now_s = time.monotonic() - began
            assert now_s < 4 * HOUR_S, f"it did not fire: {state(prometheus)}"
            tell_pods(workers, tmp_path)
            found, wanted = state(prometheus), figure(prometheus, WANTED)
            if at_most_s is None and wanted == MOST:
                at_most_s = now_s
            if found is not None:
                assert at_most_s is not None, f"{found} with {wanted} workers"
            if found == "firing":
                fired_s = now_s
            time.sleep(1)
        assert at_most_s is not None
        assert fired_s - at_most_s >= HOUR_S - 5
        assert len(prometheus.query("ALERTS{alertname='ClerkScaledToMaximum'}")) == 1

        waits_s = figure(prometheus, f'job:clerk_drain_seconds{{job="{JOB}"}}')
        workers.values = merge(workers.values, scaled(PARTITIONS))
        workers.upgrade()
        raised = time.monotonic()
        wait_until("it ends", lambda: state(prometheus) is None, 60)
        ended_s = time.monotonic() - raised
        assert (figure(prometheus, f'job:clerk_drain_seconds{{job="{JOB}"}}') or 0) > 60
    note(
        f"ClerkScaledToMaximum: {MOST} workers were wanted {at_most_s:.0f} s after {BACKLOG} "
        f"messages came, it fired {fired_s - at_most_s:.0f} s later (an hour in 30) with "
        f"{waits_s:.0f} s of work, and ended {ended_s:.0f} s after maxReplicas was raised"
    )
