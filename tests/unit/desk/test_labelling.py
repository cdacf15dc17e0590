"""Labelling a file by hand: what is asked next, what is drawn at random, and the file of labels."""

from __future__ import annotations

import csv
import json
import random
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from desk.core.items import is_drawn
from desk.errors import Refused
from desk.labelling import Suggester, Wanted
from desk.service import labelling, reviewing
from desk.service.viewing import Task
from desk.store.database import Database
from desk.store.types import Person
from tests.support.desk_world import DeskWorld, said
from tests.support.known_messages import read_known
from tests.support.trainer_world import call
from worker.contract.exchange import Suggestion, write_suggestions
from worker.contract.taxonomy import Label, Taxonomy
from worker.contract.text import message_sha256

LABELS = ("refund", "delivery", "payment", "other")


def table(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def texts(count: int) -> list[str]:
    return [f"message {number}: where is my parcel?" for number in range(count)]


def load(world: DeskWorld, tmp_path: Path, messages: Sequence[str], name: str = "m.csv") -> int:
    file = table(tmp_path / name, [["message"], *([each] for each in messages)])
    return labelling.load_messages(world.desk, labelling.read_messages(file, None, None))[0]


def next_of(world: DeskWorld, person: Person, batch_id: int) -> Task:
    return world.next(person, batch_id=batch_id)


def decide(
    world: DeskWorld,
    person: Person,
    batch_id: int,
    count: int,
    truth: Callable[[str], str | None] = lambda _: "refund",
) -> list[Task]:
    seen = []
    for _ in range(count):
        task = next_of(world, person, batch_id)
        reviewing.decide(
            world.desk,
            person,
            task.item_id,
            said(world.request(), truth(task.text)),
        )
        seen.append(task)
    return seen


def suggestions(messages: Sequence[str], label: str = "delivery") -> list[Suggestion]:
    return [Suggestion("suggestions/1", message_sha256(each), label, 0.6) for each in messages]


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- reading ---


@pytest.mark.parametrize(
    ("rows", "message", "id_"),
    [
        ([["id", "text"], ["1", "Where is it?"], ["2", "Give it back"]], "text", "id"),
        ([["Queue", "Anliegen"], ["a", "Wo ist das Paket?"], ["b", "Geld her"]], "Anliegen", None),
        ([["key", "subject", "Body"], ["1", "Hi", "Where?"], ["2", "Yo", "When?"]], "Body", "key"),
        # Ids that name two messages are no ids.
        ([["id", "text"], ["1", "Where is it?"], ["1", "Give it back"]], "text", None),
    ],
)  # fmt: skip
def test_columns_are_found_by_their_names_or_their_texts(
    tmp_path: Path, rows: list[list[str]], message: str, id_: str | None
) -> None:
    found = labelling.read_messages(table(tmp_path / "m.csv", rows), None, None)
    assert (found.message_column, found.id_column) == (message, id_)
    assert len(found.tasks) == 2
    assert len({task.message_id for task in found.tasks}) == 2


def test_copies_are_asked_once_and_blank_rows_not_at_all(tmp_path: Path) -> None:
    found = ["Where is it?", " Where is it? ", "   ", "Give it back"]
    rows = [["message", "queue"], *([each, "a"] for each in found)]
    read = labelling.read_messages(table(tmp_path / "m.csv", rows), None, None)
    assert [task.text for task in read.tasks] == ["Where is it?", "Give it back"]
    assert read.notes == (
        "rows without a message, left out: 1",
        "copies of other messages, asked once: 1",
    )


@pytest.mark.parametrize(
    ("rows", "columns", "problem"),
    [
        ([["a", "b"], ["1", "2"]], (None, None), "no column looks like the message"),
        ([["text"], ["Where is it?"]], ("body", None), "no column 'body'. There are: text"),
        ([["text"], [" "]], (None, None), "there is no message in column 'text'"),
        ([["n", "text"], ["1", "Where?"], ["1", "When?"]], (None, "n"), "ids in 'n' occur twice"),
    ],
)
def test_an_unusable_file_is_refused_with_a_remedy(
    tmp_path: Path, rows: list[list[str]], columns: tuple[str | None, str | None], problem: str
) -> None:
    with pytest.raises(Refused, match=problem.replace("?", r"\?")):
        labelling.read_messages(table(tmp_path / "m.csv", rows), *columns)


# --- what is asked next ---


def test_every_fourth_message_is_drawn_at_random_and_seen_without_a_suggestion(
    world: DeskWorld, tmp_path: Path
) -> None:
    messages = texts(200)
    batch_id, ann = load(world, tmp_path, messages), world.person("ann")
    seen = decide(world, ann, batch_id, 10)
    for _ in range(3):
        labelling.plan(world.desk, batch_id, suggestions(messages))
        seen += decide(world, ann, batch_id, 10)
    assert [task.blind for task in seen] == [at % 4 == 3 for at in range(40)]
    suggested = [task.asked.suggested if task.asked else None for task in seen]
    assert suggested == [None if at < 10 or at % 4 == 3 else "delivery" for at in range(40)]


def test_a_model_orders_the_others_and_leaves_the_random_sample_as_it_is(
    world: DeskWorld, tmp_path: Path
) -> None:
    """What is drawn depends on the digests of the messages alone, so no model makes it biased."""
    messages = texts(200)
    batch_id, ann = load(world, tmp_path, messages), world.person("ann")
    wanted = list(messages)
    random.Random(4).shuffle(wanted)
    labelling.plan(world.desk, batch_id, suggestions(wanted))
    seen = decide(world, ann, batch_id, 80)
    drawn = [task.text for task in seen if task.blind]
    chosen = [task.text for task in seen if not task.blind]
    by_digest = sorted(messages, key=message_sha256)
    sample = [text for text in by_digest if is_drawn("labelling", "", message_sha256(text), 0.25)]
    assert drawn == sample[: len(drawn)]
    assert chosen == [text for text in wanted if text in set(chosen)]
    assert set(chosen[:10]) <= set(wanted[:30])


def test_a_longer_file_adds_its_new_messages_and_asks_nothing_again(
    world: DeskWorld, tmp_path: Path
) -> None:
    batch_id, ann = load(world, tmp_path, texts(40)), world.person("ann")
    first = decide(world, ann, batch_id, 30)
    assert load(world, tmp_path, texts(60)) == batch_id
    rest = decide(world, ann, batch_id, 30)
    assert len({task.text for task in first + rest}) == 60


# --- the file ---


def test_the_file_has_what_holds_and_says_who_decided(world: DeskWorld, tmp_path: Path) -> None:
    batch_id, ann = load(world, tmp_path, texts(12)), world.person("ann")
    out = tmp_path / "m.labelled.jsonl"
    assert labelling.write_labelled(world.desk, batch_id, out).labelled == 0
    assert not out.exists()
    first = decide(world, ann, batch_id, 3)
    decide(world, ann, batch_id, 1, lambda _: None)
    undone = decide(world, ann, batch_id, 1)[0]
    assert labelling.write_labelled(world.desk, batch_id, out).labelled == 4
    assert labelling.is_labelled(out)
    reviewing.undo(world.desk, ann)
    done = labelling.write_labelled(world.desk, batch_id, out)
    assert (done.labelled, done.none, done.random) == (3, 1, 3)
    rows = rows_of(out)
    assert {row["message"] for row in rows} == {task.text for task in first}
    assert undone.text not in {row["message"] for row in rows}
    assert {(row["label"], row["label_source"]) for row in rows} == {("refund", "person")}
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


def test_followed_suggestions_are_counted(world: DeskWorld, tmp_path: Path) -> None:
    messages = texts(60)
    batch_id, ann = load(world, tmp_path, messages), world.person("ann")
    labelling.plan(world.desk, batch_id, suggestions(messages))
    decide(world, ann, batch_id, 12, lambda text: "delivery" if "message 1" in text else "other")
    done = labelling.write_labelled(world.desk, batch_id, tmp_path / "out.jsonl")
    right = sum("message 1" in row["message"] for row in rows_of(tmp_path / "out.jsonl")
                if row["drawn"] == "chosen")  # fmt: skip
    assert (done.suggested, done.followed, done.random) == (9, right, 3)


@pytest.mark.slow
def test_prepare_takes_the_file_as_it_is(database: Database, tmp_path: Path) -> None:
    names = ("refund", "payment", "account_access")
    truth = {message: label for message, label in read_known() if label in names}
    world = DeskWorld(
        database, taxonomy=Taxonomy("shop", "1", "", tuple(Label(name) for name in names))
    )
    some = random.Random(1).sample(sorted(truth), 120)
    batch_id, ann = load(world, tmp_path, some), world.person("ann")
    labelling.plan(world.desk, batch_id, suggestions(some, "refund"))
    decide(world, ann, batch_id, 90, truth.__getitem__)
    out = tmp_path / "m.labelled.jsonl"
    labelling.write_labelled(world.desk, batch_id, out)
    listed = "".join(f'[[labels]]\nname = "{label}"\n' for label in names)
    (tmp_path / "t.toml").write_text(f'name = "shop"\nversion = "1"\n{listed}')
    code, _, error = call(
        *("prepare", "--input", out, "--taxonomy", tmp_path / "t.toml"),
        *("--out", tmp_path / "data", "--source-column", "label_source", "--json"),
    )
    assert code == 0, error
    manifest = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert set(manifest["label_sources"]["train"]) == {"person"}


# --- the process that suggests ---


def suggester(world: DeskWorld, tmp_path: Path, batch_id: int, said: list[str]) -> Suggester:
    wanted = Wanted(tmp_path / "m.csv", tmp_path / "t.toml", tmp_path, tmp_path / "out.jsonl", 0)
    return Suggester(world.desk, batch_id, wanted, "message", said.append)


def finish(made: Suggester) -> None:
    """Run the process to its end, and take in what it wrote."""
    made.run_once()
    assert made._process is not None
    made._process.wait()
    made.run_once()


def test_suggestions_are_made_at_the_start_and_after_every_25_decisions(
    world: DeskWorld, tmp_path: Path
) -> None:
    batch_id, ann = load(world, tmp_path, texts(120)), world.person("ann")
    made = suggester(world, tmp_path, batch_id, [])
    file = tmp_path / "suggestions.jsonl"
    given = suggestions(texts(120), "payment")
    write_suggestions(file, given)
    made._command = [sys.executable, "-c", ""]
    finish(made)
    assert next_of(world, ann, batch_id).asked.suggested == "payment"  # type: ignore[union-attr]
    decide(world, ann, batch_id, 24)
    made.run_once()
    assert made._process is None
    decide(world, ann, batch_id, 1)
    finish(made)
    assert len(rows_of(tmp_path / "out.jsonl")) == 25
    made.run_once()
    assert made._process is None


def test_without_the_trainer_labelling_goes_on_and_says_so_once(
    world: DeskWorld, tmp_path: Path
) -> None:
    batch_id, ann = load(world, tmp_path, texts(120)), world.person("ann")
    said: list[str] = []
    made = suggester(world, tmp_path, batch_id, said)
    made._command = [sys.executable, "-c", "raise SystemExit('it needs sklearn')"]
    for _ in range(3):
        finish(made)
        decide(world, ann, batch_id, 25)
    assert said == ["No suggestions: it needs sklearn. Labelling goes on without them."]
    done = labelling.write_labelled(world.desk, batch_id, tmp_path / "out.jsonl")
    assert done.labelled == done.random == 75  # all in a random order


def test_stopping_ends_the_process(world: DeskWorld, tmp_path: Path) -> None:
    batch_id = load(world, tmp_path, texts(10))
    made = suggester(world, tmp_path, batch_id, [])
    made._command = [sys.executable, "-c", "import time; time.sleep(600)"]
    made.run_once()
    process = made._process
    assert process is not None
    made.stop()
    assert process.poll() is not None
