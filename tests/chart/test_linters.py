"""Checks by other tools: schemas (Kubernetes, KEDA, Prometheus operator) and checkov."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.render import EXAMPLE_FILES, ROOT, merge, render, render_minimal
from tests.chart.test_desk import DESK
from tests.chart.test_login import IAM

VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36")
HERE = Path(__file__).parent


def validate(tools: Path, cases: list[dict[str, Any]]) -> str:
    """Return the schemas' complaints about these documents."""
    done = subprocess.run(
        [tools / "python", HERE / "validate_documents.py"],
        input=json.dumps(cases), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == bool(done.stdout), done.stderr
    return done.stdout


def cases(version: str) -> list[dict[str, Any]]:
    """All documents of the examples, and of values that no example has."""
    target = {"type": "AverageValue", "averageValue": "5"}
    hpa = {"type": "Pods", "pods": {"metric": {"name": "x"}, "target": target}}
    sets = {
        path.stem: render(None, path, kube_version=f"{version}.0")
        for path in EXAMPLE_FILES
        # It mounts images as volumes.
        if path.stem != "air-gapped" or version not in {"1.31", "1.32"}
    }
    sets["hpa"] = render_minimal({"autoscaling": {"kind": "hpa", "hpa": {"metrics": [hpa]}}})
    sets["mtls"] = render_minimal({
        "config": {"kafka": {"security_protocol": "ssl"}}, "autoscaling": {"kind": "keda"},
        "auth": {"tls": {"caSecret": "a", "clientSecret": "b", "privateKeyPasswordKey": "c"}},
    })  # fmt: skip
    relabel = [{"action": "replace", "targetLabel": "job", "replacement": "own"}]
    sets["token"] = render_minimal(merge(merge(DESK, IAM), {
        "topics": {"create": True},
        "metrics": {"monitor": "pod", "relabelings": relabel, "metricRelabelings": relabel,
                    "rules": {"enabled": True, "jobs": ["own"]}},
        "extraContainers": [{"name": "shipper", "image": "registry.example/shipper:1"}],
    }))  # fmt: skip
    sets["pod"] = render_minimal({
        "env": {"NODE": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        "envFrom": [{"secretRef": {"name": "more"}}],
        "serviceAccount": {"automountToken": True},
        "resources": {"claims": [{"name": "gpu"}]},
        "podSpec": {"dnsPolicy": "ClusterFirst", "hostUsers": False},
        "workerPodSpec": {"schedulerName": "volcano", "priorityClassName": "high",
                          "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "a"}]},
        "autoscaling": {"kind": "keda", "keda": {
            "advanced": {"restoreToOriginalReplicaCount": True},
            "triggers": [{"type": "cron", "metadata": {
                "timezone": "UTC", "start": "0 7 * * *", "end": "0 9 * * *",
                "desiredReplicas": "4"}}]}},
        "config": {"kafka": {"registry": {"url": "https://registry:8081"}}},
    })  # fmt: skip
    page = (ROOT / "docs" / "backfill.md").read_text(encoding="utf-8")
    sets["backfill"] = [yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])]
    return [
        {"from": f"{name} on {version}", "version": version, "document": document}
        for name, documents in sets.items()
        for document in documents
    ]


@pytest.mark.parametrize(
    "versions", [VERSIONS[::5], pytest.param(VERSIONS, marks=pytest.mark.long)]
)
def test_every_document_is_valid_for_its_schema(tools: Path, versions: tuple[str, ...]) -> None:
    """Oldest and newest in each change's checks, all in the night."""
    found = [case for version in versions for case in cases(version)]
    assert len(found) > 25 * len(versions)
    assert validate(tools, found) == ""


def checkov(tools: Path, *arguments: str) -> set[str]:
    done = subprocess.run(
        [tools / "checkov", "--skip-download", "--quiet", "--compact", "-o", "json", *arguments],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    reports = json.loads(done.stdout)
    reports = reports if isinstance(reports, list) else [reports]
    assert sum(report["summary"]["passed"] for report in reports) > 20, done.stderr
    return {check["check_id"] for report in reports for check in report["results"]["failed_checks"]}


def exceptions(group: str) -> dict[str, str]:
    """The rules that are broken on purpose, each with its reason."""
    return dict(yaml.safe_load((HERE / "checkov.yaml").read_text(encoding="utf-8"))[group])


def test_checkov_finds_only_the_listed_exceptions_in_the_chart(tools: Path, tmp_path: Path) -> None:
    for path in EXAMPLE_FILES:
        documents = render(None, path)
        (tmp_path / path.name).write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    found = checkov(tools, "-d", str(tmp_path), "--framework", "kubernetes")
    assert found == exceptions("kubernetes").keys()


def test_checkov_finds_only_the_listed_exceptions_in_the_dockerfile(tools: Path) -> None:
    found = checkov(tools, "-f", str(ROOT / "Dockerfile"), "--framework", "dockerfile")
    assert found == exceptions("dockerfile").keys()
