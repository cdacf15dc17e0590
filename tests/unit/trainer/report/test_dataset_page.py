"""The page about a dataset shows what prepare and check found, and no hold-out message."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.support.trainer_world import call
from tests.unit.trainer.check.shop import FILLERS, THINGS
from tests.unit.trainer.report.page import Page
from trainer.check.findings import CHECK, SUSPECTS
from trainer.dataset.folder import Example, count_openings, open_dataset, write_dataset
from trainer.dataset.report import count_removed
from trainer.report.dataset_facts import HIDDEN
from trainer.report.dataset_page import write_dataset_report
from trainer.report.page import Report
from worker.contract import Label, Taxonomy

pytestmark = pytest.mark.slow

TAXONOMY = 'name = "shop"\nversion = "1"\n' + "".join(
    f'[[labels]]\nname = "{name}"\ndescription = "all about {name}"\n' for name in THINGS
)


def messages(count: int, seed: int) -> list[tuple[str, str]]:
    """Return unlike (message, label) pairs, ``count`` a label."""
    rng = random.Random(seed)
    found = []
    for label, words in THINGS.items():
        for at in range(count):
            chosen = rng.sample(words, 2) + rng.sample(FILLERS, 7)
            rng.shuffle(chosen)
            found.append((f"{' '.join(chosen)} {seed}{at}", label))
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prepared and checked dataset of an export with copies, conflicts, wrong labels, a
    template, empty messages and mail addresses."""
    folder = tmp_path_factory.mktemp("shop")
    rows = messages(60, 1)
    names = list(THINGS)
    rows = [
        (text, names[(names.index(label) + 1) % 3] if at % 15 == 0 else label)
        for at, (text, label) in enumerate(rows)
    ]
    rows += rows[5:12]
    rows += [(text, names[(names.index(label) + 1) % 3]) for text, label in rows[20:23]]
    rows += [("", names[0]), (f"write to me at someone@example.org about {FILLERS}", names[1])]
    rows += [(f"ticket {n} was closed by the machine", names[2]) for n in (4711, 12, 905)]
    languages = ["en", "de", "en"]
    lines = [
        json.dumps({"text": text, "category": label, "language": languages[at % 3]})
        for at, (text, label) in enumerate(rows)
    ]
    (folder / "export.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "taxonomy.toml").write_text(TAXONOMY, encoding="utf-8")
    data = folder / "data"
    code, _, error = call(
        *("prepare", "--input", folder / "export.jsonl", "--taxonomy", folder / "taxonomy.toml"),
        *("--message-column", "text", "--label-column", "category", "--out", data, "--redact"),
        *("--language-column", "language", "--per-label", 36, "--json"),
    )
    assert code == 0, error
    code, _, error = call("check", data, "--embeddings", "none", "--floor", 20, "--json")
    assert code == 0, error
    return data


def draw(data: Path, tmp_path: Path, *, texts: bool = False) -> tuple[Report, Page, str]:
    out = tmp_path / "page.html"
    report = write_dataset_report(data, out, texts=texts)
    text = out.read_text(encoding="utf-8")
    return report, Page(text), text


def held_out(data: Path) -> list[str]:
    lines = (data / "holdout.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["instruction"] for line in lines]


def test_a_prepared_and_checked_dataset_has_every_section(prepared: Path, tmp_path: Path) -> None:
    report, page, _ = draw(prepared, tmp_path)
    assert all(report.sections.values()), report.sections
    links = [str(attributes["href"]) for tag, attributes in page.tags if tag == "a"]
    assert links[1:] == [f"#{key}" for key in report.sections]


@pytest.mark.parametrize("texts", [False, True])
def test_no_held_out_text_is_in_the_page(prepared: Path, tmp_path: Path, texts: bool) -> None:
    """With texts or without; making the page does not open the hold-out."""
    _, page, text = draw(prepared, tmp_path, texts=texts)
    for message in held_out(prepared):
        assert message not in text
        assert message not in page.words
    assert count_openings(open_dataset(prepared)) == 0
    assert "The hold-out has never been opened" in page.words


def test_texts_are_there_only_if_asked_for(prepared: Path, tmp_path: Path) -> None:
    """Doubtful messages of training and validation; the file is then for owner and group."""
    dataset = open_dataset(prepared)
    own = [example.message for example in (*dataset.train, *dataset.validation)]
    report, page, text = draw(prepared, tmp_path)
    assert not report.with_texts
    assert not any(message in text for message in own)
    report, page, text = draw(prepared, tmp_path, texts=True)
    assert report.with_texts
    assert report.path.stat().st_mode & 0o777 == 0o640
    assert "Private. This page contains customers' messages." in page.words
    check = CHECK.read(prepared)
    figures = next(found.figures for found in check.findings if found.name == SUSPECTS)
    first = figures["surest"][0]["id"]
    message = next(each.message for each in dataset.train + dataset.validation if each.id == first)
    assert message in page.words


def test_every_row_of_the_export_is_accounted_for(prepared: Path, tmp_path: Path) -> None:
    """The rows in use and the rows left out, by reason, add up to the rows read."""
    dataset = open_dataset(prepared)
    counts = dataset.record["counts"]
    removed = count_removed(counts)
    used = sum(file["examples"] for file in dataset.record["files"].values())
    assert sum(removed.values()) + used == counts["rows_read"]
    assert removed["empty"] == 1
    assert removed["exact duplicates of another row"] >= 6
    words = draw(prepared, tmp_path)[1].words
    assert f"{counts['rows_read']} rows were read" in words
    for name, number in removed.items():
        assert (f"{name} {number} {number / counts['rows_read']:.1%}" in words) is bool(number)


def test_without_a_check_the_page_says_how_to_make_one(prepared: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in prepared.iterdir():
        if path.name != CHECK.name and path.is_file():
            (bare / path.name).write_bytes(path.read_bytes())
    report, page, _ = draw(bare, tmp_path)
    missing = {key for key, there in report.sections.items() if not there}
    assert missing == {"doubtful", "check"}
    assert page.commands[0] == ["clerk-trainer", "check", str(bare)]
    assert "Not checked yet" in page.words


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """Return a dataset with a copy and a near-copy of hold-out messages in training, under other
    labels so that the check doubts them; ``prepare`` would never make it."""
    names = list(THINGS)
    parts: dict[str, list[Example]] = {}
    for seed, (part, count) in enumerate((("train", 40), ("validation", 10), ("holdout", 12))):
        parts[part] = [
            Example(f"{part}-{at}", text, label)
            for at, (text, label) in enumerate(messages(count, seed + 20))
        ]
    for at, change in ((0, ""), (13, " please")):
        held = parts["holdout"][at]
        wrong = names[(names.index(held.label) + 1) % 3]
        parts["train"].append(Example(f"leak-{at}", held.message + change, wrong))
    taxonomy = Taxonomy("shop", "1", "", tuple(Label(name, f"about {name}") for name in names))
    directory = tmp_path / "leaking"
    write_dataset(directory, name="shop", taxonomy=taxonomy, splits=parts)
    code, _, _ = call("check", directory, "--embeddings", "none", "--floor", 20, "--json")
    assert code == 3
    return directory


def test_a_training_message_that_repeats_a_held_out_one_is_hidden(
    leaking: Path, tmp_path: Path
) -> None:
    """Copies and near-copies are named by id only, and removing them comes before training."""
    report, page, text = draw(leaking, tmp_path, texts=True)
    missing = {key for key, there in report.sections.items() if not there}
    assert missing == {"rows", "duplicates"}, "what prepare would have counted"
    assert HIDDEN in page.words
    assert "leak-0" in page.words
    for message in held_out(leaking):
        assert message not in text
    steps = page.words.index("Remove copies across splits")
    assert steps < page.words.index("clerk-trainer train")


def test_the_command_tells_a_dataset_from_a_run(prepared: Path, tmp_path: Path) -> None:
    """By what is in the folder; options of runs are refused for a dataset."""
    out = tmp_path / "page.html"
    code, result, _ = call("report", prepared, "--out", out, "--json")
    assert (code, result["of"], result["texts"]) == (0, "dataset", False)
    assert out.is_file()
    code, _, error = call("report", prepared, "--store", tmp_path, "--json")
    assert code == 2
    assert "is a dataset, but --store is for runs" in error
    code, _, error = call("report", tmp_path / "nowhere")
    assert code == 2
    assert "or a dataset folder of clerk-trainer prepare" in error
