"""A toy adapter: a tokenizer of one token a character, three labels, a manifest on no files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from worker.contract import (
    BaseModel,
    Calibration,
    Encoders,
    FileDigest,
    GoldenLogits,
    GoldenPrompt,
    Head,
    HeadOutput,
    Label,
    Lora,
    Manifest,
    OnnxModel,
    PromptSpec,
    Reference,
    Taxonomy,
    Thresholds,
    build_prompt,
    choose_codes,
    make_golden,
)
from worker.contract.records import InputFormat
from worker.contract.text import NORMALIZATION
from worker.core.labeller import Labeller, ServingAdapter
from worker.engine.fake import FakeEngine
from worker.engine.port import CodeScores, Engine
from worker.records.encode import DeadLetterEncoder, OutputEncoder

LABELS = ("billing", "delivery", "other")
SHA = "0" * 64

# The toy tokenizer: a token a character, but for two control tokens.
_CONTROL = {"<s>": 1, "</s>": 2}
_FIRST_ID = 10


def encode_plain(text: str) -> list[int]:
    """Characters to ids, control-token strings taken literally."""
    return [_FIRST_ID + ord(character) for character in text]


def encode_control(text: str) -> list[int]:
    """Characters to ids, control-token strings as their one id."""
    ids: list[int] = []
    while text:
        mark = next((token for token in _CONTROL if text.startswith(token)), None)
        ids.append(_CONTROL[mark] if mark else _FIRST_ID + ord(text[0]))
        text = text[len(mark or " ") :]
    return ids


def decode(ids: Sequence[int]) -> str:
    """Undo ``encode_plain``."""
    return "".join(chr(id_ - _FIRST_ID) for id_ in ids)


ENCODERS = Encoders(encode_control, encode_plain, frozenset(_CONTROL.values()))


def toy_taxonomy(labels: Sequence[str] = LABELS) -> Taxonomy:
    """A taxonomy of these labels."""
    return Taxonomy("toy", "1", "", tuple(Label(name, f"about {name}") for name in labels))


def toy_spec(max_message_tokens: int = 32, marker: str = "~") -> PromptSpec:
    """A prompt of one control token at either end."""
    prefix, suffix = "<s>File: ", "</s>="
    return PromptSpec(
        prefix,
        suffix,
        marker,
        tuple(encode_control(prefix)),
        tuple(encode_control(suffix)),
        tuple(encode_plain(marker)),
        max_message_tokens,
        NORMALIZATION,
    )


def toy_manifest(**changes: Any) -> Manifest:
    """A manifest by the toy tokenizer, on no files; ``changes`` replace fields."""
    spec = changes.get("prompt", toy_spec())
    taxonomy = changes.get("taxonomy", toy_taxonomy())
    manifest = Manifest(
        name="toy-1",
        created_at="2024-05-06T07:08:09Z",
        kind="lora-code",
        base=BaseModel("toy-base", "main", SHA, SHA, {"model.safetensors": FileDigest(SHA, 1)}),
        taxonomy=taxonomy,
        prompt=spec,
        decoding="code",
        codes=choose_codes(taxonomy.names, spec.suffix, encode_control),
        lora=Lora(16, 32.0, ("q_proj", "v_proj")),
        calibration=Calibration(1.0, 100),
        thresholds=Thresholds(0.6, 0.5),
        golden=make_golden(spec, ENCODERS),
        files={},
    )
    return replace(manifest, **changes)


def toy_head(labels: Sequence[str] = LABELS, **changes: Any) -> Head:
    """A head with two outputs for the first label and one for each other; no file has content."""
    finer = [HeadOutput(f"{labels[0]}.{part}", labels[0]) for part in "ab"]
    outputs = (*finer, *(HeadOutput(label, label) for label in labels[1:]))
    head = Head(
        outputs=outputs,
        pooling="mean",
        normalize=True,
        out_of_scope="energy",
        vocabulary=1_200_000,
        pad_id=0,
        weights=("model.safetensors",),
        golden_logits=(GoldenLogits(0, tuple(float(at) for at in range(len(outputs)))),),
        onnx=(OnnxModel("model.int8.onnx", "int8", 0.5), OnnxModel("model.onnx", "fp32", 1e-3)),
    )
    return replace(head, **changes)


def toy_encoder_manifest(**changes: Any) -> Manifest:
    """A manifest of kind ``encoder`` by the toy tokenizer, on no files."""
    head = changes.get("head", toy_head())
    files = (*head.files, "tokenizer.json") if head is not None else ()
    given = {
        "name": "toy-encoder-1",
        "kind": "encoder",
        "decoding": None,
        "codes": {},
        "lora": None,
        "head": head,
        "thresholds": Thresholds(0.6, None, -0.5),
        "files": {name: FileDigest(SHA, 1) for name in files},
    }
    return toy_manifest(**given | changes)


def toy_reference(labels: Sequence[str] = LABELS) -> Reference:
    """A reference that expects each label as often, and hardly ever a mass above 0.9."""
    return Reference({label: 1 / len(labels) for label in labels}, {"0.05": 0.9}, {"0.95": 0.9})


def one_golden(spec: PromptSpec, message: str = "hello") -> tuple[GoldenPrompt, ...]:
    """One golden prompt, for a manifest that is made many times."""
    prompt = build_prompt(spec, message, encode_plain)
    assert prompt is not None
    return (GoldenPrompt(message, prompt.ids, prompt.truncated),)


@cache
def small_manifest() -> Manifest:
    """A toy manifest with one golden prompt and a reference, made once."""
    return toy_manifest(golden=one_golden(toy_spec()), reference=toy_reference())


def scores(label: str, p: float = 0.9) -> CodeScores:
    """An engine's answer that gives ``label`` the probability ``p`` and the others little."""
    codes = small_manifest().codes
    return CodeScores(
        {code.token_id: math.log(p if name == label else 0.01) for name, code in codes.items()}
    )


def toy_serving_adapter(
    engine: Engine | None = None,
    manifest: Manifest | None = None,
    layout: str = "text",
    encoders: Encoders | None = None,
) -> ServingAdapter:
    """An adapter in service. Without an engine of its own it answers nothing."""
    manifest = manifest or small_manifest()
    engine = engine or FakeEngine(lambda _: CodeScores({}))
    stages = max(1, len(manifest.stages))  # a fake may stand for a whole cascade
    precisions = engine.precisions if len(engine.precisions) == stages else ("fp32",) * stages
    return ServingAdapter(
        Labeller(
            manifest,
            (encoders or ENCODERS).plain,
            manifest.thresholds,
            InputFormat(layout),  # type: ignore[arg-type]
            stages=tuple(stage.thresholds for stage in manifest.stages),
        ),
        engine,
        OutputEncoder(manifest, "0.0", precisions),
        DeadLetterEncoder("dead", "0.0", manifest.digest),
    )
