"""The kinds of model in a manifest: each has its parts, and no kind has another's."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_adapter import SHA, toy_encoder_manifest, toy_head, toy_manifest
from worker.contract import (
    FileDigest,
    GoldenLogits,
    HeadOutput,
    Lora,
    Manifest,
    OnnxModel,
    Reference,
    Thresholds,
    read_manifest,
    write_manifest,
)

LORA = Lora(16, 32.0, ("query",))
OTHER = FileDigest("1" * 64, 1)


def embedding_linear(**changes: Any) -> Manifest:
    return toy_encoder_manifest(**{"kind": "embedding-linear"} | changes)


@pytest.mark.parametrize(
    ("make", "needs_base", "absent"),
    [
        (toy_manifest, True, {"head"}),
        (toy_encoder_manifest, False, {"codes", "decoding", "lora"}),
        (lambda: toy_encoder_manifest(lora=LORA, head=toy_head(onnx=())), True, {"codes"}),
        (embedding_linear, False, {"codes", "decoding", "lora"}),
    ],
    ids=["lora-code", "encoder", "encoder of LoRA weights", "embedding-linear"],
)
def test_each_kind_reads_back_and_lacks_what_it_has_not(
    make: Callable[[], Manifest], needs_base: bool, absent: set[str], tmp_path: Path
) -> None:
    """What a kind has not is no key of its JSON; only what carries its model needs no base."""
    manifest = make()
    data = json.loads(write_manifest(tmp_path, manifest).read_text(encoding="utf-8"))
    assert absent.isdisjoint(data)
    again = read_manifest(tmp_path)
    assert again == manifest
    assert again.digest == manifest.digest
    assert again.needs_base is needs_base
    assert again.answers_with == ("code" if manifest.kind == "lora-code" else "head")


@pytest.mark.parametrize(
    ("make", "changes", "problem"),
    [
        (toy_manifest, {"head": toy_head()}, "kind 'lora-code' has no head"),
        (toy_manifest, {"lora": None}, "kind 'lora-code' needs lora"),
        (toy_manifest, {"decoding": None}, "kind 'lora-code' needs decoding"),
        (toy_manifest, {"thresholds": Thresholds(0.6, None, 1.0)}, "kind 'lora-code' has none"),
        (toy_encoder_manifest, {"head": None}, "kind 'encoder' needs head"),
        (
            toy_encoder_manifest,
            {"codes": toy_manifest().codes, "decoding": "code"},
            "kind 'encoder' has no codes and no decoding",
        ),
        (embedding_linear, {"lora": LORA}, "kind 'embedding-linear' has no lora"),
        (
            toy_encoder_manifest,
            {"thresholds": Thresholds(0.6, 0.5)},
            "kind 'encoder' sees no off-label mass",
        ),
        (
            toy_encoder_manifest,
            {"head": toy_head(("billing", "delivery", "lost"))},
            r"count for labels that are not there: \['lost'\]",
        ),
        (
            toy_encoder_manifest,
            {"head": toy_head(("billing", "delivery"), onnx=())},
            r"has none for the labels \['other'\]",
        ),
        (
            toy_encoder_manifest,
            {"head": toy_head(golden_logits=(GoldenLogits(7, (0.0,) * 4),))},
            "golden prompt 7; there are 7",
        ),
        (
            toy_encoder_manifest,
            {"head": toy_head(golden_logits=(GoldenLogits(-1, (0.0,) * 4),))},
            "golden prompt -1",
        ),
        (toy_encoder_manifest, {"files": {}}, r"not in files: \['model.int8.onnx', 'model.onnx'"),
        (
            toy_encoder_manifest,
            {"files": dict.fromkeys((*toy_head().files, "tokenizer.json"), OTHER)},
            "carries the tokenizer.json of its base",
        ),
        (
            embedding_linear,
            {"files": dict.fromkeys(toy_head().files, FileDigest(SHA, 1))},
            "carries the tokenizer.json of its base",
        ),
    ],
)
def test_parts_that_contradict_the_kind_are_refused(
    make: Callable[..., Manifest], changes: dict[str, Any], problem: str
) -> None:
    """Whoever made the manifest reads what is too much or missing, and for which kind."""
    with pytest.raises(ValueError, match=problem):
        make(**changes)


def test_everything_of_a_head_is_part_of_the_identity() -> None:
    """No output, file or score can change under the same digest."""
    manifest, head = toy_encoder_manifest(), toy_head()
    swapped = (head.outputs[1], head.outputs[0], *head.outputs[2:])
    renamed = (HeadOutput("first", "billing"), *head.outputs[1:])
    others = [
        replace(manifest, head=replace(head, **change))
        for change in (
            {"outputs": swapped},
            {"outputs": renamed},
            {"pooling": "cls"},
            {"normalize": False},
            {"out_of_scope": "max-logit"},
            {"pad_id": 1},
            {"golden_logits": (GoldenLogits(0, (0.0,) * 4),)},
            {"onnx": head.onnx[::-1]},
            {"onnx": (OnnxModel("model.onnx", "int8", 1e-3),)},
        )
    ]
    others.append(replace(manifest, thresholds=Thresholds(0.6, None, -0.4)))
    assert len({manifest.digest, *(other.digest for other in others)}) == len(others) + 1


def test_a_reference_has_quantiles_of_what_its_kind_has(tmp_path: Path) -> None:
    """The out-of-scope score of a head; a manifest without one has no key for it."""
    reference = Reference({"billing": 1.0}, {"0.05": 0.5}, {}, {"0.95": -2.5})
    write_manifest(tmp_path, toy_encoder_manifest(reference=reference))
    assert read_manifest(tmp_path).reference == reference
    plain = replace(reference, out_of_scope={})
    path = write_manifest(tmp_path, toy_manifest(reference=plain))
    assert "out_of_scope" not in json.loads(path.read_text(encoding="utf-8"))["reference"]
