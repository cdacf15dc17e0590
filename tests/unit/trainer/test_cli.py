"""The command line: exit codes, and one clear line for what the caller has to mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.cli import main

SHIPPED = str(Path(__file__).parents[3] / "config" / "trainer.toml")


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object):
    monkeypatch.setattr("sys.argv", ["clerk-trainer", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    out = capsys.readouterr()
    return exit_.value.code, out.out, out.err


def test_a_bad_line_ends_with_code_2_and_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_base: Path,
    taxonomy_file: Path,
) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text(json.dumps({"message": "x", "label": "weather"}) + "\n", encoding="utf-8")
    code, _, err = run(
        capsys,
        monkeypatch,
        "train",
        *("--recipe", SHIPPED),
        *("--base", tiny_base),
        *("--data", data),
        *("--taxonomy", taxonomy_file),
        *("--out", tmp_path / "adapter"),
    )
    assert code == 2
    assert err.startswith(f"clerk-trainer: {data}:1: unknown label 'weather'")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--set", "rank"], "key=value"),
        (["--set", "rnak=8"], "rnak"),
        (["--taxonomy", "/nowhere.toml"], "cannot read the taxonomy"),
    ],
)
def test_usage_errors_end_with_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_base: Path,
    arguments: list[str],
    problem: str,
) -> None:
    given = ["train", "--recipe", SHIPPED, "--base", tiny_base, *arguments]
    code, _, err = run(capsys, monkeypatch, *given)
    assert code == 2
    assert problem in err
    assert "Traceback" not in err


def test_help_and_unknown_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, monkeypatch, "train", "--help")
    assert code == 0
    assert "--recipe" in out
    code, _, _ = run(capsys, monkeypatch, "train", "--nonsense")
    assert code == 2
