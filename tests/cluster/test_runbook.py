"""The runbook's commands, as written there, on a cluster with a release in it.

The names are the page's: release clerk in the namespace support. Kafka's own shell tools are left
out: they come with its distribution, which is not here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.chart.render import EXAMPLES, ROOT
from tests.cluster.conftest import missing
from tests.cluster.headers import GROUP, NAMES, NAMESPACE, commands, path_with_helm, run
from tests.cluster.kubectl import Cluster, Release, wait_until
from tests.cluster.load import Traffic

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

RUNBOOK = ROOT / "docs" / "operations.md"
SECTIONS = ("First look", "Deploys", "Adapters", "Dead letters", "After an incident")
# Commands that need something missing here or would wait for something else, and why.
LEFT_OUT = {
    "kafka-": "Kafka's shell tools come with its distribution",
    "clerk-trainer": "the trainer is on the machine where adapters are made",
    "clerk-worker compare": "needs a second model",
    "helm upgrade": "the values' file is the reader's; one value is tried below",
    "helm rollback": "tried below, after an upgrade",
    "kubectl -n $NS exec $D -- clerk-trainer list": "the demo's adapter is no store",
    "kubectl -n $NS create job": "the demo has no store that is written to: test_rollback.py",
    "kubectl -n $NS wait --for=condition=complete": "as before",
    "kubectl -n $NS logs job/": "as before",
    "kubectl -n $NS exec $D -- tail": "the demo's adapter is no store, and has no history",
    "kubectl -n $NS exec $D -- clerk-worker adapters": "as before",
    "kubectl -n $NS logs -l $L --prefix --tail=5 --previous": "no container ended before",
}


def typed() -> dict[str, list[str]]:
    """The commands of the page's sections, in order, one line each."""
    text = RUNBOOK.read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    section = ""
    for line in text.splitlines():
        if heading := re.match(r"#{2,3} (.+)", line):
            section = heading[1]
        elif re.match(r"    (kubectl|helm|kcat|clerk-|kafka-)", line):
            found.setdefault(section, []).append(re.sub(r"\s{2,}#.*$", "", line.strip()))
    return found


def test_the_runbooks_commands_work(cluster: Cluster, kafka: str, tmp_path: Path) -> None:
    """Each command of the first sections succeeds and prints something."""
    if shutil.which("kcat") is None:
        missing("kcat is missing: apt-get install kcat")
    assert not cluster.exists("namespace", NAMESPACE), f"the namespace {NAMESPACE} already exists"
    (tmp_path / "helm").symlink_to(ROOT / "helm")
    given = {
        "PATH": path_with_helm(tmp_path / "bin"),
        "NS": NAMESPACE,
        "D": "deployment/clerk-filing-clerk",
        "GROUP": GROUP,
        "OUT": NAMES.outputs,
        "L": "app.kubernetes.io/instance=clerk,app.kubernetes.io/component=worker",
        "B": kafka,
    }
    try:
        for command in commands(EXAMPLES / "cpu-demo.yaml"):
            if not command.startswith("docker "):
                run(command.replace("kafka:9092", kafka), tmp_path, given)
        Release(Cluster(NAMESPACE), "clerk", {}).wait_for_ready(1, 900)
        with Traffic(kafka, NAMES, 1) as traffic:
            traffic.publish(20)
            wait_until("labels", lambda: len(traffic.results) >= 20, 300)
        tried = 0
        for section in SECTIONS:
            for command in typed()[section]:
                if command.startswith(tuple(LEFT_OUT)):
                    continue
                output = run(command, tmp_path, given)
                assert output.strip() or command.startswith("kcat"), f"{command} prints nothing"
                tried += 1
        assert tried >= 7
        _one_value_and_back(tmp_path, given)
    finally:
        cluster.helm("uninstall", "clerk", "-n", NAMESPACE, "--ignore-not-found")
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=240s")


def _one_value_and_back(folder: Path, given: dict[str, str]) -> None:
    """Change a single value with --reset-then-reuse-values, then roll back."""
    run("helm upgrade clerk helm/filing-clerk -n $NS --reset-then-reuse-values "
        "--set config.log.level=warning", folder, given)  # fmt: skip
    assert "warning" in _settings(given)
    assert NAMES.review in _settings(given)
    run("helm rollback clerk -n $NS", folder, given)
    assert "warning" not in _settings(given)


def _settings(given: dict[str, str]) -> str:
    done = subprocess.run(
        ["kubectl", "-n", NAMESPACE, "get", "configmap", "clerk-filing-clerk", "-o", "yaml"],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
