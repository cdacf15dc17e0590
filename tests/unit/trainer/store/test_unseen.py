"""No adapter is published on the evaluation of messages that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.store.conftest import DATASET, HOLDOUT, Clerk, MakeRun
from trainer.store.evidence import read_evidence
from trainer.store.unseen import judge_unseen
from worker.contract import read_manifest
from worker.contract.store import find_adapter

OTHER = "d2" * 32
PROOF: dict[str, Any] = {
    "trained_on": DATASET,
    "evaluated_on": OTHER,
    "holdout_sha256": HOLDOUT,
    "similarity": 0.7,
    "seen_messages": 900,
    "holdout_messages": 300,
    "copies": 0,
    "near_copies": 0,
    "same_ids": 0,
}


def judged(run: Path) -> tuple[bool, str]:
    evaluation = read_evidence(run / "evaluation").evaluation
    row = judge_unseen(read_manifest(run / "adapter"), evaluation)
    return row.passed, row.found


def test_an_evaluation_on_another_dataset_does_not_publish(clerk: Clerk, make_run: MakeRun) -> None:
    """Good figures, of messages that may have been trained on: refused, nothing is current, and
    the row says how to mend it."""
    run = make_run("one", dataset={"digest": OTHER})
    code, out, _ = clerk("publish", run, "--json")
    assert code == 3
    result = json.loads(out)
    assert result["current"] is None
    failed = [row for row in result["gate"]["criteria"] if not row["passed"]]
    assert [row["name"] for row in failed] == ["hold-out unseen"]
    assert "--trained-on" in failed[0]["found"]


def test_its_own_dataset_needs_no_proof(make_run: MakeRun) -> None:
    """An evaluation on the dataset that was trained on publishes without one."""
    assert judged(make_run("one"))[0]


def test_a_proof_of_disjointness_publishes(clerk: Clerk, make_run: MakeRun) -> None:
    """Another dataset, compared message by message: the proof stays in the store's record."""
    run = make_run("one", dataset={"digest": OTHER}, disjoint=PROOF)
    code, out, _ = clerk("publish", run, "--json")
    assert code == 0
    digest = json.loads(out)["digest"]
    record = json.loads((run.parent / "store" / f"{digest}.json").read_text())
    assert record["evaluation"]["disjoint"] == PROOF


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"copies": 150, "near_copies": 1}, "151 of its 300 held-out messages"),
        ({"same_ids": 2}, "2 more by their ids"),
        ({"near_copies": 1}, "1 of its 300 held-out messages"),
        ({"trained_on": "d3" * 32}, "another training dataset"),
        ({"evaluated_on": "d3" * 32}, "another hold-out"),
        ({"holdout_sha256": "a2" * 32}, "another hold-out"),
        ({"holdout_messages": 30}, "30 messages where 300 were evaluated"),
        ({"similarity": 0.95}, "nearer than 0.95 only"),
    ],
)
def test_a_proof_of_something_else_is_none(
    make_run: MakeRun, changes: dict[str, Any], said: str
) -> None:
    """Overlap, a proof of other digests or of a part, and one that overlooks rewordings."""
    passed, found = judged(
        make_run("one", dataset={"digest": OTHER}, disjoint={**PROOF, **changes})
    )
    assert not passed
    assert said in found


def test_an_adapter_of_no_known_dataset_is_refused(make_run: MakeRun) -> None:
    """Where the manifest names none, nothing can be shown."""
    run = make_run("one")
    manifest = json.loads((run / "adapter" / "manifest.json").read_text())
    manifest["data"] = {}
    (run / "adapter" / "manifest.json").write_text(json.dumps(manifest))
    passed, found = judged(run)
    assert not passed
    assert "does not say which dataset" in found


def test_a_current_adapter_that_knows_the_hold_out_is_no_measure(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    """It is right about messages that it was trained on: the comparison is refused, whether
    nothing was proven or the proof found copies, and says what to do; with a proof it counts."""
    assert clerk("publish", make_run("old"))[0] == 0
    digest = find_adapter(store).directory.name
    other = {"digest": OTHER, "holdout_sha256": "b2" * 32}
    proof = PROOF | {"holdout_sha256": "b2" * 32}
    new = make_run("new", range(0, 300, 60), dataset=other, disjoint=proof)

    def publish(name: str, **changes: Any) -> tuple[int, str, str]:
        again = make_run(name, dataset=other, adapter={"digest": digest}, **changes)
        return clerk("publish", new, "--current-evaluation", again / "evaluation", "--dry-run")

    code, _, err = publish("unproven")
    assert (code, "no proof that its hold-out was not learnt from" in err) == (2, True), err
    code, _, err = publish("seen", disjoint=proof | {"copies": 4})
    assert (code, "4 of its 300 held-out messages" in err) == (2, True), err
    assert publish("proven", disjoint=proof)[0] == 0
