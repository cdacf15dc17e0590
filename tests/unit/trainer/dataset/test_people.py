"""A teacher's labels are learned; people's judge."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.dataset.conftest import LABELS, Made, Prepare, Refused, unlike_messages
from tests.unit.trainer.training.test_encoder import linear_recipe
from trainer.artifacts.evaluation import Answer as Answered
from trainer.dataset.folder import Example
from trainer.dataset.people import TEACHER_LABELS, TEACHER_POOL, Taught, read_taught
from trainer.evaluation.evaluate import count_validation
from trainer.training.inputs import learns_by_folds
from worker.common.review_files import save_answers
from worker.contract.exchange import Answer, Purpose
from worker.contract.text import message_sha256

Line = dict[str, Any]
Make = Callable[..., Made]


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
def make(prepare: Prepare, tmp_path: Path) -> Make:
    """Return a function (rows, *options) -> the dataset."""
    numbers = count()
    return lambda rows, *options: prepare(
        write(tmp_path / f"{next(numbers)}.jsonl", rows), *options
    )


def ids(examples: Iterable[Example]) -> set[str]:
    return {each.id for each in examples}


def judging(made: Made) -> set[str]:
    return ids((*made.held(), *made.validation))


def aside(made: Made) -> Taught:
    found = read_taught(made.dataset)
    assert found is not None
    return found


def test_no_teachers_label_judges(make: Make) -> None:
    """Nobody has to name the column: it is read wherever it is."""
    rows = messages(330)
    taught = teach(rows)
    people = decide(rows[:60], taught)
    made = make([*people, *taught[60:]])
    theirs = {row["id"] for row in people}
    held = made.held()
    assert judging(made) == theirs  # a few decisions are too precious to be learned
    assert 36 <= len(held) <= 42  # in proportion of the two shares
    truth = {row["id"]: row["label"] for row in rows}
    assert all(truth[each.id] == each.label for each in (*held, *made.validation))
    assert made.record["label_sources"]["train"] == {"teacher": len(made.train)}

    found = aside(made)
    said = {row["id"]: row["label"] for row in taught}
    assert found.labels == {each.id: said[each.id] for each in held}
    assert ids(found.pool).isdisjoint(ids(made.train) | theirs)
    assert all(said[each.id] == each.label for each in found.pool)
    assert 20 <= len(found.pool) <= 60  # about 15 % of 270
    assert len(found.pool) + len(made.train) == 270
    assert f"Labels by people judge: {len(held)} are held out" in made.printed
    assert "by a teacher, set aside: " in " ".join(made.printed.split())


def test_with_many_decisions_some_are_learned(make: Make) -> None:
    rows = messages(300)
    taught = teach(rows)
    made = make([*decide(rows[:200], taught), *taught[200:]])
    assert 42 <= len(made.held()) <= 48
    assert 21 <= len(made.validation) <= 27
    sources = made.record["label_sources"]
    assert sources["train"]["person"] > 90
    assert sources["holdout"] == {"person": len(made.held())}


def test_a_teacher_alone_is_refused_with_the_way_out(refused: Refused, tmp_path: Path) -> None:
    error = refused(write(tmp_path / "taught.jsonl", teach(messages(90))))
    assert "90 labels are by a teacher and none of them by people" in error
    assert "clerk-trainer tasks MESSAGES --for audit --out sample.jsonl" in error
    plain = write(tmp_path / "plain.jsonl", messages(90))
    assert "none of them by people" in refused(plain, "--label-source", "teacher")


def test_a_part_of_a_holdout_by_people_validates_if_nothing_else_can(
    make: Make, tmp_path: Path
) -> None:
    rows = messages(60, seed=9)
    checked = write(tmp_path / "checked.jsonl", rows)
    made = make(teach(messages(300)), "--holdout", checked)
    assert judging(made) == {row["id"] for row in rows}
    assert len(made.validation) in range(18, 25)
    assert "checked.jsonl has all labels by people" in made.record["notes"][0]
    # With others the file is the hold-out, and whole.
    others = [{**row, "label_source": "person"} for row in messages(30, seed=3)]
    whole = make([*teach(messages(90)), *others], "--holdout", checked)
    assert ids(whole.held()) == {row["id"] for row in rows}
    assert ids(whole.validation) <= {row["id"] for row in others}


def test_the_teachers_mistakes_stay_in_the_holdout(make: Make, tmp_path: Path) -> None:
    """People's labels in a file of their own: a conflict would drop both labels, so the hold-out
    would lose what the teacher has wrong, and flatter a model that repeats it."""
    rows = messages(300)
    people = [{**row, "label_source": "person"} for row in rows[:60]]
    made = make(teach(rows, right=0.7), "--input", write(tmp_path / "people.jsonl", people))
    assert len(judging(made)) == 60
    found = aside(made)
    assert sum(found.labels[each.id] != each.label for each in made.held()) >= 5
    assert made.counts["conflicts"]["messages"] == 0
    assert made.counts["replaced_by_people"] == 60


@pytest.mark.parametrize(("purpose", "judges"), [("audit", True), ("check", False)])
def test_only_what_was_drawn_at_random_judges(
    make: Make, tmp_path: Path, purpose: Purpose, judges: bool
) -> None:
    """A decision on a doubtful label is learned: such messages are harder than others."""
    rows = messages(330)
    taught = teach(rows)
    answers = [
        Answer(
            row["id"], message_sha256(row["message"]), "relabel", row["label"], purpose=purpose,
            task_id="0" * 32,
        )
        for row in rows[60:90]
    ]  # fmt: skip
    save_answers(tmp_path / "decisions.csv", answers)
    given = [*decide(rows[:60], taught), *taught[60:]]
    made = make(given, "--decisions", tmp_path / "decisions.csv")
    later = {row["id"] for row in rows[60:90]}
    assert bool(judging(made) & later) is judges
    if not judges:
        pool = aside(made).pool
        # Of the messages that the teacher labelled a random part is set aside, decided or not.
        assert later <= ids(made.train) | ids(pool)
        assert later & ids(pool)
        by_id = {row["id"]: row["label"] for row in taught}
        assert all(each.label == by_id[each.id] for each in pool)


def test_decisions_on_doubtful_messages_judge_with_a_warning_if_there_are_no_others(
    make: Make,
) -> None:
    rows = messages(300)
    taught = teach(rows)
    made = make([*decide(rows[:60], taught, drawn="chosen"), *taught[60:]])
    assert len(judging(made)) == 60
    assert "Warning: 60 of the messages that judge were chosen" in made.printed
    # No sample, no help by the teacher.
    assert not {TEACHER_POOL, TEACHER_LABELS} & set(made.record["extra_files"])
    assert read_taught(made.dataset) is None


def test_nothing_near_a_message_that_judges_or_is_set_aside_is_learned(make: Make) -> None:
    rows = messages(240)
    near = [
        {**row, "id": f"{row['id']}-near", "message": f"{row['message']} Thanks"} for row in rows
    ]
    taught, twice = teach(rows), teach(near)
    made = make([*decide(rows[:60], taught), *taught[60:], *twice])
    pool = ids(aside(made).pool)
    stem = {each.removesuffix("-near") for each in ids(made.train)}
    assert stem.isdisjoint(each.removesuffix("-near") for each in judging(made) | pool)
    # A near-copy of a held-out message is as likely to be set aside as any other.
    assert any(f"{row['id']}-near" in pool for row in rows[:60])


def test_by_time_the_teachers_labels_of_the_last_period_are_set_aside(make: Make) -> None:
    rows = messages(300)
    for at, row in enumerate(rows):
        row["at"] = f"2026-01-{1 + at // 12:02}T{at % 12:02}:00:00Z"
    taught = teach(rows)
    theirs = {row["id"] for row in rows[::3]}
    others = [row for row in taught if row["id"] not in theirs]
    made = make([*decide(rows[::3], taught), *others], "--split", "time", "--time-column", "at")
    when = {row["id"]: row["at"] for row in rows}
    assert judging(made) <= theirs
    first = min(when[each.id] for each in made.validation)
    last = min(when[each.id] for each in (*made.held(), *aside(made).pool))
    assert max(when[each.id] for each in made.train) < first < last
    assert ids(made.train) & theirs  # people's earlier labels are learned


def test_the_order_of_lines_changes_nothing(make: Make) -> None:
    rows = messages(200)
    taught = teach(rows)
    given = [*decide(rows[:50], taught), *taught[50:]]
    assert make(given).dataset.digest == make(given[::-1]).dataset.digest


def test_folds_of_a_teachers_labels_prove_no_promise(make: Make) -> None:
    """They would count agreement with the teacher as precision."""
    rows = messages(200)
    taught = teach(rows)
    recipe = linear_recipe(Path("run"), Path("base"), Path("data"))
    made = make([*decide(rows[:40], taught), *taught[40:]])
    assert not learns_by_folds(recipe, made.dataset)
    assert learns_by_folds(recipe, make(rows).dataset)
    # The gate sees it if thresholds were chosen on training messages in any other way.
    answers = [
        Answered(
            id=each.id, label=each.label, predicted=each.label, confidence=1.0, review=False,
            off_label_mass=None, unconstrained_in_set=None,
        )
        for each in made.train
    ]  # fmt: skip
    assert count_validation(made.dataset, answers) == {"teacher": len(made.train)}


def test_nothing_is_set_aside_where_the_teachers_answers_are_not_known(make: Make) -> None:
    """Labels by people about messages that the teacher never saw."""
    people = [{**row, "label_source": "person"} for row in messages(60, seed=2)]
    made = make([*people, *teach(messages(200))])
    assert len(made.train) >= 200
    assert not {TEACHER_POOL, TEACHER_LABELS} & set(made.record["extra_files"])
    told = f"What the teacher said about {len(made.held())} held-out messages is not"
    assert told in made.printed
