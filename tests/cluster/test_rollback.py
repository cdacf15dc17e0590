"""A rollback at night: the chart's rollback job, started by the runbook's own commands.

The release has no workers, since a rollback needs none. The image is the small one where
CLERK_TEST_TOOLS_IMAGE names it, otherwise the worker's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chart.render import ROOT, merge
from tests.cluster.headers import run
from tests.cluster.kubectl import Cluster, Release
from tests.cluster.load import Names
from tests.cluster.test_runbook import typed
from tests.cluster.values import IMAGE, LABEL, PULL_POLICY, demo_values, filling_pod, volume
from trainer.store.publish import plan_publication, publish_adapter
from worker.contract import read_manifest, write_manifest

pytestmark = pytest.mark.long

TOOLS = os.environ.get("CLERK_TEST_TOOLS_IMAGE", "")
CLAIM = "clerk-filing-clerk-adapters"
CRONJOB = "cronjob/clerk-filing-clerk-rollback"


def publish_three(folder: Path) -> tuple[Path, list[str]]:
    """Publish three adapters; return the store and their digests, oldest first."""
    shipped, store = ROOT / "worker" / "demo" / "adapter", folder / "store"
    digests = []
    for name in ("support-1", "support-2", "support-3"):
        adapter = folder / name
        shutil.copytree(shipped, adapter)
        write_manifest(adapter, replace(read_manifest(shipped), name=name))
        plan = plan_publication(adapter, store, allow_unjudged=True)
        digests.append(publish_adapter(plan, force=True, reason="for the test").digest)
    return store, digests


@pytest.fixture
def digests(cluster: Cluster, tmp_path: Path) -> Iterator[list[str]]:
    """Three adapters in the release's claim."""
    store, found = publish_three(tmp_path)
    if not cluster.exists("storageclass"):
        cluster.apply([volume(tmp_path / "volume", cluster.namespace, CLAIM, "")])
    repository, _, tag = IMAGE.rpartition(":")
    own: dict[str, Any] = {
        "replicaCount": 0,
        "image": {"repository": repository, "tag": tag, "pullPolicy": PULL_POLICY},
        "topics": {"image": TOOLS},
        "config": {"model": {"adapter": "/adapters"}},
        "rollback": {"enabled": True},
        "storage": {"adapters": {"mountPath": "/adapters", "claim": {"create": True}}},
    }
    values = merge(demo_values("kafka.invalid:9092", Names.fresh("back"), 1), own)
    Release(cluster, "clerk", values).install()
    cluster.apply([filling_pod(TOOLS or IMAGE, PULL_POLICY, {"/store": CLAIM})])
    cluster.kubectl("wait", "--for=condition=Ready", "pod/fill", "--timeout=180s")
    cluster.kubectl("cp", f"{store}/.", "fill:/store")
    yield found
    cluster.helm("uninstall", "clerk", "--ignore-not-found", "--wait", "--timeout", "3m")
    cluster.kubectl("delete", "pod", "fill", "--grace-period=0", "--force")
    cluster.kubectl("delete", "pvc", CLAIM, "--ignore-not-found")
    cluster.kubectl("delete", "pv", "-l", LABEL, "--wait=false")


def at_night() -> list[str]:
    """The page's three commands: start it, wait for it, read its log."""
    wanted = ("create job", "wait --for=condition=complete job/", "logs job/")
    lines = [
        line
        for verb in wanted
        for line in typed()["Roll back an adapter"]
        if line.startswith(f"kubectl -n $NS {verb}")
    ]
    assert len(lines) == len(wanted), lines
    return lines


def test_the_adapter_before_this_one_is_current_again(
    cluster: Cluster, digests: list[str], tmp_path: Path, note: Callable[[str], None]
) -> None:
    """By the commands of the page; the job's name is the reason. A second goes back one more,
    and a third, with nothing before it, fails at once and leaves the store as it is."""
    first, second, third = digests
    given = {"NS": cluster.namespace}
    listed = cluster.kubectl("exec", "fill", "--", "clerk-trainer", "list", "--store", "/store")
    assert f"* support-3 ({third[:12]}) is current" in listed
    assert _read(cluster, "current.json")["digest"] == third
    outputs = [run(line, tmp_path, given) for line in at_night()]
    assert f"support-2 ({second[:12]}) is current; it was support-3 ({third[:12]})" in outputs[-1]
    assert _read(cluster, "current.json")["digest"] == second
    job = cluster.get("job", "refunds-go-wrong")["status"]
    note(f"a rollback job: from {job['startTime']} to {job['completionTime']}")

    start, wait, _ = (line.replace("refunds-go-wrong", "still-wrong") for line in at_night())
    for line in (start, wait):
        run(line, tmp_path, given)
    current = _read(cluster, "current.json")
    assert (current["digest"], current["event"]) == (first, "rollback")
    assert [(entry["reason"], entry["previous"]) for entry in _history(cluster)[-2:]] == [
        ("refunds-go-wrong", third),
        ("still-wrong", second),
    ]

    cluster.kubectl("create", "job", f"--from={CRONJOB}", "once-more")
    cluster.kubectl("wait", "--for=condition=failed", "job/once-more", "--timeout=180s")
    assert re.search(r"there is nothing before support-1", cluster.kubectl("logs", "job/once-more"))
    assert len(cluster.get("pods", "-l", "batch.kubernetes.io/job-name=once-more")) == 1
    assert _read(cluster, "current.json") == current


def _read(cluster: Cluster, name: str) -> Any:
    return json.loads(cluster.kubectl("exec", "fill", "--", "cat", f"/store/{name}"))


def _history(cluster: Cluster) -> list[Any]:
    text = cluster.kubectl("exec", "fill", "--", "cat", "/store/history.jsonl")
    return [json.loads(line) for line in text.splitlines()]
