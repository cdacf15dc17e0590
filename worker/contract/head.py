"""The classification head of a manifest: what a model's outputs are, and what they mean as labels.

Kinds of model that have a head answer with a logit for each output, in one forward pass. An output
is a label of the taxonomy or a finer one under it, whose probabilities are summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from worker.contract.taxonomy import Taxonomy

Pooling = Literal["cls", "mean"]
"""Which hidden state the head reads: the first token's, or the mean over all tokens that are not
padding."""

OutOfScopeMethod = Literal["energy", "max-logit"]
"""How unlike all outputs a message is, higher for what fits none: ``energy`` is minus the logsumexp
of the logits (Liu et al. 2020, arXiv 2010.03759, at a temperature of 1), ``max-logit`` minus the
largest (Hendrycks et al. 2022, arXiv 1911.11132). Both are taken of the raw logits."""

Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """One output of the model, in the order of its logits, and the label that it counts for."""

    name: str
    label: str


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """One ONNX file of an adapter: the whole way from token ids to logits.

    Its graph takes ``input_ids`` and ``attention_mask`` (int64, (messages, tokens); where it has
    ``token_type_ids`` too, they are zeros), pools, normalizes and applies the head, and gives
    ``logits`` (float32, (messages, outputs)). ``tolerance`` is how far a logit of a golden input,
    run alone, may be from the recorded one, in absolute terms: the engine's arithmetic differs
    from the trainer's, and that of 8-bit integers from both.
    """

    file: str
    precision: Precision
    tolerance: float

    def __post_init__(self) -> None:
        if not self.file.endswith(".onnx"):
            raise ValueError(f"head.onnx names {self.file!r}, which is no ONNX file")
        if not self.tolerance > 0:
            raise ValueError(f"head.onnx: the tolerance of {self.file!r} must be above 0")


@dataclass(frozen=True, slots=True)
class GoldenLogits:
    """The logits, one an output, that the trainer's model gives the golden prompt at place
    ``prompt``, run alone in float32."""

    prompt: int
    logits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """What a model with a head answers, and the files that hold it.

    ``normalize``: the pooled vector is scaled to length 1 before the head. ``weights`` names the
    safetensors files of what was trained; ``onnx`` the same model for ONNX Runtime: the first file
    is the one that was judged (``judged``). ``vocabulary`` is the number of token ids that the
    model knows, ``pad_id`` the one that fills a batch up.
    """

    outputs: tuple[HeadOutput, ...]
    pooling: Pooling
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
        if not self.weights:
            raise ValueError("head.weights names no file: the trained part has to be somewhere")
        for name in self.weights:
            if not name.endswith(".safetensors"):
                raise ValueError(f"head.weights names {name!r}, which is no safetensors file")
        if not self.golden_logits:
            raise ValueError("head.golden_logits is empty: an engine could not show that it agrees")
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
        """The ONNX file that temperature, thresholds and probes were made with and that the
        evaluation measures; None where there are none. Another file gives other labels to some
        messages."""
        return self.onnx[0] if self.onnx else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each output, in the order of the logits."""
        return tuple(output.label for output in self.outputs)


def check_head(head: Head, taxonomy: Taxonomy, golden_prompts: int) -> None:
    """Raise ValueError where a head does not fit its manifest."""
    labels = set(head.labels)
    if strange := sorted(labels.difference(taxonomy.names)):
        raise ValueError(f"head.outputs count for labels that are not there: {strange}")
    if without := sorted(set(taxonomy.names) - labels):
        raise ValueError(f"head.outputs has none for the labels {without}")
    for golden in head.golden_logits:
        if not 0 <= golden.prompt < golden_prompts:
            raise ValueError(
                f"head.golden_logits names golden prompt {golden.prompt}; there are "
                f"{golden_prompts}"
            )


def disagreement(
    golden: Sequence[GoldenLogits], found: Sequence[Sequence[float]], tolerance: float
) -> str | None:
    """Say where an engine's logits for golden prompts are not those of the trainer; None where
    each is within ``tolerance``. ``found`` is in the order of ``golden``."""
    worst, at = 0.0, 0
    for wanted, logits in zip(golden, found, strict=True):
        if len(logits) != len(wanted.logits):
            return (
                f"golden prompt {wanted.prompt} has {len(logits)} logits instead of "
                f"{len(wanted.logits)}"
            )
        for one, other in zip(logits, wanted.logits, strict=True):
            distance = abs(one - other)
            if not distance <= worst:  # a NaN is the worst of all
                worst, at = (math.inf if math.isnan(distance) else distance), wanted.prompt
    if worst <= tolerance:
        return None
    return f"a logit of golden prompt {at} is {worst:.3g} off; {tolerance:g} is allowed"
