"""An encoder that is kept without files that can be made again is completed to the same bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.tiny_encoder import make_tiny_encoder
from tests.support.trainer_world import call
from trainer.training.recipe import load_recipe
from trainer.training.train import train
from worker.contract import load_adapter

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[4] / "config" / "trainer-encoder.toml"
LEFT_OUT = ("config.json", "tokenizer.json", "model.onnx", "model.int8.onnx")
# What the libraries choose their arithmetic by: another processor, in this one's words.
OLD_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("base"), ["where is my parcel please"] * 9)


@pytest.fixture(scope="module")
def adapter(small_base: Path, dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an encoder that was trained by LoRA, as the training left it."""
    run = tmp_path_factory.mktemp("lora") / "run"
    settings = {"run": run, "base": small_base, "dataset": dataset_dir, "tuning": "lora"}
    quick = {"epochs": 1, "mixed_precision": "no", "threads": 1, "max_message_tokens": 100}
    train(load_recipe(RECIPE, settings | quick), Console(quiet=True))
    return run / "adapter"


@pytest.fixture
def kept(adapter: Path, tmp_path: Path) -> Path:
    """Return a copy of it without what can be made again."""
    copy = tmp_path / "kept"
    shutil.copytree(adapter, copy)
    for name in LEFT_OUT:
        (copy / name).unlink()
    return copy


def test_it_is_whole_again_to_the_last_byte(
    adapter: Path, kept: Path, small_base: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    code, told, error = call("complete", kept, "--base", small_base, "--out", whole, "--json")
    assert code == 0, error
    assert told["digest"] == load_adapter(adapter).digest
    assert load_adapter(whole) == load_adapter(adapter)


@pytest.mark.long
def test_another_processor_makes_the_same_bytes(
    adapter: Path, kept: Path, small_base: Path, tmp_path: Path
) -> None:
    """In a process that simulates an old processor, on which the libraries sum in another order."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "trainer", "complete", str(kept), "--json"),
            *("--base", str(small_base), "--out", str(tmp_path / "whole")),
        ],
        env={**os.environ, **OLD_PROCESSOR},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    manifest = load_adapter(adapter)
    assert json.loads(done.stdout)["digest"] == manifest.digest
    for path in adapter.iterdir():
        assert (tmp_path / "whole" / path.name).read_bytes() == path.read_bytes(), path.name


def alter(name: str) -> Callable[[Path], None]:
    def change(kept: Path) -> None:
        path = kept / name
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    return change


def said_to_be_of_another_version(kept: Path) -> None:
    path = kept / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["versions"]["onnx"] = "0.1"
    manifest["files"]["model.onnx"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (alter("head.safetensors"), 2, "head.safetensors"),
        (said_to_be_of_another_version, 4, r"made with onnx 0\.1 \(here [\d.]+\): install those"),
        (lambda kept: (kept / "head.safetensors").unlink(), 2, "has no head.safetensors"),
    ],
    ids=["altered", "another version", "weights"],
)
def test_what_is_not_the_published_model_is_refused(
    kept: Path,
    small_base: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    code: int,
    told: str,
) -> None:
    change(kept)
    found, _, error = call("complete", kept, "--base", small_base, "--out", tmp_path / "whole")
    assert found == code, error
    assert len(error.splitlines()) == 1
    assert re.search(told, error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
