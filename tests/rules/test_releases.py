"""Two releases of the chart on one Prometheus: each one's rules see only that release."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.get_helm import find_helm
from tests.chart.render import Document, find, merge, render_minimal
from tests.rules.live import UNIT_TESTS, alerts, rules

NAMESPACE = "support"
RELEASES = ("shop", "bank")
METRICS: dict[str, Any] = {
    "metrics": {"monitor": "pod", "rules": {"enabled": True}, "dashboard": {"enabled": True}},
    "desk": {
        "enabled": True,
        "image": {"repository": "registry.example/clerk/desk"},
        "taxonomy": "labels",
        "config": {"sign_in": {"method": "local"}},
    },
}


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


def test_the_linter_finds_no_duplicates_in_both_together(promtool: str, tmp_path: Path) -> None:
    merged = [
        group | {"name": f"{release}.{group['name']}"}
        for release in RELEASES
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
    for group in groups(RELEASES[0]):
        for rule in group["rules"]:
            for found in own.finditer(rule["expr"]):
                assert rule["expr"][found.start("rest") :].startswith(matchers), rule["expr"]
                read += 1
    assert read > len(alerts())


@pytest.mark.long
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
    own = {
        "metrics": {"rules": {"jobs": [job]}},
        "replicaCount": 0,
        "fullnameOverride": job.rpartition("/")[2],  # KEDA's name of it
    }
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
