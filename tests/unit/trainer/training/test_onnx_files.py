"""In which order workers take an encoder's files, and on which scores it is calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from trainer.artifacts.training import TRAINING
from trainer.model.onnx_export import OnnxPrecision, onnx_logits
from trainer.statistics.calibration import Bools, Floats
from trainer.training import onnx_files
from trainer.training.onnx_files import prefer
from trainer.training.recipe import load_recipe
from trainer.training.train import train
from worker.contract import load_adapter

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[4] / "config" / "trainer-encoder.toml"


def right(lost: int, won: int, same: int = 700) -> dict[OnnxPrecision, Bools]:
    """Which messages each file labels rightly: ``lost`` only fp32, ``won`` only int8."""
    fp32 = [True] * same + [True] * lost + [False] * won
    int8 = [True] * same + [False] * lost + [True] * won
    return {"fp32": np.array(fp32), "int8": np.array(int8)}


@pytest.mark.parametrize(
    ("lost", "won", "first"),
    [
        (0, 0, "int8"),  # the same answers
        (1, 0, "int8"),  # one message is no evidence
        (5, 3, "int8"),  # 2 more of 8 that differ
        (0, 9, "int8"),
        (2, 0, "fp32"),
        (5, 1, "fp32"),  # what half a point of 800 messages was: 4 more of 6
        (40, 30, "fp32"),
    ],
)
def test_eight_bits_are_taken_where_they_are_as_right_within_noise(
    lost: int, won: int, first: str
) -> None:
    assert prefer(right(lost, won))[0] == first


def test_a_single_file_is_the_first() -> None:
    assert prefer({"fp32": np.ones(3, dtype=np.bool_)}) == ("fp32",)


@pytest.mark.parametrize("first", ["int8", "fp32"])
def test_it_is_calibrated_on_the_scores_of_the_file_that_is_served(
    tmp_path: Path,
    tiny_encoder: Path,
    dataset_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: OnnxPrecision,
) -> None:
    """The 8-bit file is made to answer twice as surely: its temperature is twice as high. The
    model has learnt something: at chance no temperature is better than another."""
    original = onnx_logits

    def logits(path: Path, prompts: object, **more: object) -> Floats:
        found = original(path, prompts, **more)  # type: ignore[arg-type]
        return 2 * found if "int8" in path.name else found

    order = (first, "int8" if first == "fp32" else "fp32")
    monkeypatch.setattr(onnx_files, "onnx_logits", logits)
    monkeypatch.setattr(onnx_files, "prefer", lambda right: order)
    run = tmp_path / "run"
    places = {"run": run, "base": tiny_encoder, "dataset": dataset_dir}
    quick = {"epochs": 12, "mixed_precision": "no", "threads": 1, "max_message_tokens": 100}
    train(load_recipe(SHIPPED, places | quick), Console(quiet=True))
    manifest = load_adapter(run / "adapter")
    assert manifest.head is not None
    assert tuple(model.precision for model in manifest.head.onnx) == order
    told = {figures["precision"]: figures for figures in manifest.metrics["onnx"]}
    assert manifest.calibration.temperature == told[first]["temperature"]
    assert manifest.calibration.ece == told[first]["ece"]
    ratio = told["int8"]["temperature"] / told["fp32"]["temperature"]
    assert ratio == pytest.approx(2, rel=0.1)
    record = TRAINING.read(run)
    assert record.validation.accuracy == told[first]["accuracy"]


def test_a_message_is_scored_by_itself_as_a_worker_runs_it(
    tmp_path: Path, tiny_encoder: Path, dataset_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale of 8-bit activations is taken over the whole batch."""
    sizes: set[object] = set()
    original = onnx_logits

    def logits(path: Path, prompts: object, **more: object) -> Floats:
        sizes.add(more["batch_size"])
        return original(path, prompts, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_files, "onnx_logits", logits)
    places = {"run": tmp_path / "run", "base": tiny_encoder, "dataset": dataset_dir}
    quick = {"epochs": 1, "mixed_precision": "no", "threads": 1, "max_message_tokens": 100}
    train(load_recipe(SHIPPED, places | quick), Console(quiet=True))
    assert sizes == {1}
