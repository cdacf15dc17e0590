"""From decisions to a canary, with a small real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.propose_world import Make, Place, make_place, write
from tests.support.trainer_world import call
from trainer.artifacts.evaluation import EVALUATION
from trainer.dataset.folder import open_dataset, open_holdout, write_dataset
from trainer.propose import steps
from trainer.store.rules import GateRules
from trainer.training.recipe import load_recipe
from worker.contract.exchange import ProposalDecision, read_proposal, write_decision
from worker.contract.store import read_canary, read_pointer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_encoder: Path,
    taxonomy_file: Path,
    make_messages: Make,
) -> Place:
    """Return a place of frozen embeddings, the quickest."""
    root = tmp_path_factory.mktemp("circle")
    return make_place(root, "embedding-linear", tiny_encoder, taxonomy_file, make_messages)


def test_better_is_proposed_published_and_told(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "proposal"
    code, result, error = place.propose(out)
    assert code == 0, error
    assert result["verdict"] == "publish", result["reasons_against"]
    assert result["changes"]["train_relabelled"] > 40
    page = (out / "proposal.html").read_text()
    assert "Publish it as a canary?" in page
    assert "agreement with the teacher" in page
    for folder in ("run/evaluation", "before", "current"):
        taught = EVALUATION.read(out / folder).taught
        assert taught is not None
        assert (taught.pool, taught.compared) == (15, 300)
    assert place.propose(out)[1] == result  # finished: nothing is made again
    code, _, error = place.propose(out, write(tmp_path / "other.csv", [], {}))
    assert (code, "other inputs (decisions)" in error) == (2, True)

    proposal = read_proposal(out / "proposal.json")
    decision = ProposalDecision(
        "proposal-decision/1", proposal.id, proposal.adapter.digest, True, "ann",
        "2026-05-06T09:00:00Z", "looks right", 0.1,
    )  # fmt: skip
    write_decision(tmp_path / "decision.json", decision)
    code, done, error = place.carry_out(out, tmp_path / "decision.json")
    assert (code, done.get("outcome")) == (0, "canary"), error
    canary = read_canary(place.store)
    assert canary is not None
    assert (canary.digest, canary.share) == (proposal.adapter.digest, 0.1)
    assert "training labels changed" in (canary.reason or "")
    card = (place.store / f"{canary.digest}.README.md").read_text()
    assert "Reason for publishing: proposal" in card
    assert "Decided by ann" in card
    assert place.carry_out(out, tmp_path / "decision.json")[1]["outcome"] == "already"
    first = read_pointer(place.store)
    assert first is not None
    assert call("promote", "--store", place.store)[0] == 0
    measure_the_first(place, out, first.digest)
    assert call("rollback", "--store", place.store, "--reason", "the next test")[0] == 0


def measure_the_first(place: Place, out: Path, first: str) -> None:
    """The next proposal, on a hold-out that has changed: the first of the series is measured there
    too, and shown not to have seen it."""
    made = open_dataset(out / "dataset")
    held = open_holdout(made, purpose="test", subject="test")
    splits = {"train": made.train, "validation": made.validation, "holdout": held[:90]}
    base = write_dataset(out / "changed", name="tiny", taxonomy=made.taxonomy, splits=splits)
    recipe = load_recipe(
        place.recipe, {"base": place.base, "dataset": out / "dataset", "run": out / "next"}
    )
    request = steps.Request(
        place.store, (place.dataset,), (), (), out, recipe, GateRules(), 0.1, 1, place.base
    )
    current = read_pointer(place.store)
    assert current is not None
    record = place.store / f"{current.digest}.json"
    found_better = json.loads(record.read_text())  # so it began a series of its own
    assert found_better["anchor"] is None
    record.write_text(json.dumps(found_better | {"anchor": first}))
    steps._evaluate_anchor(request, base, current.digest, Console(quiet=True))
    found = EVALUATION.read(out / "anchor")
    assert (found.adapter.digest, found.examples) == (first, 90)
    assert found.disjoint is not None
    assert found.disjoint.trained_on == open_dataset(place.dataset).digest


def test_worse_is_refused_and_nobody_can_publish_it(place: Place, tmp_path: Path) -> None:
    rows = open_dataset(place.dataset).train
    names = sorted({row.label for row in rows})
    flipped = {row.id: names[(names.index(place.truth[row.id]) + 1) % len(names)] for row in rows}
    out = tmp_path / "proposal"
    code, result, error = place.propose(out, write(tmp_path / "flipped.csv", rows, flipped))
    assert code == 0, error
    assert result["verdict"] == "refused"
    write_decision(
        tmp_path / "d.json",
        ProposalDecision("proposal-decision/1", result["id"], result["adapter"]["digest"], True,
                         "ann", "2026-05-06T09:00:00Z"),
    )  # fmt: skip
    code, _, error = call("propose", "--store", place.store, "--out", out,
                          "--decided", tmp_path / "d.json")  # fmt: skip
    assert code == 2
    assert "was refused" in error
    assert read_canary(place.store) is None


def test_as_good_is_not_worth_it_and_killed_anywhere_it_goes_on(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after a step and run again, the proposal is that of an uninterrupted run, to the
    digest. (test_propose_killed.py kills it at every file.)"""
    rows = open_dataset(place.dataset).train
    told = write(tmp_path / "same.csv", rows, {row.id: row.label for row in rows})
    out = tmp_path / "killed"

    class Killed(Exception):
        pass

    for name in ("train", "write_proposal"):
        real = getattr(steps, name)

        def stop(*given: Any, real: Any = real, **named: Any) -> Any:
            real(*given, **named)
            raise Killed

        monkeypatch.setattr(steps, name, stop)
        assert place.propose(out, told)[0] == 1
        monkeypatch.setattr(steps, name, real)
    code, result, error = place.propose(out, told)
    assert code == 0, error
    assert result["verdict"] == "not_worth_it"
    assert result["changes"]["train_confirmed"] == len(rows)
    straight = tmp_path / "straight"
    assert place.propose(straight, told)[0] == 0
    first, second = (
        json.loads((folder / "proposal.json").read_text()) for folder in (out, straight)
    )
    for key in ("verdict", "dataset", "changes", "figures"):
        assert first[key] == second[key]
