"""The classification head in a manifest: a model's outputs, and the labels they count for.

A model with a head answers with a logit for each output in one forward pass. An output is a label
of the taxonomy or a subdivision of one; a label's probability is the sum over its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from worker.contract.taxonomy import Taxonomy

Pooling = Literal["cls", "mean"]
"""The hidden state that the head reads: the first token's, or the mean over all tokens except
padding."""

OutOfScopeMethod = Literal["energy", "max-logit"]
"""A score of the raw logits, higher for messages that fit no output: ``energy`` is minus their
logsumexp (Liu et al. 2020, arXiv 2010.03759, at a temperature of 1), ``max-logit`` is minus the
largest (Hendrycks et al. 2022, arXiv 1911.11132)."""

Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """One output of the model, and the label that it counts for."""

    name: str
    label: str


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """One ONNX file of an adapter: the whole model, from token ids or text to logits.

    Its graph takes ``input_ids`` and ``attention_mask`` (int64, (messages, tokens); also
    ``token_type_ids``, all zeros, if it has that input), pools, normalizes, applies the head, and
    returns ``logits`` (float32, (messages, outputs)). A graph that tokenizes by itself takes
    ``text`` (string, (messages)) instead: see ``text_of``. ``tolerance`` is the allowed absolute
    difference between a logit of a golden prompt, run alone, and the recorded one: the engine's
    arithmetic differs from the trainer's, and that of 8-bit integers from both.
    """

    file: str
    precision: Precision
    tolerance: float

    def __post_init__(self) -> None:
        if not self.file.endswith(".onnx"):
            raise ValueError(f"head.onnx names {self.file!r}, which is not an .onnx file")
        if not self.tolerance > 0:
            raise ValueError(f"head.onnx: the tolerance of {self.file!r} must be above 0")


TEXT_INPUT = "text"
"""The only input of a graph that tokenizes by itself."""

BYTES = 256


def text_of(ids: Sequence[int]) -> str:
    """Return the text of a prompt for a graph that takes text.

    Such an adapter's ``tokenizer.json`` has a token for each byte of UTF-8, and no other, with the
    byte as its id. So its prompts are token ids like all others, and are limited, shortened, and
    checked by golden prompts. A character of which shortening left only a part is dropped.
    """
    return bytes(ids).decode("utf-8", "ignore")


@dataclass(frozen=True, slots=True)
class GoldenLogits:
    """The logits that the trainer's model gives golden prompt number ``prompt``, run alone in
    float32."""

    prompt: int
    logits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """A head's outputs, in the order of the logits, and the files of the model.

    ``normalize``: the pooled vector is scaled to length 1 before the head. ``weights`` names the
    safetensors files of the trained part, ``onnx`` the whole model's files for ONNX Runtime, the
    ``judged`` one first. A model that was trained elsewhere has only its ``onnx`` files, and no
    ``pooling``: what it does is in them. ``vocabulary`` is the number of token ids, ``pad_id`` the
    padding's.
    """

    outputs: tuple[HeadOutput, ...]
    pooling: Pooling | None
    normalize: bool
    out_of_scope: OutOfScopeMethod
    vocabulary: int
    pad_id: int
    weights: tuple[str, ...]
    golden_logits: tuple[GoldenLogits, ...]
    onnx: tuple[OnnxModel, ...] = ()

    def __post_init__(self) -> None:
        names = [output.name for output in self.outputs]
        if len(set(names)) != len(names):
            raise ValueError("head.outputs names an output twice")
        if not 0 <= self.pad_id < self.vocabulary:
            raise ValueError(
                f"head.pad_id is {self.pad_id}; the vocabulary has {self.vocabulary} ids"
            )
        if not self.weights and not self.onnx:
            raise ValueError("head.weights and head.onnx name no file: list the model's")
        if bool(self.weights) is not (self.pooling is not None):
            raise ValueError("head.pooling belongs to head.weights: give both or neither")
        for name in self.weights:
            if not name.endswith(".safetensors"):
                raise ValueError(f"head.weights names {name!r}, which is not a .safetensors file")
        if not self.golden_logits:
            raise ValueError("head.golden_logits is empty: an engine could not be checked")
        for golden in self.golden_logits:
            if len(golden.logits) != len(names):
                raise ValueError(
                    f"head.golden_logits has {len(golden.logits)} logits for prompt "
                    f"{golden.prompt}, and the head {len(names)} outputs"
                )

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the head names."""
        return (*self.weights, *(model.file for model in self.onnx))

    @property
    def judged(self) -> OnnxModel | None:
        """The ONNX file that temperature and thresholds were fitted on and that the evaluation
        measures; None if there is none. Another file gives some messages other labels."""
        return self.onnx[0] if self.onnx else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each output."""
        return tuple(output.label for output in self.outputs)


def check_head(head: Head, taxonomy: Taxonomy, golden_prompts: int) -> None:
    """Raise ValueError if a head does not fit its manifest."""
    labels = set(head.labels)
    if strange := sorted(labels.difference(taxonomy.names)):
        raise ValueError(f"head.outputs has unknown labels: {strange}")
    if without := sorted(set(taxonomy.names) - labels):
        raise ValueError(f"head.outputs has no output for the labels {without}")
    for golden in head.golden_logits:
        if not 0 <= golden.prompt < golden_prompts:
            raise ValueError(
                f"head.golden_logits names golden prompt {golden.prompt}; there are "
                f"{golden_prompts}"
            )


def disagreement(
    golden: Sequence[GoldenLogits], found: Sequence[Sequence[float]], tolerance: float
) -> str | None:
    """Describe the largest difference between an engine's logits for the golden prompts and the
    trainer's; None if each is within ``tolerance``. ``found`` is in the order of ``golden``."""
    worst, at = 0.0, 0
    for wanted, logits in zip(golden, found, strict=True):
        if len(logits) != len(wanted.logits):
            return (
                f"golden prompt {wanted.prompt} has {len(logits)} logits instead of "
                f"{len(wanted.logits)}"
            )
        for one, other in zip(logits, wanted.logits, strict=True):
            distance = abs(one - other)
            if not distance <= worst:  # also true for NaN, which counts as infinitely far off
                worst, at = (math.inf if math.isnan(distance) else distance), wanted.prompt
    if worst <= tolerance:
        return None
    return f"a logit of golden prompt {at} is {worst:.3g} off; {tolerance:g} is allowed"
