"""The command line: exit codes, and one-line errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from trainer.cli import main

pytestmark = pytest.mark.slow

SHIPPED = str(Path(__file__).parents[3] / "config" / "trainer-cpu.toml")


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int | str | None, str, str]:
    monkeypatch.setattr("sys.argv", ["clerk-trainer", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    out = capsys.readouterr()
    return exit_.value.code, out.out, out.err


def test_an_altered_dataset_ends_with_code_2_and_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_base: Path,
    dataset_dir: Path,
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(dataset_dir, copy)
    with (copy / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("{}\n")
    code, _, err = run(
        capsys,
        monkeypatch,
        "train",
        *("--recipe", SHIPPED),
        *("--base", tiny_base),
        *("--dataset", copy),
        *("--out", tmp_path / "run"),
    )
    assert code == 2
    assert err.startswith(f"clerk-trainer: {copy}/train.jsonl: altered")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--set", "lora_rank"], "key=value"),
        (["--set", "rnak=8"], "rnak"),
        (["--dataset", "/nowhere"], "not a finished dataset"),
        (["--base", "/nowhere"], "cannot read the base's tokenizer"),
    ],
)
def test_usage_errors_end_with_code_2(  # noqa: PLR0917
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_base: Path,
    dataset_dir: Path,
    tmp_path: Path,
    arguments: list[str],
    problem: str,
) -> None:
    places = ["--base", tiny_base, "--dataset", dataset_dir, "--out", tmp_path / "run"]
    given = ["train", "--recipe", SHIPPED, *places, *arguments]
    code, _, err = run(capsys, monkeypatch, *given)
    assert code == 2
    assert problem in err
    assert "Traceback" not in err
