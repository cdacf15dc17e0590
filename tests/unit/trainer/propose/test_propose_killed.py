"""A proposal that is killed at every file it writes, for two kinds of model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import output_of
from tests.support.propose_world import Make, gates, make_place
from trainer.dataset.folder import open_dataset
from trainer.store.moves import read_history
from worker.contract.exchange import ProposalDecision, read_proposal, write_decision
from worker.contract.store import read_canary, read_pointer

WRITTEN = (
    "request.json", "dataset", "run/adapter", "run/training.json",
    "run/evaluation", "before", "current",
    "proposal.html", "proposal.json",
)  # fmt: skip


def killed(tmp_path: Path, arguments: tuple[Any, ...], *watched: Path) -> list[str]:
    """Run a command to its end through its kills; return where it was killed."""
    given = tmp_path / "given.json"
    folders = [str(path) for path in watched]
    given.write_text(json.dumps([folders, [str(each) for each in arguments]]))
    said = output_of("-m", "tests.support.killed_command", str(given), OMP_NUM_THREADS="1")
    return said.splitlines()


@pytest.mark.long  # a process for each file that is written
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["embedding-linear", "encoder"])
def test_killed_at_each_file_nothing_is_lost_or_counted_twice(
    kind: str, tmp_path: Path, tiny_encoder: Path, taxonomy_file: Path, make_messages: Make
) -> None:
    """With frozen embeddings and with a trained encoder: one canary, one line of history."""
    root, other = tmp_path / "killed", tmp_path / "whole"
    root.mkdir()
    place = make_place(root, kind, tiny_encoder, taxonomy_file, make_messages)
    straight, out = tmp_path / "straight", tmp_path / "proposal"
    # Elsewhere: a second proposal on one hold-out gets less of the error, and another verdict.
    shutil.copytree(root, other)
    twin = place._replace(
        store=other / "store", dataset=other / "dataset", decisions=other / "decisions.csv"
    )
    code, _, error = twin.propose(straight)
    assert code == 0, error
    places = killed(tmp_path, place.command(out), out)
    assert {f"{out}/{name}" for name in WRITTEN} <= set(places)
    whole, fixed = (read_proposal(path / "proposal.json") for path in (straight, out))
    assert fixed.adapter.kind == kind
    for key in ("verdict", "dataset", "changes", "figures", "reasons_for", "reasons_against"):
        assert getattr(fixed, key) == getattr(whole, key), key
    assert not list(out.glob(".*"))
    learnt = open_dataset(out / "dataset").train
    assert {row.id: row.label for row in learnt} == place.truth

    before = len(read_history(place.store))
    decision = tmp_path / "answers" / "answer.json"
    decision.parent.mkdir()
    write_decision(
        decision,
        ProposalDecision("proposal-decision/1", fixed.id, fixed.adapter.digest, True, "ann",
                         "2026-05-06T09:00:00Z"),
    )  # fmt: skip
    carry = ("propose", "--store", place.store, "--out", out, "--json", *gates())
    places = killed(tmp_path, (*carry, "--decided", decision), out, place.store)
    assert f"{out}/decision.json" in places
    assert f"{place.store}/canary.json" in places
    canary, current = read_canary(place.store), read_pointer(place.store)
    assert canary is not None
    assert canary.digest == fixed.adapter.digest
    assert current is not None
    assert current.digest == (fixed.current and fixed.current.digest)
    assert len(read_history(place.store)) == before + 1
