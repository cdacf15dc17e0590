"""A head: what its outputs mean, and how an engine shows that it agrees with the trainer."""

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.support.toy_adapter import toy_head
from worker.contract import GoldenLogits, HeadOutput, disagreement
from worker.contract.head import text_of

GOLDEN = (GoldenLogits(0, (1.0, -2.0)), GoldenLogits(3, (0.5, 0.25)))


def test_an_engine_agrees_within_the_tolerance() -> None:
    assert disagreement(GOLDEN, [(1.0, -2.0), (0.5, 0.25)], 1e-9) is None
    assert disagreement(GOLDEN, [(1.125, -2.0), (0.5, 0.125)], 0.125) is None


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([(1.0, -2.0), (0.5, 0.75)], "a logit of golden prompt 3 is 0.5 off; 0.125 is allowed"),
        ([(-2.0, 1.0), (0.5, 0.25)], "golden prompt 0 is 3 off"),
        ([(math.nan, -2.0), (0.5, 0.25)], "golden prompt 0 is inf off"),
        ([(1.0, -2.0), (0.5, math.nan)], "golden prompt 3 is inf off"),
        ([(1.0, math.inf), (0.5, 0.25)], "golden prompt 0 is inf off"),
        ([(1.0,), (0.5, 0.25)], "golden prompt 0 has 1 logits instead of 2"),
    ],
)
def test_the_largest_difference_is_reported(found: list[Any], problem: str) -> None:
    reported = disagreement(GOLDEN, found, 0.125)
    assert reported is not None
    assert problem in reported


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"outputs": (HeadOutput("a", "x"), HeadOutput("a", "y"))}, "names an output twice"),
        ({"pad_id": 1_200_000}, "head.pad_id is 1200000"),
        ({"pad_id": -1}, "head.pad_id is -1"),
        ({"weights": (), "onnx": ()}, "head.weights and head.onnx name no file"),
        ({"weights": ()}, "head.pooling belongs to head.weights"),
        ({"pooling": None}, "head.pooling belongs to head.weights"),
        ({"weights": ("model.bin",)}, "'model.bin', which is not a .safetensors file"),
        ({"golden_logits": ()}, "could not be checked"),
        ({"golden_logits": (GoldenLogits(0, (1.0,)),)}, "1 logits for prompt 0"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(toy_head(), **changes)


@pytest.mark.parametrize("text", ["parcel", "Grüße 🙏 日本語", ""])
def test_the_ids_of_a_graph_of_text_are_the_bytes_of_the_text(text: str) -> None:
    assert text_of(list(text.encode("utf-8"))) == text
