"""The command line: exit codes, and one-line errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.trainer_world import call

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[3] / "config" / "trainer-cpu.toml"


def test_usage_errors_and_an_altered_dataset_end_with_code_2_and_one_line(
    tmp_path: Path, tiny_base: Path, dataset_dir: Path
) -> None:
    altered = tmp_path / "data"
    shutil.copytree(dataset_dir, altered)
    with (altered / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("{}\n")
    places = ("--base", tiny_base, "--dataset", dataset_dir, "--out", tmp_path / "run")
    for given, problem in (
        (("--set", "lora_rank"), "key=value"),
        (("--set", "rnak=8"), "rnak"),
        (("--base", "/nowhere"), "cannot read the base's tokenizer"),
        (("--dataset", altered), f"clerk-trainer: {altered}/train.jsonl: altered"),
    ):
        code, _, err = call("train", "--recipe", SHIPPED, *places, *given)
        assert code == 2
        assert problem in err
        assert err.count("\n") == 1
