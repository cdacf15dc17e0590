"""A training job that takes minutes on a node of two cores: its dataset and the chart's job."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chart.render import ROOT
from tests.cluster.kubectl import Cluster, Failed, condition, wait_until
from tests.support.trainer_world import call
from worker.common.review_files import save_answers

IMAGE = os.environ.get("CLERK_TEST_TRAINER_IMAGE", "")
"""An image with ``clerk-trainer`` and its packages on the nodes; empty: none."""

RECIPE = Path(__file__).parent / "stand_in" / "trainer.toml"
_DATA = ROOT / "worker" / "demo" / "data"


def prepare(folder: Path) -> Path:
    """Prepare a dataset from some of the demo's messages for each label."""
    folder.mkdir(exist_ok=True)
    for name, count in (("train", 12), ("holdout", 4)):
        seen: Counter[str] = Counter()
        taken = []
        for line in (_DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True):
            label = json.loads(line)["label"]
            seen[label] += 1
            if seen[label] <= count:
                taken.append(line)
        (folder / f"{name}.jsonl").write_text("".join(taken), encoding="utf-8")
    code, _, error = call(
        *("prepare", "--input", folder / "train.jsonl", "--holdout", folder / "holdout.jsonl"),
        *("--taxonomy", ROOT / "config" / "taxonomy.toml", "--validation-share", "0.25"),
        *("--out", folder / "dataset", "--json"),
    )
    assert code == 0, error
    return folder / "dataset"


def image_values() -> dict[str, Any]:
    repository, _, tag = IMAGE.rpartition(":")
    return {"trainer": {"image": {"repository": repository, "tag": tag}}}


def await_job(cluster: Cluster, name: str, timeout_s: float, note: Callable[[str], None]) -> None:
    """Wait until a job is complete. Raises Failed with its containers' output if it failed."""

    def ended() -> bool:
        job = cluster.get("job", name)
        if condition(job, "Failed"):
            raise Failed(_words(cluster, name))
        return condition(job, "Complete")

    try:
        wait_until(f"the job {name} is complete", ended, timeout_s, every_s=3)
    except Failed as error:
        raise Failed(f"{error}\n{_words(cluster, name)}") from None
    status = cluster.get("job", name)["status"]
    note(f"the job {name}: from {status['startTime']} to {status['completionTime']}")


def propose_in_a_quiet_week(cluster: Cluster, decisions: Path, note: Callable[[str], None]) -> None:
    """With an export without decisions, the proposal job says so and succeeds."""
    (decisions / "proposals").mkdir()
    save_answers(decisions / "decisions.csv", [])
    (decisions / "messages.jsonl").touch()
    for path in (decisions / "decisions.csv", decisions / "messages.jsonl"):
        path.chmod(0o644)  # a hostPath ignores fsGroup
    cluster.kubectl("create", "job", "--from=cronjob/clerk-filing-clerk-propose", "proposal-1")
    await_job(cluster, "proposal-1", 300, note)
    logs = cluster.kubectl("logs", "job/proposal-1")
    assert "no proposal: 0 decisions change the dataset" in logs


def _words(cluster: Cluster, name: str) -> str:
    selector = f"batch.kubernetes.io/job-name={name}"
    try:
        return cluster.kubectl("logs", "-l", selector, "--all-containers", "--prefix", "--tail=20")
    except Failed as error:  # a container that has not started yet has no log
        return str(error)
