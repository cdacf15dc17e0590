"""What ``start`` says of files, and what it leaves to a person."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainer.cli import start_command
from trainer.cli.main import app
from trainer.start import verdict
from trainer.start.plan import recipe_text, validation_share
from trainer.training.recipe import load_recipe
from worker.contract import Taxonomy

WORDS = {"delivery": "parcel courier door", "refund": "money back card", "account": "login mail"}


def message(label: str, number: int) -> str:
    return f"please help with my {WORDS[label]} it is number {number} and I have been waiting"


class World:
    """A file of messages, and ``start`` with steps that only write their results."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = tmp_path / "tickets.csv"
        self.out = tmp_path / "first"
        self.ran: list[list[str]] = []
        self.write()
        monkeypatch.setattr(start_command, "run_command", self._run)
        monkeypatch.setattr(verdict, "describe_step", lambda *_, **__: "fine")
        self.passes, self.doubtful = True, 0
        lines, first = ("one", "two", "three"), "Label more messages"

        def end(_: object) -> verdict.End:
            return verdict.End(lines, self.passes, first=first, doubtful=self.doubtful)

        monkeypatch.setattr(verdict, "verdict", end)

    def write(
        self,
        header: Sequence[str] = ("id", "message", "label"),
        change: Callable[[int, str], str] = lambda _, label: label,
        counts: dict[str, int] | None = None,
    ) -> None:
        rows = [
            (f"t{label}{at}", message(label, at), change(at, label))
            for label in WORDS
            for at in range((counts or {}).get(label, 20))
        ]
        with self.file.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])

    def start(self, *options: object, answers: str = "") -> tuple[int, str, str]:
        self.ran = []
        words = ["start", str(self.file), "--out", str(self.out), *map(str, options)]
        done = CliRunner().invoke(app, words, input=answers)
        return done.exit_code, done.stdout, done.stderr

    def _run(self, arguments: Sequence[str], _: Path) -> tuple[int, str]:
        self.ran.append(list(arguments))
        results = {
            "prepare": "data/dataset.json", "check": "data/check.json", "train": "run/README.md",
            "evaluate": "run/evaluation/evaluation.json", "duel": "run/duel/duel.json",
            "report": "run/report.html",
        }  # fmt: skip
        made = self.out / results[arguments[0]]
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("{}")
        return 0, ""

    @property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy.from_toml(self.out / "taxonomy.toml")

    @property
    def prepared(self) -> str:
        return " ".join(self.ran[0])

    def succeed(self, *options: object, answers: str = "") -> str:
        """Return what a run says that must succeed, as one line."""
        code, out, error = self.start(*options, answers=answers)
        assert code == 0, error
        return " ".join(out.split())

    def fail(self, *options: object, answers: str = "") -> str:
        """Return the error of a run that must be refused."""
        code, _, error = self.start(*options, answers=answers)
        assert code == 2
        return error

    def write_answers(self, answers: Iterable[tuple[str, str]], system: str = "Sort.") -> None:
        """Write the file of a fine-tune: (answer, message) pairs."""
        self.file = self.file.with_name("chats.jsonl")
        lines = [
            {"system": system, "prompt": asked, "completion": answer} for answer, asked in answers
        ]
        self.file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


STEPS = ["prepare", "check", "train", "evaluate", "duel", "report"]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_command, "can_ask", lambda _: True)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def test_a_plain_file_takes_no_option_and_shows_no_message(world: World) -> None:
    code, out, error = world.start()
    assert code == 0, error
    assert [each[0] for each in world.ran] == STEPS
    assert "--message-column message --label-column label --id-column id" in world.prepared
    assert "please help" not in out
    assert world.taxonomy.names == ("account", "delivery", "refund")
    for step in STEPS:
        assert f"clerk-trainer {step} " in out


def test_everything_ambiguous_is_named_at_once_with_its_option(world: World) -> None:
    rows = [
        (
            f"{message('refund', at)} now",
            f"{message('account', at)} too",
            "ab"[at % 2],
            "xy"[at % 2],
        )
        for at in range(30)
    ]
    with world.file.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("eins", "zwei", "drei", "vier"), *rows])
        file.write('"never closed,too,a,x\n')
    error = world.fail()
    assert "1 row with a quote that is not closed" in error
    assert re.search("'eins', 'zwei'.*--message-column|--message-column.*'eins', 'zwei'", error)
    assert re.search("'drei', 'vier'.*--label-column|--label-column.*'drei', 'vier'", error)
    assert not world.ran
    named = ("--message-column", "eins", "--label-column", "vier", "--broken-rows", "drop")
    world.succeed(*named)


@pytest.mark.usefixtures("terminal")
def test_a_terminal_is_asked_only_what_is_ambiguous(world: World) -> None:
    """Here: which column is the label, since none has a label's name and values."""
    world.write(
        header=("id", "message", "x"),
        change=lambda at, label: label if at < 10 else f"{label} {at}",
    )
    assert world.succeed(answers="9\n3\n").count("Which one is it?") == 1
    assert "--label-column x" in world.prepared


@pytest.mark.usefixtures("terminal")
def test_a_terminal_is_asked_before_results_are_replaced(world: World) -> None:
    world.succeed()
    world.write(counts={"refund": 19})
    assert "nothing was changed" in world.fail(answers="n\n")
    assert world.ran == []
    world.succeed(answers="y\n")
    assert len(world.ran) == 6


def test_ctrl_c_says_how_to_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_command, "run_command", lambda *_: (130, ""))
    code, _, error = world.start()
    assert code == 130
    assert "interrupted in prepare: run the same command again to continue" in error


def test_every_unreadable_file_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    error = world.fail(tmp_path / "empty.csv", "no.csv")
    assert "empty.csv" in error
    assert "no.csv" in error


def test_a_rare_label_is_left_out_and_shown(world: World) -> None:
    world.write(counts={"account": 4})
    said = "left out: 4 different messages, and a label needs 10 (--minimum-per-label)"
    assert said in world.succeed()
    assert "--unknown-label drop" in world.prepared
    assert world.taxonomy.names == ("delivery", "refund")


def test_chats_of_a_fine_tune_bring_their_labels_and_descriptions(world: World) -> None:
    """An answer that is not listed may be any text, so it is counted and never shown."""
    system = (
        "Labels:\n- delivery: a parcel that is late\n- refund: money\n- press: journalists\n"
        "- account: logging in\n"
    )
    answers = [(label, message(label, at)) for label in WORDS for at in range(20)]
    answers += [("Ann Smith", f"I am Ann {at}") for at in range(3)]
    answers += [("I do not know what Bo wants", "I am Bo again")]
    world.write_answers(answers, system)
    said = world.succeed()
    assert "1 row whose answer is a text and not a label (line 64): left out" in said
    assert (
        "3 rows left out: 1 answer of fewer than 10 different messages, not listed in the "
        "instruction (chats.jsonl:61, chats.jsonl:62, chats.jsonl:63)" in said
    )
    assert "in the instruction without a message, left out: 'press'" in said
    assert not re.search("Ann|Bo", said + (world.out / "taxonomy.toml").read_text("utf-8"))
    described = {each.name: each.description for each in world.taxonomy.labels}
    assert described == {
        "account": "logging in",
        "delivery": "a parcel that is late",
        "refund": "money",
    }
    assert "--unknown-label drop" in world.prepared


def test_a_rare_label_that_the_instruction_lists_is_named(world: World) -> None:
    asked = [("delivery", 20), ("refund", 20), ("account", 4)]
    answers = [(label, message(label, at)) for label, count in asked for at in range(count)]
    world.write_answers(answers, "delivery, refund, account")
    assert "account 4 left out: 4 different messages" in world.succeed()
    assert world.taxonomy.names == ("delivery", "refund")


def test_rows_that_will_be_dropped_and_spellings_of_one_label_are_told(world: World) -> None:
    forms: dict[int, Callable[[str], str]] = {3: str.upper, 7: lambda _: ""}
    world.write(change=lambda at, label: forms.get(at, str)(label))
    said = world.succeed()
    assert "60 rows; left out: 3 without a label" in said
    assert "--unknown-label drop" in world.prepared
    assert "also written 'REFUND'" in said
    assert len(world.taxonomy.names) == 3


@pytest.mark.slow
def test_an_edited_taxonomy_is_kept_and_a_label_that_it_lacks_is_for_a_person(
    world: World,
) -> None:
    world.succeed()
    path = world.out / "taxonomy.toml"
    text = path.read_text("utf-8").replace('"refund"', '"money back"')
    path.write_text(text, encoding="utf-8")
    error = world.fail("--again")
    for said in ("has no 'refund' (20 rows)", "--label-map", "--unknown-label drop"):
        assert said in error
    assert "yours, kept as it is" in world.succeed("--again", "--unknown-label", "drop")
    assert path.read_text("utf-8") == text


@pytest.mark.slow
def test_a_label_map_is_applied_before_the_labels_are_written(world: World, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('refund = "money"\naccount = "money"\n')
    said = world.succeed("--label-map", path)
    assert "money 40" in said
    assert set(world.taxonomy.names) == {"money", "delivery"}
    assert f"--label-map {path}" in world.prepared


def test_a_language_that_the_base_does_not_know_is_told_before_anything_runs(
    world: World,
) -> None:
    assert "languages English" in world.succeed()
    sentence = "Wann kommt der Techniker zu mir nach Hause und was kostet das?"
    rows = [(f"{sentence} Frage {label} {at}", label) for label in WORDS for at in range(20)]
    with world.file.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("message", "label"), *rows])
    said = world.succeed("--again")
    assert "languages German 100%" in said
    assert "note: German 100% of the messages, but all-MiniLM-L6-v2 knows English" in said
    assert said.index("note: German") < said.index("[1/6]")


def labels_of(*names: str) -> str:
    described = (f'[[labels]]\nname = "{name}"\ndescription = "mine: {name}"\n' for name in names)
    return f'name = "own"\nversion = "3"\n{"".join(described)}'


def test_a_taxonomy_that_somebody_wrote_is_kept(world: World, tmp_path: Path) -> None:
    """The one next to the file, if it has all labels, or the one that is named."""
    beside, other = world.file.with_name("taxonomy.toml"), tmp_path / "other.toml"
    beside.write_text(labels_of("refund", "delivery"))
    world.succeed()
    assert world.taxonomy.name != "own", "it lacks a label, so it is another project's"
    world.out = tmp_path / "second"
    beside.write_text(labels_of(*WORDS))
    assert f"taxonomy.toml: copied from {beside}" in world.succeed()
    assert world.taxonomy.labels[0].description.startswith("mine: ")
    other.write_text(labels_of(*WORDS, "parking").replace("mine", "theirs"))
    assert "is there already: edit that one" in world.fail("--taxonomy", other)
    world.out = tmp_path / "third"
    assert f"copied from {other}, without 'parking'" in world.succeed("--taxonomy", other)


def test_a_label_of_a_taxonomy_with_too_few_messages_is_left_out_and_named(world: World) -> None:
    """The rest of the file is as it was written, and the same command continues."""
    mine = world.file.with_name("mine.toml")
    text = labels_of("parking", *WORDS).replace("[[labels]]", "# note\n[[labels]]")
    mine.write_text(text)
    world.write(counts={"refund": 4})
    copied = f"copied from {mine}, without 'parking', 'refund' (too few messages)"
    for said in (copied, "kept as it"):
        assert said in world.succeed("--taxonomy", mine)
        assert world.taxonomy.names == ("delivery", "account")
        assert "mine: account" in (world.out / "taxonomy.toml").read_text()
        assert world.ran == [] or "--unknown-label drop" in world.prepared
    assert mine.read_text() == text
    world.out = world.out.with_name("few")
    mine.write_text(labels_of("parking", "tickets", "account"))
    world.succeed("--taxonomy", mine, "--unknown-label", "drop")
    assert len(world.taxonomy.names) == 3, "prepare says what is missing"


def test_what_does_not_pass_is_not_said_to_be_published(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["clerk-trainer", "start", "tickets.csv", "--out", "first"])
    said = world.succeed()
    assert "# publish it clerk-trainer publish" in said
    assert "start tickets.csv" not in said, "there is nothing to change"
    decide = f"decide the 26 doubtful labels in {world.out / 'data-review.csv'}, then"
    world.doubtful = 26
    said = world.succeed()
    assert "# publish it clerk-trainer publish" in said
    assert f"{decide} train again" in said
    world.passes = False
    said = world.succeed()
    assert "publish it" not in said
    assert f"{decide} continue" in said
    assert "clerk-trainer start tickets.csv --out first --again" in said
    assert f"model.adapter={world.out / 'run' / 'adapter'}" in said
    world.doubtful = 0
    assert "do what the page names first (Label more messages), then continue" in world.succeed()


def test_the_plural_of_a_label_is_asked_about_and_not_joined(world: World) -> None:
    world.write(change=lambda at, label: "refunds" if label == "refund" and at % 2 else label)
    said = world.succeed()
    assert "the same as 'refunds'? --label-map joins them" in said
    assert {"refund", "refunds"} <= set(world.taxonomy.names)


def test_a_changed_file_is_named_and_nothing_is_replaced_unasked(world: World) -> None:
    world.succeed()
    world.succeed()
    assert world.ran == []
    world.write(counts={"refund": 19})
    error = world.fail()
    assert "tickets.csv has changed since the last run" in error
    assert "add --again to replace the results of prepare, check, train" in error
    assert world.ran == []
    said = world.succeed("--again")
    assert len(world.ran) == 6
    assert "To do again: prepare, check, train, evaluate, duel, report." in said


def test_a_failed_step_keeps_its_code_and_is_done_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    does = world._run
    codes = {"check": 3}  # a verdict, which may be no

    def run(words: Sequence[str], log: Path) -> tuple[int, str]:
        problem = "clerk-trainer: no base: give --base DIR\n"
        return (
            (2, problem) if words[0] == "train" else (codes.get(words[0], 0), does(words, log)[1])
        )

    monkeypatch.setattr(start_command, "run_command", run)
    error = world.fail()
    assert "clerk-trainer: no base: give --base DIR" in error
    assert "start.log" in error
    monkeypatch.setattr(start_command, "run_command", does)
    world.succeed()
    assert [each[0] for each in world.ran] == ["train", "evaluate", "duel", "report"]


@pytest.mark.slow
def test_decisions_of_a_reviewer_are_applied_and_survive_a_new_dataset(world: World) -> None:
    """The folder of the dataset is replaced."""
    world.succeed()
    queue = world.out / "data-review.csv"
    columns = "id,message_sha256,message,label,decision,new_label,note,decided_by"
    row = f"trefund1,{'0' * 64},x,refund,drop,,,\n"
    queue.write_text(f"{columns}\n{row}", encoding="utf-8")
    assert "data-review.csv is new" in world.succeed("--again")
    assert f"--decisions {queue}" in world.prepared
    (world.out / "data" / "conflicts.csv").write_text(f"{columns}\n{row}", encoding="utf-8")
    for _ in range(2):
        world.succeed("--again")
    (kept,) = world.out.glob("decided-*.csv")
    assert row.strip() in kept.read_text("utf-8")
    world.write(counts={"refund": 19})
    world.succeed("--again")
    assert f"--decisions {kept}" in world.prepared


@pytest.mark.parametrize("messages", [30, 1999, 2000, 4000, 100_000])
def test_the_recipe_for_any_number_of_messages_is_one(tmp_path: Path, messages: int) -> None:
    """And from the number where an encoder is fine-tuned, enough messages set its thresholds."""
    path = tmp_path / "recipe.toml"
    for sublabels in (False, True):
        path.write_text(recipe_text(messages, sublabels=sublabels))
        folders = {"base": tmp_path, "dataset": tmp_path, "run": tmp_path}
        recipe = load_recipe(path, folders)
        assert bool(recipe.sublabel_weight) == sublabels
    share = validation_share(messages, 0.08)
    assert recipe.kind == ("encoder" if messages >= 2000 else "embedding-linear")
    assert share < 0.2
    assert recipe.kind != "encoder" or share * messages >= 300


def test_a_runs_record_is_a_recipe_of_its_kind(tmp_path: Path) -> None:
    """An encoder has no prompt to check, so its base is not named there."""
    from tests.support.trainer_world import training_json
    from trainer.start.plan import Places, make_steps

    recipe = tmp_path / "training.json"
    recipe.write_text(json.dumps(training_json(recipe={"kind": "encoder"})))
    steps = make_steps(
        Places(tmp_path), ["--input", "a"], [], recipe=recipe, base=tmp_path, sets=()
    )
    (check,) = [step for step in steps if step.name == "check"]
    assert "--base" not in check.command
