"""What ``start`` says of files, and what it leaves to a person."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainer.cli import start_command
from trainer.cli.main import app
from trainer.start import verdict
from trainer.start.plan import Places, make_steps, recipe_text, validation_share
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
        monkeypatch.setattr(verdict, "describe_step", lambda *_: "fine")
        monkeypatch.setattr(verdict, "verdict", lambda _: ["one", "two", "three"])

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


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_plain_file_takes_no_option_and_shows_no_message(world: World) -> None:
    code, out, error = world.start()
    assert code == 0, error
    assert [each[0] for each in world.ran] == [
        "prepare", "check", "train", "evaluate", "duel", "report",
    ]  # fmt: skip
    assert "--message-column message --label-column label --id-column id" in world.prepared
    assert "please help" not in out
    names = Taxonomy.from_toml(world.out / "taxonomy.toml").names
    assert names == ("account", "delivery", "refund")
    for step in world.ran:
        assert f"clerk-trainer {step[0]} " in out


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
    code, _, error = world.start()
    assert code == 2
    assert "--message-column" in error
    assert "'eins', 'zwei'" in error
    assert "--label-column" in error
    assert "'drei', 'vier'" in error
    assert "Traceback" not in error
    assert not world.ran
    code, _, error = world.start("--message-column", "eins", "--label-column", "vier")
    assert code == 0, error


def test_a_terminal_is_asked_only_what_is_ambiguous(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: which column is the label, since none has a label's name and values."""
    world.write(
        header=("id", "message", "x"),
        change=lambda at, label: label if at < 10 else f"{label} {at}",
    )
    monkeypatch.setattr(start_command, "can_ask", lambda _: True)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, out, error = world.start(answers="9\n3\n")
    assert code == 0, error
    assert out.count("Which one is it?") == 1
    assert "  3  x\n" in out
    assert "--label-column x" in world.prepared


def test_a_terminal_is_asked_before_results_are_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.start()[0] == 0
    world.write(counts={"refund": 19})
    monkeypatch.setattr(start_command, "can_ask", lambda _: True)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, _, error = world.start(answers="n\n")
    assert code == 2
    assert "nothing was changed" in error
    assert world.ran == []
    assert world.start(answers="y\n")[0] == 0
    assert len(world.ran) == 6


def test_ctrl_c_says_how_to_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_command, "run_command", lambda *_: (130, ""))
    code, _, error = world.start()
    assert code == 130
    assert "interrupted in prepare: run the same command again to continue" in error


def test_every_unreadable_file_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "page.csv").write_text("<html>")
    code, _, error = world.start(tmp_path / "empty.csv", tmp_path / "page.csv", "no.csv")
    assert code == 2
    for name in ("empty.csv", "page.csv", "no.csv"):
        assert name in error


def test_a_rare_label_is_left_out_and_shown(world: World) -> None:
    world.write(counts={"account": 4})
    code, out, error = world.start()
    assert code == 0, error
    said = "left out: 4 different messages, and a label needs 10 (--minimum-per-label)"
    assert said in " ".join(out.split())
    assert "--unknown-label drop" in world.prepared
    assert Taxonomy.from_toml(world.out / "taxonomy.toml").names == ("delivery", "refund")


def test_chats_of_a_fine_tune_bring_their_labels_and_descriptions(world: World) -> None:
    """An answer that is not listed may be any text, so it is counted and never shown."""
    system = (
        "Labels:\n- delivery: a parcel that is late\n- refund: money\n- press: journalists\n"
        "- account: logging in\n"
    )
    answers = [(label, message(label, at)) for label in WORDS for at in range(20)]
    answers += [("Ann Smith", f"I am Ann {at}") for at in range(3)]
    answers += [("Bo Li", "I am Bo"), ("I do not know what Bo wants", "I am Bo again")]
    lines = [
        {
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": asked},
                {"role": "assistant", "content": json.dumps({"label": label}), "weight": at % 30},
            ]
        }
        for at, (label, asked) in enumerate(answers)
    ]
    world.file = world.file.with_name("chats.jsonl")
    world.file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    code, out, error = world.start()
    assert code == 0, error
    said = " ".join(out.split())
    assert "3 rows whose answers all have weight 0 (lines 1, 31, 61): left out" in said
    assert "1 row whose answer is a text and not a label (line 65): left out" in said
    assert (
        "3 rows left out: 2 answers of fewer than 10 different messages, not listed in the "
        "instruction (chats.jsonl:62, chats.jsonl:63, chats.jsonl:64)" in said
    )
    assert "in the instruction without a message, left out: 'press'" in said
    assert "61 rows" in said
    assert not re.search("Ann|Bo", out + (world.out / "taxonomy.toml").read_text("utf-8"))
    described = {each.name: each.description for each in world.taxonomy.labels}
    assert described == {
        "account": "logging in",
        "delivery": "a parcel that is late",
        "refund": "money",
    }
    assert "--unknown-label drop" in world.prepared


def test_a_rare_label_that_the_instruction_lists_is_named(world: World) -> None:
    asked = [("delivery", 20), ("refund", 20), ("account", 4)]
    lines = [
        {"prompt": message(label, at), "completion": label, "system": "delivery, refund, account"}
        for label, count in asked
        for at in range(count)
    ]
    world.file = world.file.with_name("chats.jsonl")
    world.file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    code, out, error = world.start()
    assert code == 0, error
    assert "account 4 left out: 4 different messages" in " ".join(out.split())
    assert world.taxonomy.names == ("delivery", "refund")


def test_any_number_of_answers_that_are_no_labels_is_left_out(world: World) -> None:
    lines = [{"prompt": message(label, at), "completion": label}
             for label in WORDS for at in range(20)]  # fmt: skip
    lines += [{"prompt": f"message {at}", "completion": f"answer {at}"} for at in range(300)]
    world.file = world.file.with_name("chats.jsonl")
    world.file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    code, out, error = world.start()
    assert code == 0, error
    assert "300 rows left out: 300 answers of fewer than 10 different messages" in out
    assert "answer 7" not in out


def test_rows_that_will_be_dropped_are_counted(world: World) -> None:
    world.write(change=lambda at, label: "" if at == 7 else label)
    code, out, error = world.start()
    assert code == 0, error
    assert "60 rows; left out: 3 without a label" in out
    assert "--unknown-label drop" in world.prepared


def test_spellings_of_one_label_are_one(world: World) -> None:
    world.write(change=lambda at, label: label.upper() if at == 3 else label)
    code, out, error = world.start()
    assert code == 0, error
    assert "also written 'REFUND'" in out
    assert len(Taxonomy.from_toml(world.out / "taxonomy.toml").names) == 3


@pytest.mark.slow
def test_an_edited_taxonomy_is_kept_and_a_label_that_it_lacks_is_for_a_person(
    world: World,
) -> None:
    assert world.start()[0] == 0
    path = world.out / "taxonomy.toml"
    text = path.read_text("utf-8").replace('"refund"', '"money back"')
    path.write_text(text, encoding="utf-8")
    code, _, error = world.start("--again")
    assert code == 2
    assert "has no 'refund' (20 rows)" in error
    for option in ("--label-map", "--unknown-label drop"):
        assert option in error
    code, out, _ = world.start("--again", "--unknown-label", "drop")
    assert code == 0
    assert path.read_text("utf-8") == text
    assert "yours, kept as it is" in out


@pytest.mark.slow
def test_a_label_map_needs_the_labels_that_it_maps_to(world: World, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('refund = "money"\naccount = "money"\n')
    code, _, error = world.start("--label-map", path)
    assert code == 2
    assert "taxonomy.toml first" in error
    labels = "".join(f'[[labels]]\nname = "{label}"\n' for label in ("money", "delivery"))
    (world.out / "taxonomy.toml").write_text(f'name = "mine"\nversion = "1"\n{labels}')
    code, _, error = world.start("--label-map", path)
    assert code == 0, error
    assert f"--label-map {path}" in world.prepared


def test_a_changed_file_is_named_and_nothing_is_replaced_unasked(world: World) -> None:
    assert world.start()[0] == 0
    assert world.start()[0] == 0
    assert world.ran == []
    world.write(counts={"refund": 19})
    code, _, error = world.start()
    assert code == 2
    assert "tickets.csv has changed since the last run" in error
    assert "add --again to replace the results of prepare, check, train" in error
    assert world.ran == []
    code, out, _ = world.start("--again")
    assert code == 0
    assert len(world.ran) == 6
    assert "To do again: prepare, check, train, evaluate, duel, report." in out


@pytest.mark.slow
def test_a_changed_option_repeats_only_what_depends_on_it(world: World) -> None:
    assert world.start()[0] == 0
    code, out, _ = world.start("--set", "seed=2", "--again")
    assert code == 0
    assert "train now has --set seed=2" in out
    assert [each[0] for each in world.ran] == ["train", "evaluate", "duel", "report"]


def test_a_failed_step_keeps_its_code_and_is_done_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    does = world._run
    problem = "clerk-trainer: no base: give --base DIR\n"
    monkeypatch.setattr(
        start_command, "run_command",
        lambda words, log: (2, problem) if words[0] == "train" else does(words, log),
    )  # fmt: skip
    code, _, error = world.start()
    assert code == 2
    assert problem.strip() in error
    assert "start.log" in error
    monkeypatch.setattr(start_command, "run_command", does)
    assert world.start()[0] == 0
    assert [each[0] for each in world.ran] == ["train", "evaluate", "duel", "report"]


@pytest.mark.slow
def test_the_check_may_find_something_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    does = world._run
    monkeypatch.setattr(
        start_command, "run_command",
        lambda words, log: (3 if words[0] == "check" else 0, does(words, log)[1]),
    )  # fmt: skip
    assert world.start()[0] == 0


@pytest.mark.slow
def test_decisions_of_a_reviewer_are_applied(world: World) -> None:
    assert world.start()[0] == 0
    queue = world.out / "data-review.csv"
    columns = "id,message_sha256,message,label,decision,new_label,note,decided_by"
    queue.write_text(f"{columns}\ntrefund1,{'0' * 64},x,refund,drop,,,\n", encoding="utf-8")
    code, out, error = world.start("--again")
    assert code == 0, error
    assert "data-review.csv is new" in out
    assert f"--decisions {queue}" in world.prepared


@pytest.mark.slow
def test_decisions_in_the_dataset_survive_a_new_one(world: World) -> None:
    """The folder of the dataset is replaced."""
    assert world.start()[0] == 0
    columns = "id,message_sha256,message,label,decision,new_label,note,decided_by"
    row = f"trefund1,{'0' * 64},x,refund,drop,,,\n"
    (world.out / "data" / "conflicts.csv").write_text(f"{columns}\n{row}", encoding="utf-8")
    for _ in range(2):
        code, _, error = world.start("--again")
        assert code == 0, error
    (kept,) = world.out.glob("decided-*.csv")
    assert row.strip() in kept.read_text("utf-8")
    world.write(counts={"refund": 19})
    assert world.start("--again")[0] == 0
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
    from trainer.start.plan import Request

    recipe = tmp_path / "training.json"
    recipe.write_text(json.dumps(training_json(recipe={"kind": "encoder"})))
    steps = make_steps(Request(Places(tmp_path), ["--input", "a"], [], recipe, base=tmp_path))
    (check,) = [step for step in steps if step.name == "check"]
    assert "--base" not in check.command


def test_the_commands_name_the_folder_and_quote_it(tmp_path: Path) -> None:
    from trainer.start.plan import Request

    places = Places(tmp_path / "my first")
    (recipe := tmp_path / "recipe.toml").touch()
    steps = make_steps(Request(places, ["--input", "a"], [], recipe))
    assert all("my first'" in step.command or "my first/" in step.command for step in steps)
    assert len({step.result for step in steps}) == len(steps)
