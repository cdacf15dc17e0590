"""A teacher's labels are learned; people's judge."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_world import call
from tests.unit.trainer.dataset.conftest import LABELS, unlike_messages
from tests.unit.trainer.training.test_encoder import linear_recipe
from trainer.artifacts.evaluation import Answer as Answered
from trainer.dataset.folder import (
    Dataset,
    Example,
    open_dataset,
    open_holdout,
)
from trainer.dataset.people import TEACHER_LABELS, TEACHER_POOL, read_taught
from trainer.evaluation.evaluate import count_validation
from trainer.report.page import fresh_holdout, larger_share
from trainer.training.inputs import learns_by_folds
from worker.common.review_files import save_answers
from worker.contract.exchange import Answer, Purpose
from worker.contract.text import message_sha256

Line = dict[str, Any]
Prepare = Callable[..., Dataset]


def messages(count: int, *, seed: int = 1) -> list[Line]:
    """Lines with an id, a message, and its true label."""
    return [
        {"id": f"m{seed}-{at}", "message": text, "label": LABELS[at % len(LABELS)]}
        for at, text in enumerate(unlike_messages(count, seed))
    ]


def teach(rows: Iterable[Line], *, right: float = 0.9, seed: int = 5) -> list[Line]:
    """The same with a teacher's labels."""
    rng = random.Random(seed)
    return [
        {**row, "label": _said(row["label"], rng, right), "label_source": "teacher"} for row in rows
    ]


def _said(label: str, rng: random.Random, right: float) -> str:
    return label if rng.random() < right else rng.choice([each for each in LABELS if each != label])


def decide(rows: Iterable[Line], taught: Iterable[Line], *, drawn: str = "random") -> list[Line]:
    """The same by a person, as ``label --decisions`` writes it."""
    said = {row["id"]: row["label"] for row in taught}
    return [
        {**row, "label_source": "person", "drawn": drawn, "teacher_label": said[row["id"]]}
        for row in rows
    ]


def write(path: Path, rows: Iterable[Line]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def prepare(tmp_path: Path, taxonomy: Path) -> Prepare:
    """Return a function (rows, *options) -> the dataset."""
    made = iter(range(100))

    def run(rows: list[Line], *options: object) -> Dataset:
        number = next(made)
        export = write(tmp_path / f"{number}.jsonl", rows)
        folder = tmp_path / f"data-{number}"
        code, _, error = call(
            *("prepare", "--input", export, "--taxonomy", taxonomy, "--out", folder, *options)
        )
        assert code == 0, error
        return open_dataset(folder)

    return run


@pytest.fixture
def refuse(tmp_path: Path, taxonomy: Path) -> Callable[..., str]:
    """Return a function (rows, *options) -> the error of a command that must fail."""

    def run(rows: list[Line], *options: object) -> str:
        export = write(tmp_path / "refused.jsonl", rows)
        code, _, error = call(
            *("prepare", "--input", export, "--taxonomy", taxonomy),
            *("--out", tmp_path / "refused", *options),
        )
        assert code == 2
        assert len(error.splitlines()) == 1
        return error

    return run


def held(dataset: Dataset) -> tuple[Example, ...]:
    return open_holdout(dataset, purpose="test", subject="test")


def ids(examples: Iterable[Example]) -> set[str]:
    return {each.id for each in examples}


def test_no_teachers_label_judges(prepare: Prepare) -> None:
    """Nobody has to name the column: it is read wherever it is."""
    rows = messages(330)
    taught = teach(rows)
    people = decide(rows[:60], taught)
    dataset = prepare([*people, *taught[60:]])
    theirs = {row["id"] for row in people}
    judging = (*held(dataset), *dataset.validation)
    assert ids(judging) == theirs  # a few decisions are too precious to be learned
    assert 36 <= len(held(dataset)) <= 42  # in proportion of the two shares
    truth = {row["id"]: row["label"] for row in rows}
    assert all(truth[each.id] == each.label for each in judging)
    assert dataset.record["label_sources"]["train"] == {"teacher": len(dataset.train)}

    found = read_taught(dataset)
    assert found is not None
    said = {row["id"]: row["label"] for row in taught}
    assert found.labels == {each.id: said[each.id] for each in held(dataset)}
    assert ids(found.pool).isdisjoint(ids(dataset.train) | theirs)
    assert all(said[each.id] == each.label for each in found.pool)
    assert 20 <= len(found.pool) <= 60  # about 15 % of 270
    assert len(found.pool) + len(dataset.train) == 270
    report = (dataset.directory / "report.md").read_text()
    assert f"Labels by people judge: {len(held(dataset))} are held out" in report
    assert "| by a teacher, set aside |" in report


def test_with_many_decisions_some_are_learned(prepare: Prepare) -> None:
    rows = messages(300)
    taught = teach(rows)
    dataset = prepare([*decide(rows[:200], taught), *taught[200:]])
    assert 42 <= len(held(dataset)) <= 48
    assert 21 <= len(dataset.validation) <= 27
    assert dataset.record["label_sources"]["train"]["person"] > 90
    assert dataset.record["label_sources"]["holdout"] == {"person": len(held(dataset))}


def test_a_teacher_alone_is_refused_with_the_way_out(refuse: Callable[..., str]) -> None:
    error = refuse(teach(messages(90)))
    assert "90 labels are by a teacher and none of them by people" in error
    assert "clerk-trainer tasks MESSAGES --for audit --out sample.jsonl" in error
    error = refuse(messages(90), "--label-source", "teacher")
    assert "none of them by people" in error


def test_a_part_of_a_holdout_by_people_validates_if_nothing_else_can(
    prepare: Prepare, tmp_path: Path
) -> None:
    rows = messages(60, seed=9)
    checked = write(tmp_path / "checked.jsonl", rows)
    dataset = prepare(teach(messages(300)), "--holdout", checked)
    assert ids((*held(dataset), *dataset.validation)) == {row["id"] for row in rows}
    assert len(dataset.validation) in range(18, 25)
    assert "checked.jsonl has all labels by people" in dataset.record["notes"][0]
    # With others the file is the hold-out, and whole.
    others = [{**row, "label_source": "person"} for row in messages(30, seed=3)]
    whole = prepare([*teach(messages(90)), *others], "--holdout", checked)
    assert ids(held(whole)) == {row["id"] for row in rows}
    assert ids(whole.validation) <= {row["id"] for row in others}


def test_the_teachers_mistakes_stay_in_the_holdout(prepare: Prepare, tmp_path: Path) -> None:
    """People's labels in a file of their own: a conflict would drop both labels, so the hold-out
    would lose what the teacher has wrong, and flatter a model that repeats it."""
    rows = messages(300)
    taught = teach(rows, right=0.7)
    people = [{**row, "label_source": "person"} for row in rows[:60]]
    dataset = prepare(taught, "--input", write(tmp_path / "people.jsonl", people))
    assert len(held(dataset)) + len(dataset.validation) == 60
    found = read_taught(dataset)
    assert found is not None
    wrong = [each for each in held(dataset) if found.labels[each.id] != each.label]
    assert len(wrong) >= 5
    assert dataset.record["counts"]["conflicts"]["messages"] == 0
    assert dataset.record["counts"]["replaced_by_people"] == 60


@pytest.mark.parametrize(("purpose", "judges"), [("audit", True), ("check", False)])
def test_only_what_was_drawn_at_random_judges(
    prepare: Prepare, tmp_path: Path, purpose: Purpose, judges: bool
) -> None:
    """A decision on a doubtful label is learned: such messages are harder than others."""
    rows = messages(330)
    taught = teach(rows)
    sampled = decide(rows[:60], taught)
    answers = [
        Answer(
            row["id"], message_sha256(row["message"]), "relabel", row["label"], purpose=purpose,
            task_id="0" * 32,
        )
        for row in rows[60:90]
    ]  # fmt: skip
    save_answers(tmp_path / "decisions.csv", answers)
    given = [*sampled, *taught[60:]]
    decided = prepare(given, "--decisions", tmp_path / "decisions.csv")
    judging = ids((*held(decided), *decided.validation))
    later = {row["id"] for row in rows[60:90]}
    assert len(judging & later) == (0 if not judges else len(judging) - len(judging & ids_of(rows)))
    if judges:
        assert judging & later
    else:
        aside = read_taught(decided)
        assert aside is not None
        # Of the messages that the teacher labelled a random part is set aside, decided or not.
        assert later <= ids(decided.train) | ids(aside.pool)
        assert later & ids(aside.pool)
        assert {each.label for each in aside.pool if each.id in later} <= set(LABELS)
        by_id = {row["id"]: row["label"] for row in taught}
        assert all(each.label == by_id[each.id] for each in aside.pool)


def ids_of(rows: list[Line]) -> set[str]:
    return {row["id"] for row in rows[:60]}


def test_decisions_on_doubtful_messages_judge_with_a_warning_if_there_are_no_others(
    prepare: Prepare,
) -> None:
    rows = messages(300)
    taught = teach(rows)
    dataset = prepare([*decide(rows[:60], taught, drawn="chosen"), *taught[60:]])
    assert len(held(dataset)) + len(dataset.validation) == 60
    assert (
        "Warning: 60 of the messages that judge were chosen"
        in (dataset.directory / "report.md").read_text()
    )
    assert TEACHER_LABELS not in dataset.record["extra_files"]  # no sample, no help by the teacher
    assert TEACHER_POOL not in dataset.record["extra_files"]
    assert read_taught(dataset) is None


def test_nothing_near_a_message_that_judges_or_is_set_aside_is_learned(prepare: Prepare) -> None:
    rows = messages(240)
    near = [
        {**row, "id": f"{row['id']}-near", "message": f"{row['message']} Thanks"} for row in rows
    ]
    taught, twice = teach(rows), teach(near)
    dataset = prepare([*decide(rows[:60], taught), *taught[60:], *twice])
    found = read_taught(dataset)
    assert found is not None
    stem = {each.removesuffix("-near") for each in ids(dataset.train)}
    others = ids((*held(dataset), *dataset.validation, *found.pool))
    assert stem.isdisjoint(each.removesuffix("-near") for each in others)
    # A near-copy of a held-out message is as likely to be set aside as any other.
    assert any(f"{row['id']}-near" in ids(found.pool) for row in rows[:60])


def test_by_time_the_teachers_labels_of_the_last_period_are_set_aside(prepare: Prepare) -> None:
    rows = messages(300)
    for at, row in enumerate(rows):
        row["at"] = f"2026-01-{1 + at // 12:02}T{at % 12:02}:00:00Z"
    taught = teach(rows)
    every_third = [row for at, row in enumerate(rows) if at % 3 == 0]
    theirs = {row["id"] for row in every_third}
    others = [row for row in taught if row["id"] not in theirs]
    dataset = prepare(
        [*decide(every_third, taught), *others], "--split", "time", "--time-column", "at"
    )
    found = read_taught(dataset)
    assert found is not None
    when = {row["id"]: row["at"] for row in rows}
    assert ids(held(dataset)) | ids(dataset.validation) <= theirs
    first = min(when[each.id] for each in dataset.validation)
    last = min(when[each.id] for each in (*held(dataset), *found.pool))
    assert max(when[each.id] for each in dataset.train) < first < last
    assert ids(dataset.train) & theirs  # people's earlier labels are learned


def test_the_order_of_lines_changes_nothing(prepare: Prepare) -> None:
    rows = messages(200)
    taught = teach(rows)
    given = [*decide(rows[:50], taught), *taught[50:]]
    assert prepare(given).digest == prepare(given[::-1]).digest


def test_how_many_more_decisions_it_takes(prepare: Prepare, tmp_path: Path, taxonomy: Path) -> None:
    rows = messages(200)
    taught = teach(rows)
    export = write(tmp_path / "e.jsonl", [*decide(rows[:50], taught), *taught[50:]])
    _, found, _ = call(
        *("prepare", "--input", export, "--taxonomy", taxonomy, "--out", tmp_path / "d", "--json")
    )
    (line,) = [each for each in found["can_show"] if each.startswith("Decisions on about")]
    assert "more messages, drawn at random, would make" in line
    # A promise is not said to be provable on labels that are a teacher's.
    assert not any("embedding-linear" in each for each in found["can_show"])


def test_folds_of_a_teachers_labels_prove_no_promise(prepare: Prepare) -> None:
    """They would count agreement with the teacher as precision."""
    rows = messages(200)
    taught = teach(rows)
    recipe = linear_recipe(Path("run"), Path("base"), Path("data"))
    dataset = prepare([*decide(rows[:40], taught), *taught[40:]])
    assert not learns_by_folds(recipe, dataset)
    assert learns_by_folds(recipe, prepare(rows))
    # The gate sees it if thresholds were chosen on training messages in any other way.
    answers = [
        Answered(
            id=each.id, label=each.label, predicted=each.label, confidence=1.0, review=False,
            off_label_mass=None, unconstrained_in_set=None,
        )
        for each in dataset.train
    ]  # fmt: skip
    assert count_validation(dataset, answers) == {"teacher": len(dataset.train)}


def test_nothing_is_set_aside_where_the_teachers_answers_are_not_known(prepare: Prepare) -> None:
    """Labels by people about messages that the teacher never saw."""
    people = [{**row, "label_source": "person"} for row in messages(60, seed=2)]
    dataset = prepare([*people, *teach(messages(200))])
    assert len(dataset.train) >= 200
    assert not {TEACHER_POOL, TEACHER_LABELS} & set(dataset.record["extra_files"])
    assert read_taught(dataset) is None
    report = (dataset.directory / "report.md").read_text()
    assert f"What the teacher said about {len(held(dataset))} held-out messages is not" in report


def test_no_share_and_no_seed_is_advised_where_all_of_peoples_labels_judge(
    prepare: Prepare,
) -> None:
    """They would give no further held-out message."""
    rows = messages(300)
    taught = teach(rows)
    few = prepare([*decide(rows[:50], taught), *taught[50:]]).record
    many = prepare([*decide(rows[:200], taught), *taught[200:]]).record
    assert larger_share(few, "holdout") == ()
    assert "tasks MESSAGES --for audit" in fresh_holdout(few)[0]
    assert larger_share(many, "holdout")
    assert fresh_holdout(many)[1]
