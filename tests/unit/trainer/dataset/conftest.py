"""Small made-up exports, and the command as a user runs it."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trainer.cli.main import app

LABELS = ("order_tracking", "refund", "payment")
Record = tuple[str, str, str]
"""Id, message and label."""

Run = Callable[..., Result]
WriteCsv = Callable[..., Path]
Refused = Callable[..., str]


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
