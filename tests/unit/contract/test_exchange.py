"""The files between trainer and desk: read back, or refused with the place."""

from __future__ import annotations

import contextlib
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.common.review_files import read_answers, write_answers
from worker.contract.errors import RecordRefused
from worker.contract.exchange import (
    AdapterName,
    Advice,
    AdviceMessage,
    Answer,
    Figure,
    Finding,
    GateRow,
    Neighbour,
    Proposal,
    ProposalDecision,
    Task,
    parse_tasks,
    read_decision,
    read_proposal,
    read_tasks,
    task_id,
    write_advice,
    write_decision,
    write_proposal,
    write_tasks,
)
from worker.contract.records.identity import read_json
from worker.contract.text import message_sha256

AT = "2024-05-06T09:00:00Z"
DATASET = "a" * 64


def task(text: str = "where is my parcel", **changes: Any) -> Task:
    sha = message_sha256(text)
    values: dict[str, Any] = {
        "schema": "tasks/1",
        "id": task_id(DATASET, changes.get("purpose", "check"), sha),
        "message_id": "T-1",
        "message_sha256": sha,
        "text": text,
        "purpose": "check",
        "dataset": DATASET,
        "batch": "monday",
        "label": "billing",
        "label_source": "export",
        "suggested": "delivery",
        "confidence": 0.9,
        "scores": {"billing": 0.1, "delivery": 0.9},
        "reasons": ("models_disagree",),
        "neighbours": (Neighbour("my parcel is late", "delivery"),),
        "guideline": "3",
    }
    return Task(**(values | changes))


BLIND: dict[str, Any] = {
    "purpose": "audit", "label": None, "label_source": None, "suggested": None,
    "confidence": None, "scores": None, "neighbours": (),
}  # fmt: skip


def test_tasks_are_read_back_and_private(tmp_path: Path) -> None:
    """A task file holds messages: only owner and group may read it."""
    asked = (task(), task("refund please"), task("why two", **BLIND))
    write_tasks(tmp_path / "tasks.jsonl", asked)
    assert read_tasks(tmp_path / "tasks.jsonl") == asked
    assert stat.S_IMODE((tmp_path / "tasks.jsonl").stat().st_mode) == 0o640


def test_neighbours_keep_their_ids_and_errors_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    near = Neighbour("my parcel is late", "delivery", "T-7")
    write_tasks(path, (task(neighbours=(near,)), task("another")))
    assert read_tasks(path)[0].neighbours == (near,)
    found = parse_tasks(["", *path.read_text("utf-8").split("\n")], path.name)
    assert list(found) == [2, 3]
    with pytest.raises(RecordRefused, match=r"tasks.jsonl:3"):
        parse_tasks((path.read_text("utf-8") + "{}").split("\n"), path.name)


@pytest.mark.parametrize(
    "hints",
    [
        {"label": "billing"},
        {"suggested": "billing"},
        {"confidence": 0.5},
        {"neighbours": (Neighbour("a", "b"),)},
    ],
)
def test_an_audit_is_blind(hints: dict[str, Any]) -> None:
    """A program that shows such a task cannot reveal what the hold-out or a model says."""
    with pytest.raises(ValueError, match="blind"):
        task(**(BLIND | hints))


def test_tasks_twice_or_altered_are_refused_without_their_text(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, (task(), task()))
    with pytest.raises(RecordRefused, match=r"tasks.jsonl:2: .* twice"):
        read_tasks(path)
    write_tasks(path, (task("secret words"),))
    path.write_text(path.read_text().replace("secret words", "other words"))
    with pytest.raises(RecordRefused, match="message_sha256") as caught:
        read_tasks(path)
    assert "other words" not in str(caught.value)


ANSWERS = (
    Answer(
        "T-1",
        "b" * 64,
        "relabel",
        "delivery",
        "=1+1",
        "ann",
        "c" * 32,
        "check",
        "monday",
        "3",
        "person",
        AT,
    ),
    Answer("T-1", "b" * 64, "accept", role="opinion", decided_by="bo"),
    Answer("T-2", "d" * 64, "drop"),
)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("decisions/2", "decisions/9", "version"), ("relabel", "perhaps", "decision must be"),
     ("delivery", "", "new_label"), (AT, "yesterday", "not a time"), ("check", "sport", "purpose")],
)  # fmt: skip
def test_wrong_answers_are_refused_with_their_line(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "d.csv"
    path.write_text(write_answers(ANSWERS[:1]).decode().replace(old, new))
    with pytest.raises(RecordRefused, match=rf"d.csv.*2.*{says}"):
        read_answers(path)


ADVICE = Advice(
    "advice/1", AT, "shop", DATASET, "e" * 64, "3", 120, 40, True,
    (Finding("merge", ("billing", "delivery"), "They are one.", "40 of 41.", "Merge.", "2 points.",
             "41 decisions.", {"disagreements": 40.0},
             (AdviceMessage("T-1", "b" * 64, "billing", "where is it", 1),), 0.001),),
)  # fmt: skip
PROPOSAL = Proposal(
    "proposal/1", "1" * 32, AT, "publish", "Yes.", ("better",), ("few messages",),
    AdapterName("new", "2" * 64, "encoder"), AdapterName("old", "3" * 64, "encoder"), "shop",
    DATASET, None, {"decisions": 12},
    (Figure("old hold-out", 300, 0.95, 0.93, 0.02, 0.0, 0.04),),
    (GateRow("accuracy", "at least 0.9", "0.95", True),), 0.05,
)  # fmt: skip
DECISION = ProposalDecision("proposal-decision/1", "1" * 32, "2" * 64, True, "ann", AT, "", 0.1)


def test_advice_proposal_and_decision_are_read_back(tmp_path: Path) -> None:
    write_advice(tmp_path / "a", ADVICE)
    write_proposal(tmp_path / "p", PROPOSAL)
    write_decision(tmp_path / "d", DECISION)
    assert read_json(Advice, (tmp_path / "a").read_text(), "a") == ADVICE
    assert read_proposal(tmp_path / "p") == PROPOSAL
    assert read_decision(tmp_path / "d", PROPOSAL) == DECISION
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_decision_about_another_proposal_is_refused(tmp_path: Path) -> None:
    write_decision(tmp_path / "d", DECISION)
    with pytest.raises(RecordRefused, match="another proposal"):
        read_decision(tmp_path / "d", replace(PROPOSAL, id="9" * 32))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_an_error(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(data)
    for read in (read_tasks, read_answers, read_proposal, read_decision):
        with contextlib.suppress(RecordRefused):
            read(path)
