"""Toy adapters: a tokenizer with one token a character, three labels, manifests without files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from worker.contract import (
    BaseModel,
    Calibration,
    CascadeStage,
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
    Probe,
    PromptSpec,
    Reference,
    Taxonomy,
    Thresholds,
    build_prompt,
    choose_codes,
    make_golden,
    write_manifest,
)
from worker.contract.errors import MessageRejected
from worker.contract.records import InputFormat
from worker.contract.text import NORMALIZATION
from worker.contract.verify import ProbeFile, probes_path, write_probes
from worker.core.labeller import Labeller, ServingAdapter
from worker.engine.fake import FakeEngine
from worker.engine.port import Answer, CodeScores, Engine
from worker.records.encode import DeadLetterEncoder, OutputEncoder

LABELS = ("billing", "delivery", "other")
SHA = "0" * 64

# The toy tokenizer: a token a character, except for two control tokens.
_CONTROL = {"<s>": 1, "</s>": 2}
_FIRST_ID = 10


def encode_plain(text: str) -> list[int]:
    """Characters to ids; control-token strings are plain text."""
    return [_FIRST_ID + ord(character) for character in text]


def encode_control(text: str) -> list[int]:
    """Characters to ids; control-token strings become their one id."""
    ids: list[int] = []
    while text:
        mark = next((token for token in _CONTROL if text.startswith(token)), None)
        ids.append(_CONTROL[mark] if mark else _FIRST_ID + ord(text[0]))
        text = text[len(mark or " ") :]
    return ids


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(id_ - _FIRST_ID) for id_ in ids)


ENCODERS = Encoders(encode_control, encode_plain, frozenset(_CONTROL.values()))


def toy_taxonomy(labels: Sequence[str] = LABELS) -> Taxonomy:
    return Taxonomy("toy", "1", "", tuple(Label(name, f"about {name}") for name in labels))


def toy_spec(max_message_tokens: int = 32, marker: str = "~") -> PromptSpec:
    """A prompt with one control token at either end."""
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
    """A manifest for the toy tokenizer, without files; ``changes`` replace fields."""
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
    """A head with two outputs for the first label and one for each other; its files do not
    exist."""
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
    """A manifest of kind ``encoder`` for the toy tokenizer, without files."""
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
    """A reference with equally frequent labels, and rarely a mass above 0.9."""
    return Reference({label: 1 / len(labels) for label in labels}, {"0.05": 0.9}, {"0.95": 0.9})


def one_golden(spec: PromptSpec, message: str = "hello") -> tuple[GoldenPrompt, ...]:
    """Cached, for a manifest that is made many times."""
    prompt = build_prompt(spec, message, encode_plain)
    assert prompt is not None
    return (GoldenPrompt(message, prompt.ids, prompt.truncated),)


@cache
def small_manifest() -> Manifest:
    """A toy manifest with one golden prompt and a reference, cached."""
    return toy_manifest(golden=one_golden(toy_spec()), reference=toy_reference())


def scores(label: str, p: float = 0.9) -> CodeScores:
    """An answer that gives ``label`` the probability ``p`` and the others little."""
    labels = small_manifest().codes
    return CodeScores({name: math.log(p if name == label else 0.01) for name in labels})


def toy_serving_adapter(
    engine: Engine | None = None,
    manifest: Manifest | None = None,
    layout: str = "text",
    encoders: Encoders | None = None,
) -> ServingAdapter:
    """An adapter in service. Without an engine it answers nothing."""
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


# Adapters that differ in their answers, and which of them gave an answer.


PROBES = ("where is my parcel", "I was charged twice", "hello")


def labels_of(name: str) -> tuple[str, str]:
    """Labels that only this adapter can give."""
    return f"{name}-a", f"{name}-b"


def make_manifest(name: str, **changes: Any) -> Manifest:
    """An adapter with its own labels, prompt and codes, so that a mix-up shows."""
    spec = toy_spec(max_message_tokens=24 + len(name))
    return toy_manifest(
        name=name,
        taxonomy=toy_taxonomy(labels_of(name)),
        prompt=spec,
        golden=one_golden(spec),
        **changes,
    )


ONE, TWO, THREE = (make_manifest(name) for name in ("one", "two", "three"))


def with_probes(manifest: Manifest, *labels: str) -> Manifest:
    """The same adapter, with a label recorded for each probe."""
    probes = tuple(Probe(text, label) for text, label in zip(PROBES, labels, strict=True))
    found = replace(manifest)
    object.__setattr__(found, "probes", probes)  # as attach_probes does
    return found


def write_adapter(directory: Path, manifest: Manifest) -> None:
    """Write a manifest, and its probes next to the directory."""
    write_manifest(directory, manifest)
    if manifest.probes:
        file = ProbeFile(manifest.digest, "written", manifest.probes)
        write_probes(probes_path(directory), file)


def answer_with(manifest: Manifest, label: str, p: float = 0.9) -> Answer:
    """Scores of this adapter's labels."""
    rest = (0.99 - p) / max(1, len(manifest.codes) - 1)
    return CodeScores({name: math.log(p if name == label else rest) for name in manifest.codes})


def by_length(manifest: Manifest, p: float = 0.9) -> Callable[[Sequence[int]], Answer]:
    """Answer with one of the adapter's labels, chosen by the prompt's length, with probability
    ``p``."""
    names = manifest.taxonomy.names
    return lambda prompt: answer_with(manifest, names[len(prompt) % len(names)], p)


def stamps(outputs: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """By record: label and digest of the result, without dead letters. A duplicate is an error."""
    found: dict[str, tuple[str, str]] = {}
    for outgoing in outputs:
        if outgoing.topic == "dead":
            continue
        value = json.loads(outgoing.value)
        assert value["id"] not in found, "published twice"
        found[value["id"]] = (value["label"], value["adapter"]["digest"])
    return found


# Cascades of toy adapters: manifests that bind stages, and fake engines' answers for them.


def cascade_of(*stages: Manifest, sure_from: float = 0.8, **changes: Any) -> Manifest:
    """A cascade of adapters with one taxonomy, the small one first; each but the last is sure
    from ``sure_from`` on. ``changes`` replace fields."""
    first, last = stages[0], stages[-1]
    thresholds = Thresholds(0.5, review_disagreement=0.0)
    given: dict[str, Any] = {
        "name": "toy-cascade",
        "created_at": "2024-05-06T07:08:09Z",
        "kind": "cascade",
        "base": last.base,
        "taxonomy": last.taxonomy,
        "prompt": first.prompt,
        "golden": first.golden,
        "calibration": Calibration(1.0, 100),
        "thresholds": thresholds,
        "files": {},
        "stages": bind(stages, sure_from, thresholds),
    }
    return Manifest(**given | changes)


def bind(
    stages: Sequence[Manifest], sure_from: float, thresholds: Thresholds
) -> tuple[CascadeStage, ...]:
    last = len(stages) - 1
    return tuple(
        CascadeStage(
            digest=stage.digest,
            name=stage.name,
            kind=stage.kind,
            base=stage.base.name,
            base_revision=stage.base.revision,
            thresholds=thresholds if at == last else Thresholds(None),
            share=1 / len(stages),
            sure_from=None if at == last else sure_from,
            out_of_scope=stage.head.out_of_scope if stage.head else None,
        )
        for at, stage in enumerate(stages)
    )


SMALL = toy_manifest(name="small", golden=one_golden(toy_spec()))
# A different prompt, so that giving one stage the other's prompt would be noticed.
LARGE = toy_manifest(
    name="large", prompt=toy_spec(max_message_tokens=16), golden=one_golden(toy_spec(16))
)
CASCADE = cascade_of(SMALL, LARGE, sure_from=0.8)


def message_in(manifest: Manifest, prompt: Sequence[int]) -> str:
    spec = manifest.prompt
    return decode(prompt[len(spec.prefix_ids) : len(prompt) - len(spec.suffix_ids)])


def small(prompt: Sequence[int]) -> Answer | Exception:
    """Sure of billing where the message says so; else it guesses delivery."""
    text = message_in(SMALL, prompt)
    if "reject" in text:
        return MessageRejected("engine_rejected", "of the small one")
    if "nothing" in text:
        return CodeScores({})
    return answer_with(SMALL, *(("billing", 0.9) if text.startswith("sure") else ("delivery", 0.6)))


def large(prompt: Sequence[int]) -> Answer | Exception:
    assert len(prompt) <= LARGE.prompt.max_prompt_tokens
    return answer_with(LARGE, "other", 0.7)
