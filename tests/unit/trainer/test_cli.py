"""The command line: exit codes, and one-line errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from trainer.cli import main

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[3] / "config" / "trainer-cpu.toml"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "train.jsonl: altered"),
        (["--set", "rnak=8"], "rnak"),
        (["--base", "/nowhere"], "cannot read the base's tokenizer"),
    ],
)
def test_what_cannot_be_trained_ends_with_code_2_and_one_line(  # noqa: PLR0917
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_base: Path,
    dataset_dir: Path,
    tmp_path: Path,
    arguments: list[str],
    problem: str,
) -> None:
    data = shutil.copytree(dataset_dir, tmp_path / "data")
    if not arguments:
        (data / "train.jsonl").write_text("{}\n", encoding="utf-8")
    given = ("train", "--recipe", SHIPPED, "--dataset", data, "--out", tmp_path / "run")
    words = ["clerk-trainer", *map(str, given), "--base", str(tiny_base), *arguments]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    error = capsys.readouterr().err
    assert (left.value.code, error.count("\n")) == (2, 1)
    assert error.startswith("clerk-trainer: ")
    assert problem in error
