"""A busy week on a cluster: people's decisions become a proposal, and their yes a canary.

The jobs come from the chart's CronJob and follow its values; what is trained is a linear head on an
encoder (stand_in/proposal.toml). The release has no workers. The adapter, the dataset, the base and
the desk's exports reach their claims through a pod, as a person would bring them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.render import CHART, merge
from tests.cluster import training
from tests.cluster.conftest import missing
from tests.cluster.kubectl import Cluster, Release
from tests.cluster.load import Names
from tests.cluster.values import IMAGE, LABEL, PULL_POLICY, claim, demo_values, filling_pod, volume
from tests.support.propose_world import gates
from tests.support.trainer_world import call
from trainer.dataset.folder import Dataset, open_dataset
from trainer.model.bases import find_embedding_model
from worker.common.review_files import save_answers
from worker.contract.exchange import (
    Answer,
    Proposal,
    ProposalDecision,
    read_proposal,
    write_decision,
)
from worker.contract.store import read_canary
from worker.contract.text import message_sha256, normalize

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

RECIPE = Path(__file__).parent / "stand_in" / "proposal.toml"
CRONJOB = "cronjob/week-filing-clerk-propose"
PLACES = ("models", "adapters", "data", "decisions", "proposals")
"""Folders at the root of a pod, each on its own claim."""
FEW, MORE, HELD_OUT = 20, 8, 15
"""Messages a label: learnt by the adapter in service, decided since, and held out."""


class Brought:
    """The content of the claims at the beginning of the week, on this machine: ``dataset`` with
    three in ten labels wrong, and ``store`` with its adapter."""

    def __init__(self, folder: Path) -> None:
        base = find_embedding_model()
        if base is None:
            missing("no model for sentence embeddings: the extra 'embeddings'")
        self.base = base
        self.dataset = training.prepare(folder, FEW, HELD_OUT, mislabelled=0.3)
        self.store, run = folder / "store", folder / "run"
        for command in (
            ("train", "--recipe", RECIPE, "--dataset", self.dataset, "--base", base, "--out", run),
            ("evaluate", run / "adapter", "--dataset", self.dataset, "--base", base),
            ("publish", run, "--store", self.store, *gates("--set")),
        ):
            code, _, error = call(*command)
            assert code == 0, error

    def sources(self) -> dict[str, Path]:
        return {"models": self.base, "adapters": self.store, "data": self.dataset}


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Brought:
    if not training.IMAGE:
        missing("CLERK_TEST_TRAINER_IMAGE must name the trainer's image on the nodes")
    return Brought(tmp_path_factory.mktemp("week"))


def values() -> dict[str, Any]:
    """The chart's values: its own steps, with a gate that so few messages can pass."""
    shipped = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    steps = [[*step, *gates()] for step in shipped["trainer"]["propose"]["steps"]]
    claims = {name: {"persistentVolumeClaim": {"claimName": name}} for name in PLACES}
    own: dict[str, Any] = {
        "replicaCount": 0,
        "config": {"model": {"base": "/models", "adapter": "/adapters"}},
        "storage": {
            "models": {"mountPath": "/models", "volume": claims["models"]},
            "adapters": {"mountPath": "/adapters", "volume": claims["adapters"]},
        },
        "trainer": {
            "recipe": RECIPE.read_text(encoding="utf-8"),
            "data": claims["data"],
            "gpuCount": 0,
            "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}},
            "propose": {
                "enabled": True,
                "decisions": claims["decisions"],
                "proposals": claims["proposals"],
                "steps": steps,
            },
        },
    }
    values = merge(demo_values("kafka.invalid:9092", Names.fresh("week"), 1), own)
    return merge(values, training.image_values())


@pytest.fixture
def release(cluster: Cluster, brought: Brought, tmp_path: Path) -> Iterator[Release]:
    """The release, with all claims filled that must be filled before the first job."""
    own_class = None if cluster.exists("storageclass") else ""
    if own_class is not None:
        cluster.apply(
            [volume(tmp_path / name, cluster.namespace, name, own_class) for name in PLACES]
        )
    cluster.apply([claim(name, own_class) for name in PLACES])
    made = Release(cluster, "week", values())
    made.install()
    cluster.apply([filling_pod(IMAGE, PULL_POLICY, {f"/{name}": name for name in PLACES})])
    cluster.kubectl("wait", "--for=condition=Ready", "pod/fill", "--timeout=180s")
    for name, source in brought.sources().items():
        cluster.kubectl("cp", f"{source}/.", f"fill:/{name}")
    yield made
    cluster.helm("uninstall", "week", "--ignore-not-found", "--wait", "--timeout", "3m")
    cluster.kubectl("delete", "pod", "fill", "--grace-period=0", "--force")
    cluster.kubectl("delete", "pvc", *PLACES, "--ignore-not-found")
    cluster.kubectl("delete", "pv", "-l", LABEL, "--wait=false")


def decide(dataset: Dataset, folder: Path) -> tuple[int, int]:
    """Write the desk's export after a week: each wrong label corrected, and new messages with
    labels. Return the count of each."""
    truth = {normalize(each["message"]): each["label"] for each in training.messages("train", FEW)}
    rows = [
        {"id": row.id, "message": row.message, "label": row.label, "is": truth[row.message]}
        for row in (*dataset.train, *dataset.validation)
    ]
    wrong = [row for row in rows if row["label"] != row["is"]]
    new = [
        {"id": f"new-{at}", **each, "is": each["label"]}
        for at, each in enumerate(training.messages("train", MORE, after=FEW))
    ]
    decided = [("check", row) for row in wrong] + [("learn", row) for row in new]
    _export(folder, [_answer(purpose, row) for purpose, row in decided], [*wrong, *new])
    return len(wrong), len(new)


def _answer(purpose: Any, row: dict[str, str]) -> Answer:
    return Answer(
        row["id"], message_sha256(row["message"]), "relabel", row["is"], decided_by="ann",
        purpose=purpose, decided_at="2026-05-06T09:00:00Z",
    )  # fmt: skip


def _export(folder: Path, answers: Sequence[Answer], rows: Sequence[dict[str, str]]) -> None:
    (folder / "proposals").mkdir(parents=True, exist_ok=True)
    save_answers(folder / "decisions.csv", answers)
    lines = (json.dumps({"id": row["id"], "message": row["message"]}) + "\n" for row in rows)
    (folder / "messages.jsonl").write_text("".join(lines), encoding="utf-8")


def test_a_busy_week_becomes_a_proposal_and_a_yes_a_canary(
    cluster: Cluster,
    release: Release,
    brought: Brought,
    tmp_path: Path,
    note: Callable[[str], None],
) -> None:
    """With enough decisions the job writes a proposal and its page, and publishes nothing. After
    a yes, the next job makes it a canary before it handles a week without decisions."""
    exported = tmp_path / "decided"
    relabelled, new = decide(open_dataset(brought.dataset), exported)
    cluster.kubectl("cp", f"{exported}/.", "fill:/decisions")
    _run_job(cluster, "proposal-1", note)
    proposal = _proposal(cluster, "proposal-1", tmp_path)
    changes = proposal.changes
    assert changes["decisions"] == relabelled + new > 30
    assert changes["train_relabelled"] + changes.get("validation_relabelled", 0) == relabelled
    assert changes["new_in_train"] > new / 2, "the rest is near to what is held out"
    assert proposal.current is not None
    assert (proposal.verdict, proposal.current.name) == ("publish", "shop-support-embedding-linear")
    page = cluster.kubectl("exec", "fill", "--", "cat", "/proposals/proposal-1/proposal.html")
    assert "Publish it as a canary?" in page
    assert proposal.headline in page
    note(f"a busy week: {changes}; {proposal.headline} {' '.join(proposal.reasons_for)}")
    assert not _holds(cluster, "/adapters", proposal.adapter.digest)

    _export(exported, [], [])
    write_decision(
        exported / "proposals" / f"{proposal.id}.json",
        ProposalDecision("proposal-decision/1", proposal.id, proposal.adapter.digest, True, "ann",
                         "2026-05-07T09:00:00Z", "looks right"),
    )  # fmt: skip
    cluster.kubectl("cp", f"{exported}/.", "fill:/decisions")
    _run_job(cluster, "proposal-2", note)
    logs = cluster.kubectl("logs", "job/proposal-2", "-c", "step-0")
    assert f"{proposal.id[:8]}: canary." in logs
    logs = cluster.kubectl("logs", "job/proposal-2")
    assert "no proposal: 0 decisions change the dataset" in logs
    cluster.kubectl("cp", "fill:/adapters/canary.json", str(tmp_path / "canary.json"))
    canary = read_canary(tmp_path)
    assert canary is not None
    assert (canary.digest, canary.share) == (proposal.adapter.digest, proposal.canary_share)
    assert _holds(cluster, "/adapters", proposal.adapter.digest)


def _run_job(cluster: Cluster, name: str, note: Callable[[str], None]) -> None:
    cluster.kubectl("create", "job", f"--from={CRONJOB}", name)
    training.await_job(cluster, name, 900, note)


def _proposal(cluster: Cluster, job: str, folder: Path) -> Proposal:
    path = folder / "proposal.json"
    cluster.kubectl("cp", f"fill:/proposals/{job}/proposal.json", str(path))
    return read_proposal(path)


def _holds(cluster: Cluster, folder: str, name: str) -> bool:
    return name in cluster.kubectl("exec", "fill", "--", "ls", folder).split()
