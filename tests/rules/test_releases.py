"""Two releases of the chart on one real Prometheus: each one's rules see only that release."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.get_helm import find_helm
from tests.chart.render import Document, find, merge, render_minimal
from tests.rules.live import UNIT_TESTS, Prometheus, alerts, rules, running
from tests.support.processes import serving

NAMESPACE = "support"
ILL, WELL = "shop", "bank"
SECONDS = 12
METRICS: dict[str, Any] = {
    "metrics": {"monitor": "pod", "rules": {"enabled": True}, "dashboard": {"enabled": True}},
    "desk": {
        "enabled": True,
        "image": {"repository": "registry.example/clerk/desk"},
        "taxonomy": "labels",
        "config": {"sign_in": {"method": "local"}},
    },
}

# For each metric: the sick release's value and the healthy one's. A counter grows by that much a
# second.
WORKER_GAUGES = {
    "clerk_ready": (0, 1),
    "clerk_build_info": (1, 1),
    "clerk_last_poll_timestamp_seconds": (0, None),  # None: now
    "clerk_in_engine_records": (5, 0),
    "clerk_kafka_outage_seconds": (500, 0),
    "clerk_adapter_canary_stopped": (1, 0),
    'clerk_adapter_refused{role="main"}': (1, 0),
    'clerk_adapter_info{adapter="a"}': (1, 1),
    'clerk_consumer_lag_records{topic="in",partition="0"}': (5000, 0),
    'clerk_consumer_lag_seconds{topic="in",partition="0"}': (90, 0),
    'clerk_topic_retention_seconds{topic="in"}': (100, 100),
}
WORKER_COUNTERS = {
    'clerk_records_total{outcome="dead_letter"}': (50, 0),
    'clerk_records_total{outcome="output"}': (1, 50),
    'clerk_dead_letters_total{reason="killed_engine"}': (5, 0),
    'clerk_dead_letters_total{reason="engine_rejected"}': (5, 0),
    'clerk_transactions_total{result="aborted"}': (5, 0),
    'clerk_transactions_total{result="committed"}': (1, 5),
    'clerk_rebalances_total{kind="lost"}': (5, 0),
}
DESK_GAUGES = {
    "clerk_desk_database_up": (0, 1),
    "clerk_desk_outbox_oldest_seconds": (1000, 0),
    'clerk_desk_accuracy_fell{window_days="7"}': (1, 0),
}
EXPECTED = {
    "ClerkWorkerNotReady", "ClerkLoopHung", "ClerkRetentionAtRisk", "ClerkKafkaUnreachable",
    "ClerkTransactionsFail", "ClerkPartitionsLost", "ClerkDeadLetters", "ClerkUnansweredMessages",
    "ClerkMessageQuarantined", "ClerkAdapterRefused", "ClerkCanaryStopped", "ClerkTwoAdapters",
    "ClerkDeskDatabaseDown", "ClerkDeskCorrectionsStuck", "ClerkDeskAccuracyFell",
}  # fmt: skip


def page(gauges: dict[str, Any], counters: dict[str, Any], seconds: float, *, ill: bool) -> str:
    """A page of metrics after ``seconds``."""
    at = 0 if ill else 1
    lines = [f"{name} {time.time() if values[at] is None else values[at]}"
             for name, values in gauges.items()]  # fmt: skip
    lines += [f"{name} {int(values[at] * seconds)}" for name, values in counters.items()]
    if ill and gauges is WORKER_GAUGES:
        lines.append('clerk_adapter_info{adapter="b"} 1')
    return "\n".join(lines) + "\n"


def page_handler(
    gauges: dict[str, Any], counters: dict[str, Any], *, ill: bool
) -> type[BaseHTTPRequestHandler]:
    begin = time.monotonic()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page(gauges, counters, time.monotonic() - begin, ill=ill).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Page


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    if find_helm() is None:
        assert not os.environ.get("CI"), "helm 4 is missing: make chart-tools"
        pytest.skip("no helm 4: make chart-tools")


def rendered(release: str) -> list[Document]:
    """One release with alerts, dashboard and desk."""
    return render_minimal(METRICS, release=release, namespace=NAMESPACE)


def groups(release: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = find(rendered(release), "PrometheusRule")["spec"]["groups"]
    return found


def jobs(release: str) -> tuple[str, str]:
    monitors = [each for each in rendered(release) if each["kind"] == "PodMonitor"]
    workers, desk = sorted(f"{NAMESPACE}/{each['metadata']['name']}" for each in monitors)
    return workers, desk


@pytest.fixture(scope="module")
def both(prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with both releases' rules that scraped both for some seconds."""
    folder = tmp_path_factory.mktemp("releases")
    scrapes: list[dict[str, Any]] = []
    with ExitStack() as stack:
        for release in (ILL, WELL):
            fast = groups(release)
            for group in fast:
                group["interval"] = "1s"
                for rule in group["rules"]:
                    rule.pop("for", None)  # conditions with a duration are not waited for
            (folder / f"{release}.yaml").write_text(yaml.safe_dump({"groups": fast}))
            pages: list[tuple[dict[str, Any], dict[str, Any]]] = [
                (WORKER_GAUGES, WORKER_COUNTERS), (DESK_GAUGES, {}),
            ]  # fmt: skip
            for job, (gauges, counters) in zip(jobs(release), pages, strict=True):
                handler = page_handler(gauges, counters, ill=release == ILL)
                address = stack.enter_context(serving(handler)).removeprefix("http://")
                labels = {"namespace": NAMESPACE, "pod": f"{release}-0"}
                scrapes.append({
                    "job_name": job,
                    "static_configs": [{"targets": [address], "labels": labels}],
                })  # fmt: skip
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / f"{release}.yaml") for release in (ILL, WELL)],
            "scrape_configs": scrapes,
        }
        found = stack.enter_context(running(prometheus, folder, config))
        time.sleep(SECONDS)
        yield found


def test_each_alert_names_its_own_release_and_is_raised_once(both: Prometheus) -> None:
    """All alerts are for the unhealthy release, from its own rules."""
    fired: Counter[tuple[str, str, str]] = Counter()
    for group in both.ask("rules", type="alert")["groups"]:
        release = Path(group["file"]).stem
        for rule in group["rules"]:
            assert not rule.get("lastError"), rule
            for alert in rule["alerts"]:
                labels = alert["labels"]
                assert labels["namespace"] == NAMESPACE
                assert labels["job"] in jobs(release), (release, labels)
                fired[release, rule["name"], labels["job"]] += 1
    assert {release for release, _, _ in fired} == {ILL}
    assert {name for _, name, _ in fired} >= EXPECTED
    twice = {"ClerkUnansweredMessages"}  # one for each reason; here there is only one
    assert {
        each: count for each, count in fired.items() if count > 1 and each[1] not in twice
    } == {}


def test_each_recorded_series_has_one_source(both: Prometheus) -> None:
    """Both releases are recorded, each under its job and by its own rules."""
    for name in ("job:clerk_ready:sum", "job:clerk_release:workers", "job:clerk_records:rate5m"):
        found = [series["metric"]["job"] for series in both.query(name)]
        assert sorted(found) == sorted([jobs(ILL)[0], jobs(WELL)[0]]), name


def test_the_linter_finds_no_duplicates_in_both_together(promtool: str, tmp_path: Path) -> None:
    merged = [
        group | {"name": f"{release}.{group['name']}"}
        for release in (ILL, WELL)
        for group in groups(release)
    ]
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump({"groups": merged}))
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * (len(rules()) + 1)} rules found" in done.stdout


def test_a_custom_job_label_is_taken_literally(promtool: str, tmp_path: Path) -> None:
    """A dot in its name is a literal dot, and the rules stay valid."""
    own = {"metrics": {"monitor": "none", "rules": {"jobs": ["clerk.shop", "clerk.shop:desk"]}}}
    made = find(render_minimal(merge(METRICS, own)), "PrometheusRule")["spec"]["groups"]
    assert 'job=~"clerk\\\\.shop|clerk\\\\.shop:desk"' in made[1]["rules"][0]["expr"]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"groups": made}))
    done = subprocess.run(
        [promtool, "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_selector_in_every_rule_names_the_release() -> None:
    """Every selector of our metrics has the release's matchers, however it is written."""
    own = re.compile(r"clerk_[a-zA-Z0-9_:]+(?P<rest>.?)")
    matchers = f'{{namespace="{NAMESPACE}",job=~"'
    read = 0
    for group in groups(ILL):
        for rule in group["rules"]:
            for found in own.finditer(rule["expr"]):
                assert rule["expr"][found.start("rest") :].startswith(matchers), rule["expr"]
                read += 1
    assert read > len(alerts())


def test_a_releases_rules_pass_the_same_scenarios(promtool: str, tmp_path: Path) -> None:
    """Each scenario with a namespace and a job passes with the chart's rules for its releases
    side by side, and no alert comes from a neighbour's."""
    played = 0
    for path in UNIT_TESTS:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for number, case in enumerate(document["tests"]):
            named = {
                name
                for each in case["input_series"]
                if (name := _named(each["series"])) is not None
            }
            if not all(namespace for namespace, _ in named):
                continue
            played += 1
            script = tmp_path / f"{path.stem}-{number}.yaml"
            files = [rule_file(tmp_path, *each) for each in sorted(named)]
            order = [
                f"{file.stem}.{name}"
                for name in document.get("group_eval_order", ())
                for file in files
            ]
            script.write_text(yaml.safe_dump({
                "rule_files": [str(file) for file in files], "group_eval_order": order,
                "evaluation_interval": document["evaluation_interval"], "tests": [case],
            }))  # fmt: skip
            done = subprocess.run(
                [promtool, "test", "rules", script], capture_output=True, text=True, check=False
            )
            assert "SUCCESS" in done.stdout, f"{path}: {case['name']}: {done.stdout}{done.stderr}"
    assert played >= 15


@functools.cache
def rule_file(folder: Path, namespace: str, job: str) -> Path:
    """The rules of the release with this job."""
    own = {"metrics": {"rules": {"jobs": [job]}}, "replicaCount": 0}
    made = find(render_minimal(merge(METRICS, own), namespace=namespace), "PrometheusRule")
    path = folder / f"{namespace}-{job.replace('/', '-')}.yaml"
    named = [group | {"name": f"{path.stem}.{group['name']}"} for group in made["spec"]["groups"]]
    path.write_text(yaml.safe_dump({"groups": named}))
    return path


def _named(series: str) -> tuple[str, str] | None:
    """The release (namespace and job) of our series."""
    if not re.match(r"(job:)?clerk_", series):
        return None
    labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
    return labels.get("namespace", ""), labels.get("job", "")
