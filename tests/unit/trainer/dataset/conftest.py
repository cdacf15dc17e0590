"""Small made-up exports, and the command as a user runs it."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from trainer.cli.main import app
from trainer.dataset.folder import SPLITS, Dataset, Example, open_dataset, open_holdout

LABELS = ("order_tracking", "refund", "payment")
Record = tuple[str, str, str]
"""Id, message and label."""

Run = Callable[..., Result]
WriteCsv = Callable[..., Path]
Refused = Callable[..., str]


class Made:
    """A dataset that the command wrote, and what it printed."""

    def __init__(self, out: Path, result: Result) -> None:
        self.out, self.printed = out, result.output

    @cached_property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text("dataset.json"))
        return found

    @property
    def counts(self) -> dict[str, Any]:
        found: dict[str, Any] = self.record["counts"]
        return found

    @cached_property
    def dataset(self) -> Dataset:
        return open_dataset(self.out)

    @property
    def train(self) -> tuple[Example, ...]:
        return self.dataset.train

    @property
    def validation(self) -> tuple[Example, ...]:
        return self.dataset.validation

    def held(self) -> tuple[Example, ...]:
        return open_holdout(self.dataset, purpose="test", subject="test")

    def text(self, name: str) -> str:
        return (self.out / name).read_text(encoding="utf-8")

    def lines(self, split: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text(f"{split}.jsonl").splitlines()]

    def placed(self) -> dict[str, tuple[str, str]]:
        """Return id -> (split, label)."""
        return {row["id"]: (name, row["response"]) for name in SPLITS for row in self.lines(name)}

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.out / name).open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))


Prepare = Callable[..., Made]


def unlike_messages(count: int, seed: int) -> list[str]:
    """Return messages of seven made-up words, none near another."""
    rng = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    return [
        " ".join("".join(rng.choices(syllables, k=3)) for _ in range(7)).capitalize() + "."
        for _ in range(count)
    ]


@pytest.fixture
def records() -> list[Record]:
    """Return (id, message, label) of 40 unlike messages a label."""
    messages = unlike_messages(40 * len(LABELS), seed=1)
    return [
        (f"t{place:03}", message, LABELS[place % len(LABELS)])
        for place, message in enumerate(messages)
    ]


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    path = tmp_path / "taxonomy.toml"
    labels = "".join(f'[[labels]]\nname = "{name}"\n' for name in LABELS)
    path.write_text(f'name = "shop"\nversion = "1"\n{labels}', encoding="utf-8")
    return path


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    def write(
        rows: Sequence[Sequence[str]],
        name: str = "export.csv",
        header: Sequence[str] = ("id", "message", "label"),
    ) -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def run(taxonomy: Path, tmp_path: Path) -> Run:
    """Return a function (input, *options) -> the finished command, writing into ``out``."""

    def run_prepare(*arguments: object, out: Path = tmp_path / "out") -> Result:
        options = ["prepare", "--taxonomy", taxonomy, "--out", out, "--input", *arguments]
        return CliRunner().invoke(app, [str(option) for option in options])

    return run_prepare


@pytest.fixture
def prepare(run: Run, write_csv: WriteCsv, tmp_path: Path) -> Prepare:
    """Return a function (rows or a path, *options) -> the dataset, in a folder of its own unless
    ``out`` names one."""
    numbers = count()

    def make(
        rows: Path | Sequence[Sequence[str]],
        *options: object,
        header: Sequence[str] = ("id", "message", "label"),
        out: Path | None = None,
    ) -> Made:
        number = next(numbers)
        path = rows if isinstance(rows, Path) else write_csv(rows, f"{number}.csv", header)
        out = out or tmp_path / f"made-{number}"
        result = run(path, *options, out=out)
        assert result.exit_code == 0, (result.output, result.exception)
        return Made(out, result)

    return make


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Refused:
    """Return a function that runs a command which must fail, and returns its error. It asserts exit
    code 2, one line for each problem, and no new files.
    """

    def expect(*arguments: object) -> str:
        before = sorted(tmp_path.iterdir())
        result = run(*arguments)
        assert result.exit_code == 2, (result.output, result.exception)
        assert result.stderr.startswith("clerk-trainer: ")
        first, *others = result.stderr.splitlines()
        assert all(line.startswith("  - ") for line in others), result.stderr
        assert not others or first == f"clerk-trainer: {len(others)} problems:"
        assert sorted(tmp_path.iterdir()) == before
        return result.stderr

    return expect
