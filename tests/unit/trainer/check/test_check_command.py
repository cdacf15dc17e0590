"""``clerk-trainer check`` as its users meet it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.unit.trainer.check.shop import make_examples
from trainer.cli.train_commands import register
from trainer.dataset.folder import Dataset, count_openings, open_dataset

pytestmark = pytest.mark.slow

Planted = tuple[Dataset, frozenset[str]]

app = typer.Typer(pretty_exceptions_enable=False)
app.callback()(lambda: None)
register(app)


def check(dataset: Dataset | Path, *flags: str) -> Result:
    folder = dataset if isinstance(dataset, Path) else dataset.directory
    return CliRunner().invoke(
        app, ["check", str(folder), "--no-embeddings", "--floor", "20", *flags]
    )


def test_a_check_writes_figures_and_a_queue_and_says_what_to_do(planted: Planted) -> None:
    """check.json holds no text, the queue beside the folder holds the planted errors first, the
    dataset stays what it was and its hold-out sealed."""
    dataset, wrong = planted
    done = check(dataset)
    assert done.exit_code == 0, done.output
    for words in ("suspected wrong labels", "Review queue", "→ Decide on the review queue"):
        assert words in " ".join(done.stdout.split())
    record = json.loads((dataset.directory / "check.json").read_text())
    assert record["schema"] == "check/2"
    assert record["dataset"]["digest"] == dataset.digest
    assert record["verdict"] == "warn"
    texts = [example.message for example in (*dataset.train, *make_examples(12, 3, 2000))]
    raw = (dataset.directory / "check.json").read_text()
    assert not any(text in raw or text in done.output for text in texts)
    with (dataset.directory.parent / "shop-review.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows[: len(wrong)]} == wrong
    assert open_dataset(dataset.directory).digest == dataset.digest
    assert count_openings(dataset) == 0


def test_a_check_that_fails_exits_3_after_writing(make_dataset: Callable[..., Dataset]) -> None:
    """A pipeline stops, and whoever looks finds the figures and the queue."""
    dataset = make_dataset(make_examples(40, 1)[:85])
    done = check(dataset)
    assert done.exit_code == 3
    assert done.stderr.count("\n") == 1
    assert "failed: examples per label" in done.stderr
    record = json.loads((dataset.directory / "check.json").read_text())
    assert record["verdicts"]["examples per label"] == "fail"
    assert (dataset.directory.parent / "shop-review.csv").exists()


def test_machines_read_one_object(planted: Planted) -> None:
    """Standard output is JSON alone, the same as the file."""
    done = check(planted[0], "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads((planted[0].directory / "check.json").read_text())


def test_decisions_are_kept_or_nothing_is_done(planted: Planted) -> None:
    """The refusal comes before the work; --update keeps decisions."""
    queue = planted[0].directory.parent / "shop-review.csv"
    check(planted[0])
    with queue.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["decision"] = "accept"
    with queue.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    (planted[0].directory / "check.json").unlink()
    before = queue.read_bytes()
    done = check(planted[0])
    assert done.exit_code == 2
    assert "1 rows that somebody filled in" in done.stderr
    assert queue.read_bytes() == before
    assert not (planted[0].directory / "check.json").exists()
    done = check(planted[0], "--update", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["decisions_kept"] == 1


def test_bad_input_is_one_line_that_says_where(planted: Planted, tmp_path: Path) -> None:
    """No dataset, no base, no folder for the queue."""
    for done, words in (
        (check(tmp_path / "nowhere"), "not a finished dataset"),
        (check(planted[0], "--base", str(tmp_path)), "cannot read the base's tokenizer"),
        (check(planted[0], "--queue", str(tmp_path / "no" / "q.csv")), "no such folder"),
    ):
        assert done.exit_code == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
