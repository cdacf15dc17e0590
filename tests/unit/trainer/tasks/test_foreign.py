"""Argilla's and Label Studio's JSON is written and read."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import BadInput
from trainer.tasks.foreign import Form, labelling_config, read_foreign, write_foreign
from worker.contract.exchange import Task, task_id
from worker.contract.text import message_sha256

LABELS = ("billing", "delivery")


def task(text: str, purpose: Any = "check", **more: Any) -> Task:
    sha = message_sha256(text)
    return Task(
        "tasks/1", task_id("d", purpose, sha), f"id of {text}", sha, text, purpose, "d", "monday",
        guideline="3", **more,
    )  # fmt: skip


TASKS = (
    task("where is it", label="billing", suggested="delivery", confidence=0.9),
    task("refund me", "learn", suggested="billing", confidence=0.5),
    task("blind one", "audit"),
)


def answered_in_argilla(values: dict[int, list[tuple[Any, str]]]) -> list[dict[str, Any]]:
    """Return what ``Dataset.records.to_json`` writes after people answered."""
    records = json.loads(write_foreign(TASKS, "argilla"))
    for at, given in values.items():
        records[at]["responses"] = {
            "label": [{"value": value, "user_id": user} for value, user in given]
        }
    return list(records)


def answered_in_studio(values: dict[int, list[tuple[Any, Any]]]) -> list[dict[str, Any]]:
    """Return what a project's JSON export holds after people answered."""

    def choice(value: object) -> list[dict[str, Any]]:
        shown = {"from_name": "label", "to_name": "text", "type": "choices"}
        return [] if value is None else [shown | {"value": {"choices": [value]}}]

    tasks = json.loads(write_foreign(TASKS, "label-studio"))
    for at, made in enumerate(tasks):
        made["annotations"] = [
            {"completed_by": user, "was_cancelled": value is None, "result": choice(value)}
            for value, user in values.get(at, ())
        ]
    return list(tasks)


GIVEN: dict[int, list[tuple[Any, Any]]] = {
    0: [("billing", "a1"), ("delivery", "b2")],
    1: [("billing", "a1"), ("billing", "b2")],
    2: [("none", "a1")],
}
MAKE = {"argilla": answered_in_argilla, "label-studio": answered_in_studio}


@pytest.mark.parametrize("form", ["argilla", "label-studio"])
def test_a_round_trip(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(MAKE[form](GIVEN)))
    found = read_foreign(path, form, TASKS, LABELS)
    assert (found.open, found.disputed) == (0, 1)
    told = [(a.id, a.decision, a.new_label, a.decided_by, a.role) for a in found.answers]
    assert told == [
        ("id of where is it", "accept", "", "user-a1", "opinion"),
        ("id of where is it", "relabel", "delivery", "user-b2", "opinion"),
        ("id of refund me", "relabel", "billing", "user-b2", "outcome"),
        ("id of refund me", "relabel", "billing", "user-a1", "opinion"),
        ("id of refund me", "relabel", "billing", "user-b2", "opinion"),
        ("id of blind one", "drop", "", "user-a1", "outcome"),
    ]
    assert {a.guideline for a in found.answers} == {"3"}
    assert [a.purpose for a in found.answers][-1] == "audit"
    assert {a.message_sha256 for a in found.answers} == {t.message_sha256 for t in TASKS}


@pytest.mark.parametrize("form", ["argilla", "label-studio"])
def test_what_nobody_answered_stays_open(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(MAKE[form]({0: [(None, "a1")]})))
    found = read_foreign(path, form, TASKS, LABELS)
    assert (found.answers, found.open) == ((), 3)


@pytest.mark.parametrize("form", ["argilla", "label-studio"])
def test_an_audit_shows_no_label_there_either(form: Form) -> None:
    """Blind in every tool."""
    made = json.dumps(json.loads(write_foreign(TASKS[2:], form)))
    assert "billing" not in made
    assert "delivery" not in made
    assert json.loads(made)[0].get("predictions") is None
    assert not json.loads(made)[0].get("suggestions")


def test_the_projects_configuration_offers_every_label_once() -> None:
    config = ET.fromstring(labelling_config(["a & b", "c"]))
    assert [choice.get("value") for choice in config.iter("Choice")] == ["a & b", "c", "none"]
    assert config.find("Text").get("value") == "$text"  # type: ignore[union-attr]


def test_a_person_is_a_number_and_never_a_mail_address(tmp_path: Path) -> None:
    """Newer exports of Label Studio contain reviewers' mail addresses."""
    path = tmp_path / "export.json"
    by = {"id": 7, "email": "ann@example.org", "first_name": "Ann"}
    path.write_text(json.dumps(answered_in_studio({1: [("billing", by)]})))
    assert read_foreign(path, "label-studio", TASKS, LABELS).answers[0].decided_by == "user-7"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda records: records[0].update(id="f" * 32), "not in --tasks"),
        (lambda records: records[0]["responses"]["label"][0].update(value="sports"), "taxonomy"),
    ],
)
def test_what_cannot_be_right_is_refused_without_its_text(
    tmp_path: Path, change: Any, says: str
) -> None:
    """The error names the record's place."""
    records = answered_in_argilla(GIVEN)
    change(records)
    path = tmp_path / "export.json"
    path.write_text(json.dumps(records))
    with pytest.raises(BadInput, match=says) as caught:
        read_foreign(path, "argilla", TASKS, LABELS)
    assert "where is it" not in str(caught.value)
    path.write_text("{")
    with pytest.raises(BadInput, match="JSON"):
        read_foreign(path, "argilla", TASKS, LABELS)
