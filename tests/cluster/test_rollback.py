"""The way back at night: the chart's rollback job, started by the runbook's own commands."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.chart.render import ROOT, merge
from tests.cluster.headers import run
from tests.cluster.kubectl import Cluster, Release
from tests.cluster.load import Names
from tests.cluster.test_runbook import typed
from tests.cluster.values import IMAGE, PULL_POLICY, demo_values
from tests.cluster.volumes import LABEL, volume
from worker.contract import Manifest, read_manifest, write_manifest
from worker.contract.store import Pointer, read_pointer, write_pointer

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

TRAINER = os.environ.get("CLERK_TEST_TRAINER_IMAGE", IMAGE)
"""An image with ``clerk-trainer`` in it, which the demo's has."""
CLAIM = "clerk-filing-clerk-adapters"


def fill(store: Path) -> tuple[Manifest, Manifest]:
    """Put two adapters into a store, as publishing them leaves it: the second is current."""
    shipped = ROOT / "worker" / "demo" / "adapter"
    first = read_manifest(shipped)
    second = replace(first, name="support-2")
    for manifest in (first, second):
        shutil.copytree(shipped, store / manifest.digest)
    write_manifest(store / second.digest, second)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pointer = Pointer(second.digest, second.name, now, first.digest, "tests", None, "publish")
    write_pointer(store, pointer)
    return first, second


@pytest.fixture
def store(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """The folder behind the release's claim."""
    folder = tmp_path / "store"
    cluster.apply([volume(folder, cluster.namespace, CLAIM, "")])
    yield folder
    cluster.kubectl("delete", "pvc", CLAIM, "--ignore-not-found")
    cluster.kubectl("delete", "pv", "-l", LABEL, "--wait=false")


@pytest.fixture
def release(cluster: Cluster, store: Path) -> Iterator[Release]:
    """A release with the job and without workers, which nobody needs for it. ``store`` is there."""
    repository, _, tag = TRAINER.rpartition(":")
    own: dict[str, Any] = {
        "replicaCount": 0,
        "config": {"model": {"adapter": "/adapters"}},
        "trainer": {"image": {"repository": repository, "tag": tag, "pullPolicy": PULL_POLICY}},
        "rollback": {"enabled": True},
        "storage": {"adapters": {"mountPath": "/adapters", "claim": {"create": True}}},
    }
    assert store.is_dir()
    values = merge(demo_values("kafka.invalid:9092", Names.fresh("back"), 1), own)
    made = Release(cluster, "clerk", values)
    made.install()
    yield made
    cluster.helm("uninstall", "clerk", "--ignore-not-found", "--wait", "--timeout", "3m")


@pytest.mark.usefixtures("release")
def test_the_adapter_before_this_one_is_current_again(
    cluster: Cluster, store: Path, tmp_path: Path
) -> None:
    """By the three commands of the page; the job's name is the reason in the history."""
    first, second = fill(store)
    wanted = ("create job", "wait --for=condition=complete", "logs job/")
    lines = [
        line
        for line in typed()["Adapters"]
        if line.startswith(tuple(f"kubectl -n $NS {verb}" for verb in wanted))
    ]
    assert len(lines) == len(wanted)
    said = [run(line, tmp_path, {"NS": cluster.namespace}) for line in lines]
    assert first.digest[:12] in said[-1]
    pointer = read_pointer(store)
    assert pointer is not None
    assert (pointer.digest, pointer.event) == (first.digest, "rollback")
    history = (store / "history.jsonl").read_text("utf-8").splitlines()
    assert json.loads(history[-1])["reason"] == "refunds-go-wrong"
    assert second.digest in history[-1]
