"""Every command that a page prints can be run: the command's own parser accepts it, its settings
are read, and the cheap ones are run to their end."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import desk
import trainer
import worker
from desk.cli.main import app as desk_app
from desk.settings import load_settings as load_desk
from tests.support.trainer_world import call, parse
from tests.unit.trainer.check.shop import THINGS
from tests.unit.trainer.report.conftest import Made, put
from tests.unit.trainer.report.page import Page, refuse_unknown_options
from tests.unit.trainer.report.test_dataset_page import TAXONOMY, messages
from trainer.check.findings import CHECK
from trainer.cli.main import app as trainer_app
from trainer.dataset.folder import open_dataset, open_holdout
from trainer.report import page as steps
from trainer.report.dataset_page import write_dataset_report
from trainer.report.run import GateChoice
from trainer.report.run_page import write_report
from trainer.start.plan import Places
from trainer.start.verdict import End, next_commands
from trainer.store.rules import GateRules, load_rules
from trainer.training.recipe import load_recipe
from worker.cli.main import app as worker_app
from worker.settings import load_settings as load_worker

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[4]
RECIPES = {
    "lora-code": "trainer-cpu.toml",
    "encoder": "trainer-encoder.toml",
    "embedding-linear": "trainer-encoder.toml",
}


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a dataset in the working directory, prepared with as many options as go together from
    an export that can be read in only one way."""
    monkeypatch.chdir(tmp_path)
    rows, names = messages(60, 1), list(THINGS)
    rows = [
        (text, names[(names.index(label) + 1) % 3] if at % 15 == 0 else label)
        for at, (text, label) in enumerate(rows)
    ]
    rows += [(text, names[(names.index(label) + 1) % 3]) for text, label in rows[20:23]]
    lines = ["Nachricht;Rubrik"] + [f"{text} für;{label}" for text, label in rows]
    Path("in coming").mkdir()
    Path("in coming/may.csv").write_text("\n".join(lines) + "\n", encoding="cp1252")
    Path("taxonomy.toml").write_text(TAXONOMY, encoding="utf-8")
    prepare(
        *("--input", "in coming/may.csv", "--encoding", "cp1252"),
        *("--label-source", "person", "--strip-quotes", "--seed", 1),
    )
    return Path("data/1")


def prepare(*words: object, out: str = "data/1") -> None:
    columns = ("--message-column", "Nachricht", "--label-column", "Rubrik")
    taxonomy = ("--taxonomy", "taxonomy.toml")
    code, _, error = call("prepare", *words, *columns, *taxonomy, "--out", out, "--json")
    assert code == 0, error


def check_again(data: Path, **figures: dict[str, Any]) -> None:
    """Check a dataset, then let every finding fail, some with other ``figures``."""
    code, _, error = call("check", data, "--embeddings", "none", "--floor", 20, "--json")
    assert code in {0, 3}, error
    record = json.loads((data / CHECK.name).read_text(encoding="utf-8"))
    for finding in record["findings"]:
        finding["verdict"] = "fail"
        finding["figures"] |= figures.get(finding["name"].replace(" ", "_"), {})
    put(data / CHECK.name, record)


def open_often(data: Path) -> None:
    for _ in range(7):
        open_holdout(open_dataset(data), purpose="evaluate", subject="ab" * 32)


def printed(data: Path) -> list[list[str]]:
    write_dataset_report(data, Path("page.html"))
    return Page(Path("page.html").read_text(encoding="utf-8")).commands


def run(words: list[str]) -> Path:
    """Run a printed command, and return the folder that it makes."""
    places = [str(Path(f"made-{len(list(Path().glob('made-*')))}")) if w == "NEW" else w
              for w in words]  # fmt: skip
    code, _, error = call(*places[1:], "--json")
    assert code == 0, f"{shlex.join(places)}: {error}"
    return Path(places[places.index("--out") + 1])


def refuse_broken(words: list[str], kind: str, tmp_path: Path) -> None:
    """Fail if a command line cannot be run with a recipe of this kind."""
    recipe = ROOT / "config" / RECIPES[kind]
    filled = {"BASE": ROOT, "FILE": recipe, "RECIPE": recipe, "STORE": tmp_path, "NEW": "new"}
    places = [str(filled.get(word, word)) for word in words]
    refuse_unknown_options(places)
    if words[0] == "clerk-desk":
        return
    given = parse(words[1], *places[2:])
    if words[1] == "train":
        path = given["recipe"]
        flags = {"dataset": given["dataset"], "run": tmp_path / "next"}
        flags |= {"base": given["base"]} if given["base"] else {}
        sets = dict(each.split("=", 1) for each in given.get("sets") or ())
        assert load_recipe(path, flags | sets).kind == kind
    if words[1] == "publish":
        load_rules(given["gate"], given["sets"] or [])
    if words[1] == "train":
        assert not Path(given["out"]).exists(), f"{given['out']} is taken"


def test_the_printed_prepare_makes_the_same_dataset_but_for_the_change(export: Path) -> None:
    record = open_dataset(export).record
    (line,) = steps.prepare_again(record, ("--seed", "7"))
    words = shlex.split(line)
    for part in ("cp1252", "in coming/may.csv", "person", "taxonomy.toml"):
        assert part in words
    again = open_dataset(run(words))
    assert again.record["settings"] == record["settings"] | {"seed": 7}
    assert again.record["label_sources"].keys() == record["label_sources"].keys()
    (line,) = steps.prepare_again(record, ("--seed", "0"))
    assert open_dataset(run(shlex.split(line))).digest != open_dataset(export).digest
    assert steps.prepare_again(record, ("--seed", "1"), ("--strip-quotes",)) == ()
    unknown = {name: value for name, value in record.items() if name != "options"}
    assert steps.prepare_again(unknown, ("--seed", "7")) == (), "a guess would be another dataset"


def test_every_command_about_a_dataset_runs(export: Path, tmp_path: Path) -> None:
    """With a check that fails everywhere, conflicts, and a hold-out that was opened often."""
    rows = messages(60, 1)
    lines = ["Nachricht;Rubrik"] + [f"{text} für;{label}" for text, label in rows]
    lines += [f"{text} für;{list(dict(rows).values())[-1]}" for text, _ in rows[:6]]
    Path("in coming/june.csv").write_text("\n".join(lines) + "\n", encoding="cp1252")
    data = Path("data/june")
    options = ("--validation-share", "0.2", "--conflicts", "keep-majority", "--seed", 4)
    prepare(*("--input", "in coming/june.csv", "--encoding", "cp1252", *options), out=str(data))
    check_again(data, lengths={"budget": 512})
    open_often(data)
    commands = printed(data)
    assert {"check", "train", "prepare"} <= {words[1] for words in commands}
    ran = set()
    for words in commands:
        refuse_broken(words, "lora-code", tmp_path)
        if words[1] == "prepare" and tuple(words) not in ran:
            made = open_dataset(run(words))
            assert made.digest != open_dataset(data).digest or "--decisions" in words
            ran.add(tuple(words))
    assert len(ran) > 2
    seeds = [words[words.index("--seed") + 1] for words in commands if words[1] == "prepare"]
    assert str(open_dataset(data).record["settings"]["seed"] + 1) in seeds


def test_the_printed_check_keeps_its_options(export: Path) -> None:
    """Its page and its own output, pasted into a shell, check the same way again."""
    queue = Path("to decide.csv")
    options = ("--embeddings", "none", "--floor", "30", "--max-message-tokens", "96")
    code, record, error = call("check", export, *options, "--queue", queue, "--json")
    assert code in {0, 3}, error
    checks = [words for words in printed(export) if words[1] == "check"]
    assert checks
    again = checks[0]
    at = again.index("BASE") if "BASE" in again else 0
    again = [*again[: at - 1], *again[at + 1 :]] if at else again
    assert {"--embeddings", "none", "30", "96", str(queue), "--update"} <= set(again)
    queue.unlink()
    code, repeated, error = call(*again[1:], "--json")
    assert code in {0, 3}, error
    assert (queue.is_file(), repeated["settings"]) == (True, record["settings"])


@pytest.mark.parametrize("kind", RECIPES)
def test_every_command_about_a_run_can_be_run(
    kind: str,
    export: Path,
    made: Made,
    rewrite: Callable[..., None],
    tmp_path: Path,
) -> None:
    """For each kind of model: each gate row failing, each conclusion of a duel, no measurements."""
    recipe = ROOT / "config" / RECIPES[kind]
    base = {"name": "tiny", "revision": "1", "directory": str(ROOT)}
    training = made.run / "training.json"
    rewrite(training, recipe=record_of(kind, recipe), base=base)
    if kind == "embedding-linear":
        epochs = json.loads(training.read_text(encoding="utf-8"))["epochs"][:1]
        rewrite(training, epochs=epochs, best_epoch=1)
    give_options(made.dataset, export)
    for commands in pages(made, rewrite, tmp_path):
        for words in commands:
            refuse_broken(words, kind, tmp_path)


def record_of(kind: str, recipe: Path) -> dict[str, Any]:
    """Return what ``training.json`` holds of a recipe of a kind."""
    places = {"base": Path("b"), "dataset": Path("d"), "run": Path("r")}
    if kind == "embedding-linear":
        text = recipe.read_text(encoding="utf-8")
        text = "".join(
            f"{line}\n" for line in text.splitlines()
            if line.partition(" ")[0] in {"pooling", "seed"}
        )  # fmt: skip
        recipe = Path("linear.toml")
        recipe.write_text(f'kind = "embedding-linear"\n{text}', encoding="utf-8")
    return load_recipe(recipe, places).to_record()


def give_options(dataset: Path, export: Path) -> None:
    """Let a dataset be of the export, as its manifest goes."""
    path = dataset / "dataset.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    of = open_dataset(export).record
    put(path, record | {"options": of["options"]})


def pages(made: Made, rewrite: Callable[..., None], tmp_path: Path) -> Iterator[list[list[str]]]:
    """Yield the commands of a run's page in every state that changes the steps."""

    def commands(choice: GateChoice | None = None) -> list[list[str]]:
        write_report(made.run, tmp_path / "page.html", gate=choice)
        return Page((tmp_path / "page.html").read_text(encoding="utf-8")).commands

    usual = GateRules()
    for rules in (
        GateRules(accuracy=0.85),
        GateRules(accuracy=0.92),
        GateRules(accuracy=0.999, label_recall=0.99, ece=0.0, unconstrained_share=0.0),
        replace(usual, macro_f1=0.999),
    ):
        yield commands(GateChoice(rules=rules))
    yield commands(GateChoice(tmp_path / "empty", GateRules(accuracy=0.85)))
    training = json.loads((made.run / "training.json").read_text(encoding="utf-8"))
    rewrite(made.run / "training.json", best_epoch=training["epochs"][-1]["number"])
    duel = json.loads((made.run / "duel/duel.json").read_text(encoding="utf-8"))
    candidates = [each | {"served_as": "embedding-linear"} for each in duel["candidates"]]
    tested = {"margin": 0.01, "tested_baseline": "minilm", "required_messages": 3162}
    tested["candidates"] = candidates
    for conclusion, name in (
        ("undecided", "adapter"),
        ("better", "minilm"),
        ("adapter", "adapter"),
    ):
        rewrite(made.run / "duel/duel.json", conclusion=conclusion, recommendation=name, **tested)
        yield commands()
    for low in (0.5, 0.7):
        rewrite(made.run / "training.json", recipe=training["recipe"] | {"review_precision": low})
        yield commands()
    rewrite(made.run / "training.json", recipe=training["recipe"] | {"review_precision": 0.9999})
    yield commands()
    open_often(made.dataset)
    yield commands()
    (made.dataset / CHECK.name).unlink()
    yield commands()
    for name in ("evaluation", "duel"):
        for path in (made.run / name).iterdir():
            path.unlink()
        (made.run / name).rmdir()
    (made.run / "cost.json").unlink()
    yield commands()


def test_cheap_commands_about_a_run_run(made: Made, tmp_path: Path) -> None:
    """An audit's tasks, a report, and a dry run with the rules of the page: a run that passes with
    special rules passes with the printed command too."""
    page = tmp_path / "page.html"
    store = tmp_path / "store"
    unproven = ("card_delivery", 'a "rare" label')
    rules = GateRules(
        accuracy=0.85, accuracy_by="point", label_unproven=unproven, steering_unreviewed=None
    )
    write_report(made.run, page, gate=GateChoice(store, rules))
    commands = Page(page.read_text(encoding="utf-8")).commands
    ran = set()
    for words in commands:
        if words[1] in {"tasks", "report"} or "--dry-run" in words:
            code, _, error = call(*words[1:])
            assert code == 0, f"{shlex.join(words)}: {error}"
            ran.add(words[1])
    assert ran == {"tasks", "report", "publish"}
    publish = [words for words in commands if words[1] == "publish"]
    for words in publish:
        sets = parse("publish", *words[2:])["sets"]
        assert load_rules(None, sets) == rules
    assert all("--canary" not in words for words in publish), "nothing is current there"


_NAMED = re.compile(
    r"(clerk-(?:trainer|desk|worker)) ([a-z]+(?:-[a-z]+)*)"
    r"((?: (?:--[a-z-]+(?: (?!--)[\w./]+)?|[A-Z]{2,}))*)"
)

_NO_COMMANDS = {"again", "and", "failed", "is", "knows", "proposes", "with"}
"""Words that follow a program's name in a sentence about it."""


def test_a_command_within_a_sentence_exists_and_has_its_options() -> None:
    """In every page, error and line of output of the three programs; a command of the trainer with
    words to fill in is whole, so that it runs once they are."""
    whole = named = 0
    for text in sentences():
        for program, name, rest in _NAMED.findall(text):
            words = shlex.split(rest)
            known = commands()[program].get(name)
            if known is None:
                assert name in _NO_COMMANDS, f"{program} {name}"
                continue
            assert {word for word in words if word.startswith("--")} <= known, text
            named += 1
            if program == "clerk-trainer" and words[:1] and words[0].isupper():
                parse(name, *words)
                whole += 1
    assert named > 100
    assert whole > 2


@functools.cache
def commands() -> dict[str, dict[str, set[str]]]:
    """Return the options of each command by program, those of its own commands included."""
    programs = {"clerk-trainer": trainer_app, "clerk-desk": desk_app, "clerk-worker": worker_app}
    return {
        program: {
            name: {
                option
                for each in (command, *getattr(command, "commands", {}).values())
                for given in each.params
                for option in (*given.opts, *given.secondary_opts)
            }
            for name, command in get_command(app).commands.items()  # type: ignore[attr-defined]
        }
        for program, app in programs.items()
    }


def sentences() -> Iterator[str]:
    """Yield the string literals in the code of the three programs, in one line each."""
    for package in (trainer, desk, worker):
        for path in Path(package.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                values = node.values if isinstance(node, ast.JoinedStr) else [node]
                parts = [each.value for each in values if isinstance(each, ast.Constant)]
                yield " ".join("".join(part for part in parts if isinstance(part, str)).split())


def test_the_next_commands_of_start_run(tmp_path: Path) -> None:
    places = Places(tmp_path / "my first")
    places.out.mkdir()
    shutil.copy(ROOT / "config/taxonomy.toml", places.taxonomy)
    words = ["start", "a b.csv", "--set", "review_precision=0.9", "--again", "--set", "epochs=2"]
    end = End(("", "", ""), passes=True, lesser=0.85)
    found = [shlex.split(line) for _, line in next_commands(places, end, words)]
    lower = found.pop(1)
    assert lower[1:] == [
        "start", "a b.csv", "--set", "epochs=2", "--set", "review_precision=0.85", "--again",
    ]  # fmt: skip
    assert [words[:2] for words in found] == [
        ["clerk-trainer", "publish"], ["clerk-worker", "run"], ["clerk-desk", "run"],
    ]  # fmt: skip
    parse("publish", *found[0][2:])
    work, review = ([words[at + 1] for at, word in enumerate(words) if word == "-s"]
                    for words in found[1:])  # fmt: skip
    serving = load_worker(None, work).settings
    assert (serving.model.adapter, serving.kafka.input_topics) == (places.store, ("TOPIC",))
    assert load_desk(None, review).settings.project.taxonomy == places.taxonomy


def test_a_training_is_repeated_from_its_record(
    made: Made, rewrite: Callable[..., None], tmp_path: Path
) -> None:
    """``train --recipe RUN/training.json`` reads the settings that were used, flags included."""
    used = record_of("lora-code", ROOT / "config/trainer-cpu.toml") | {"epochs": 7}
    base = {"name": "own", "revision": "local", "directory": str(tmp_path)}
    rewrite(made.run / "training.json", recipe=used, base=base)
    places = {"dataset": Path("d"), "run": Path("r")}
    again = load_recipe(made.run / "training.json", places)
    assert (again.epochs, again.base) == (7, tmp_path), "no search finds a folder of the user's"
    assert load_recipe(made.run / "training.json", places | {"epochs": 9}).epochs == 9
