"""Real workers, real Kafka, a real Prometheus: every panel and every rule has data.

The workers' engine has a fixed service time, as in the crash tests: all metrics but vLLM's own are
real.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.harness import Arena
from tests.rules.live import (
    VARIABLES,
    Prometheus,
    alerts,
    dashboard_queries,
    rules,
    scraping,
    selectors,
)
from worker.observe import metrics
from worker.observe.metrics import Metric

SECONDS = 30
PER_SECOND = 120

# Over seconds instead of minutes, since there is only half a minute to see.
SHORT = {
    **VARIABLES,
    "$__rate_interval": "10s",
    "$__range": "30s",
    "$__interval_ms": "1000",
    "$__interval": "1s",
}

AT_RISK = "Age of the oldest message C"
WEEK_S = 7 * 24 * 3600  # Kafka's own retention

# Their exporters are not here: vLLM behind the engine without a model, Kubernetes, the desk
# (test_desk_metrics.py), and a cascade, whose names are compared with the worker's own.
ABSENT = ("vllm:", "kube_", "DCGM_", "clerk_desk_", "clerk_stage_", "job:clerk_group_lag:")


@dataclass
class Scene:
    """Two workers that worked for half a minute, and the Prometheus that watched."""

    prometheus: Prometheus
    urls: list[str]


@pytest.fixture(scope="module")
def scene(
    bootstrap_servers: str, prometheus: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack)
        workers = [arena.start_worker() for _ in range(2)]
        for worker in workers:
            worker.wait_until_ready("partitions.assigned")
        urls = [worker.url or "" for worker in workers]
        targets = {f"clerk-{n}": url.removeprefix("http://") for n, url in enumerate(urls)}
        folder = tmp_path_factory.mktemp("prometheus")
        watching = stack.enter_context(scraping(prometheus, folder, targets))
        sent = 0
        for _ in range(SECONDS):
            arena.publish([value(sent + n) for n in range(PER_SECOND)])
            sent += PER_SECOND
            time.sleep(1)
        arena.wait_for(sent)
        time.sleep(6)  # the lag is refreshed every 5 s
        yield Scene(watching, urls)


def value(number: int) -> bytes | None:
    """Mostly messages with high confidence, and some unreadable ones."""
    if number % 20 == 0:
        return (None, b"{", b'{"message": ""}')[number // 20 % 3]
    return json.dumps({"id": str(number), "message": f"where is parcel {number}?"}).encode()


def test_every_panel_shows_something(scene: Scene) -> None:
    """Each query gives at least one numeric series, except the age at which messages are at
    risk, which shows only once messages are a tenth as old."""
    empty = {
        query.place
        for query in dashboard_queries(SHORT)
        if not any(series["value"][1] != "NaN" for series in scene.prometheus.query(query.expr))
        and not any(name.startswith(ABSENT) for name, _ in selectors(query.expr))
    }
    assert empty == {AT_RISK}
    (at_risk,) = (query.expr for query in dashboard_queries(SHORT) if query.place == AT_RISK)
    assert " < 10 * " in at_risk
    nearer = at_risk.replace(" < 10 * ", " < 1e12 + ")
    (series,) = scene.prometheus.query(nearer)
    assert float(series["value"][1]) == 0.7 * WEEK_S


def test_the_figures_are_right(scene: Scene) -> None:
    """All inputs, a twentieth of them dead letters, appear in the panels."""
    ask = scene.prometheus.query
    sent = SECONDS * PER_SECOND
    assert float(ask("sum(clerk_records_total)")[0]["value"][1]) == sent
    dead = ask('sum(clerk_records_total{outcome="dead_letter"})')[0]["value"][1]
    assert float(dead) == sent / 20
    assert float(ask("sum(clerk_ready)")[0]["value"][1]) == 2
    assert float(ask("job:clerk_consumer_lag_records:sum")[0]["value"][1]) == 0


def test_every_recording_rule_records(scene: Scene) -> None:
    """Those that look back a day record from what there is."""
    for rule in rules():
        if "record" in rule and not rule["record"].startswith(ABSENT):
            [series] = scene.prometheus.query(rule["record"])
            assert series["metric"]["namespace"] == "live", rule["record"]
            assert series["metric"]["job"] == "clerk", rule["record"]


def test_every_alert_queries_existing_metrics(scene: Scene) -> None:
    """No alert is silent because a metric or label has another name."""
    missing = {
        f"{name}: {metric}{{{matchers}}}"
        for name, rule in alerts().items()
        for metric, matchers in selectors(rule["expr"])
        if not metric.startswith(ABSENT)
        and not scene.prometheus.query(f"last_over_time({metric}{{{matchers}}}[1m])")
    }
    assert missing == set()


def test_a_worker_exports_every_cascade_metric_queried() -> None:
    """Each metric of cascade stages in a rule or panel, with its labels."""
    exported = {
        metric.name: {"namespace", "job", "pod", "le", *(each.name for each in metric.labels)}
        for metric in vars(metrics).values()
        if isinstance(metric, Metric)
    }
    expressions = [rule["expr"] for rule in alerts().values()]
    expressions += [query.expr for query in dashboard_queries()]
    asked = [
        (name.removesuffix("_bucket"), set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)", matchers)))
        for expression in expressions
        for name, matchers in selectors(expression)
        if name.startswith("clerk_stage_")
    ]
    assert len(asked) >= 3
    assert [name for name, labels in asked if not labels <= exported.get(name, set())] == []


def test_nothing_fires_over_healthy_workers(scene: Scene) -> None:
    """Start, two workers joining, half a minute of work, then idle: no alert."""
    assert scene.prometheus.query('ALERTS{alertstate="firing"}') == []
    down = scene.prometheus.ask("rules", type="alert")["groups"]
    unwell = {
        rule["name"]: rule["lastError"]
        for group in down
        for rule in group["rules"]
        if rule.get("lastError")
    }
    assert unwell == {}


def test_the_page_is_well_formed(scene: Scene, promtool: str, tmp_path: Path) -> None:
    """promtool's linter accepts names, units, help and types."""
    with urllib.request.urlopen(f"{scene.urls[0]}/metrics", timeout=10) as answer:
        page = answer.read()
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
