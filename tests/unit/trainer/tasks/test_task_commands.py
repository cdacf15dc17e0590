"""``clerk-trainer tasks`` and ``answers``, on a dataset of three labels."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.trainer_world import call
from trainer.dataset.folder import Dataset, open_holdout
from worker.common.review_files import read_answers, save_answers
from worker.contract.exchange import Answer, read_tasks
from worker.contract.text import message_sha256

pytestmark = pytest.mark.slow

Make = Callable[[int, int], list[tuple[str, str]]]


@pytest.fixture
def inbox(tmp_path: Path, sealed: Dataset, make_messages: Make) -> Path:
    """Return a file of new messages: fresh ones, a copy of each, and copies of what is known."""
    texts = [text for text, _ in make_messages(15, 77)]
    texts += [text.upper() for text in texts]
    texts += [example.message for example in (*sealed.train[:5], *sealed.validation[:2])]
    texts += [e.message for e in open_holdout(sealed, purpose="test", subject="test")[:5]]
    path = tmp_path / "inbox.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"n{at}", "message": t}) + "\n" for at, t in enumerate(texts))
    )
    return path


def test_learning_asks_each_message_once_over_all_batches(
    tmp_path: Path, sealed: Dataset, inbox: Path
) -> None:
    asked: list[Path] = []
    keys: list[str] = []
    for number in range(3):
        out = tmp_path / f"{number}.jsonl"
        more = [word for path in asked for word in ("--asked", path)]
        code, result, error = call(
            *("tasks", sealed.directory, "--for", "learn", "--messages", inbox, "--size", 6),
            *("--out", out, "--guideline", 4, "--json", *more),
        )
        assert code == 0, error
        assert result["count"] == 6
        made = read_tasks(out)
        keys += [task.text.casefold() for task in made]
        asked.append(out)
    assert len(set(keys)) == 18
    known = {example.key for example in (*sealed.train, *sealed.validation)}
    held = {e.key for e in open_holdout(sealed, purpose="test", subject="test")}
    assert not set(keys) & (known | held)
    assert {task.guideline for task in made} == {"4"}
    assert all(task.neighbours and task.scores and task.label is None for task in made)
    assert all(near.message_id for task in made for near in task.neighbours)
    assert stat.S_IMODE(asked[0].stat().st_mode) == 0o640
    texts = [json.loads(line)["message"] for line in inbox.read_text().splitlines()]
    told = [Answer("x", message_sha256(text), "drop") for text in texts]  # decisions count, too
    save_answers(tmp_path / "told.csv", told)
    code, _, error = call(
        *("tasks", sealed.directory, "--for", "learn", "--messages", inbox),
        *("--asked", tmp_path / "told.csv", "--out", tmp_path / "out.jsonl"),
    )
    assert code == 2
    assert "no message is left" in error


def test_the_adapter_in_service_may_judge(
    tmp_path: Path, encoder_run: Path, sealed: Dataset, inbox: Path
) -> None:
    code, result, error = call(
        *("tasks", sealed.directory, "--for", "learn", "--messages", inbox, "--size", 5),
        *("--adapter", encoder_run / "adapter", "--out", tmp_path / "a.jsonl", "--json"),
    )
    assert code == 0, error
    assert result["by"] == "adapter tiny-encoder"
    for task in read_tasks(tmp_path / "a.jsonl"):
        assert task.scores is not None
        assert sum(task.scores.values()) == pytest.approx(1, abs=0.01)
        assert task.suggested == max(task.scores, key=task.scores.__getitem__)


def test_doubted_labels_are_asked_with_their_suggestion(tmp_path: Path, sealed: Dataset) -> None:
    out = tmp_path / "check.jsonl"
    code, _, error = call("tasks", sealed.directory, "--for", "check", "--out", out)
    assert code == 0, error
    for task in read_tasks(out):
        assert task.purpose == "check"
        assert task.label_source == "export"
        assert task.suggested not in {None, task.label}


def test_a_sample_of_a_file_is_random_and_blind(tmp_path: Path, inbox: Path) -> None:
    """Each text once, in random order, without a dataset: nobody has labelled anything yet."""
    texts = {json.loads(line)["message"].casefold() for line in inbox.read_text().splitlines()}
    out, fewer = tmp_path / "all.jsonl", tmp_path / "some.jsonl"
    assert call("tasks", inbox, "--for", "audit", "--out", out)[0] == 0
    assert call("tasks", inbox, "--for", "audit", "--out", fewer, "--size", 7)[0] == 0
    made = read_tasks(out)
    keys = [task.text.casefold() for task in made]
    assert set(keys) == texts
    assert len(keys) == len(texts)
    assert keys != sorted(keys)
    assert [task.id for task in read_tasks(fewer)] == [task.id for task in made[:7]]
    assert {task.purpose for task in made} == {"audit"}
    assert {task.label for task in made} == {None}
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    code, _, error = call("tasks", inbox, "--for", "check", "--out", tmp_path / "no.jsonl")
    assert code == 2
    assert "dataset" in error


def test_tasks_for_other_tools_keep_their_own_beside_them(
    tmp_path: Path, sealed: Dataset, inbox: Path, taxonomy_file: Path
) -> None:
    out = tmp_path / "ask.json"
    code, _, error = call(
        *("tasks", sealed.directory, "--for", "learn", "--messages", inbox, "--size", 4),
        *("--form", "label-studio", "--out", out),
    )
    assert code == 0, error
    exported = json.loads(out.read_text())
    for made in exported:
        result = made.pop("predictions")[0]["result"]
        made["annotations"] = [{"result": result, "was_cancelled": False, "completed_by": 3}]
    (tmp_path / "export.json").write_text(json.dumps(exported))
    assert (tmp_path / "ask.config.xml").exists()
    code, result, error = call(
        *("answers", tmp_path / "export.json", "--form", "label-studio", "--json"),
        *("--tasks", tmp_path / "ask.tasks.jsonl", "--taxonomy", taxonomy_file),
        *("--out", tmp_path / "d.csv"),
    )
    assert code == 0, error
    assert (result["decided"], result["open"]) == (4, 0)
    assert {answer.purpose for answer in read_answers(tmp_path / "d.csv")} == {"learn"}
