"""Raw scores of prompts: by a language model's codes, with the proof of its forward pass, or by an
encoder's head."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.dataset.folder import Example
from trainer.errors import ProofFailed
from trainer.model.encoder import EncoderModel
from trainer.model.forward import Layout, PromptIds, answer_logits, verify_forward
from trainer.model.lora_model import LoraModel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BATCH_SIZE = 64
"""Rows of a scoring batch at most."""

BATCH_TOKENS = 4096
"""Tokens of a scoring batch at most, prefixes and padding included. Memory grows with them and not
with the rows; so many keep a GPU busy, and take less than a training step of the same base."""

_PROBES = 4
_LOWEST = -1e4
"""Stands for minus infinity, which JSON has no number for."""


def token_batches(
    lengths: Sequence[int], *, rows: int = BATCH_SIZE, tokens: int = BATCH_TOKENS
) -> Iterator[list[int]]:
    """Yield the index of every length once, the longest first (what does not fit is known at
    once), in batches that hold at most so many rows and, padded to their longest, so many tokens.
    A prompt that is longer than that goes alone."""
    order = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    start = 0
    while start < len(order):
        count = max(1, min(rows, tokens // max(1, lengths[order[start]])))
        yield order[start : start + count]
        start += count


def score_batch(
    causal_lm: Any, prefix: Tensor, codes: Tensor, prompts: Sequence[PromptIds], *, layout: Layout
) -> tuple[Tensor, Tensor]:
    """Return the codes' log-probabilities, (prompts, codes), and whether the likeliest token is a
    code, (prompts). The vocabulary is there at the last position alone, for its sum: the mass
    that no label gets is one minus the codes'."""
    logits = answer_logits(causal_lm, prefix, prompts, layout=layout)
    of_codes = logits[:, codes] - logits.logsumexp(dim=-1, keepdim=True)
    return of_codes, torch.isin(logits.argmax(dim=-1), codes)


@dataclass(frozen=True, slots=True)
class Scores:
    """The model's raw scores, (prompts, outputs): natural log-probabilities of the labels' codes
    under a softmax over the whole vocabulary, or the logits of a head. Whether the likeliest answer
    of all is a label, (prompts); and how long each prompt's batch took, (prompts), and all of them,
    in seconds."""

    logprobs: NDArray[np.float64]
    in_set: NDArray[np.bool_]
    batch_seconds: NDArray[np.float64]
    seconds: float


class PromptScorer(Protocol):
    """Scores prompts: a language model by its codes, or an encoder by its head."""

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,
        autocast: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """Score prompts without gradients and without dropout, in ``token_batches`` of at most
        ``batch_size`` rows."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A model with one prompt's fixed part and codes. ``layout`` is one that this architecture was
    shown to allow (``verify``)."""

    model: LoraModel
    prefix_ids: tuple[int, ...]
    label_ids: tuple[int, ...]
    layout: Layout

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,
        autocast: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """Score prompts without gradients and without dropout, in ``token_batches`` of at most
        ``batch_size`` rows.

        ``autocast`` computes in bfloat16; ``on_progress`` is told how many more are done.
        """
        device, causal_lm = self.model.device, self.model.causal_lm
        prefix = torch.tensor(self.prefix_ids, device=device)
        codes = torch.tensor(self.label_ids, device=device)

        def ask(batch: Sequence[PromptIds]) -> tuple[Tensor, Tensor]:
            of_codes, inside = score_batch(causal_lm, prefix, codes, batch, layout=self.layout)
            return of_codes.clamp(min=_LOWEST), inside

        with self.model.without_dropout():
            return _score_all(
                prompts,
                ask,
                len(self.label_ids),
                device,
                batch_size=batch_size,
                autocast=autocast,
                on_progress=on_progress,
            )

    def verify(self, prompts: Sequence[PromptIds]) -> None:
        """Compare the forward pass on a few prompts with the model's own. Raises ProofFailed."""
        prefix = torch.tensor(self.prefix_ids, device=self.model.device)
        verify_forward(self.model.causal_lm, prefix, prompts[:_PROBES], layout=self.layout)


def make_verified_scorer(
    model: LoraModel,
    prefix_ids: tuple[int, ...],
    label_ids: tuple[int, ...],
    prompts: Sequence[PromptIds],
) -> Scorer:
    """Return a scorer by codes that scores prompts with their fixed part once a batch where that
    gives the model's own logits, as is verified on a few of ``prompts``, else whole. Raises
    ProofFailed where whole ones differ from the model's own as well."""
    whole = Scorer(model, prefix_ids, label_ids, layout="whole")
    if prefix_ids:
        cached = replace(whole, layout="cached")
        try:
            cached.verify(prompts)
        except ProofFailed:
            pass
        else:
            return cached
    whole.verify(prompts)
    return whole


@dataclass(frozen=True, slots=True)
class Class:
    """What one output of a head stands for, by its ``name``: a label, or one of a label's finer
    ones."""

    name: str
    label: str
    sublabel: str | None = None


def find_classes(
    examples: Iterable[Example], labels: Sequence[str], *, finer: bool
) -> tuple[Class, ...]:
    """Return the head's classes, by label in the taxonomy's order: with ``finer`` the finer labels
    that occur under each, and the label itself where it has none. A finer label that stands under
    two labels, or is named as one, has its label in its name."""
    found: dict[str, set[str]] = {label: set() for label in labels}
    for example in examples:
        if finer and example.sublabel is not None:
            found[example.label].add(example.sublabel)
    taken = Counter((*labels, *(name for names in found.values() for name in names)))
    return tuple(
        each
        for label in labels
        for each in (
            [
                Class(name if taken[name] == 1 else f"{label}/{name}", label, name)
                for name in sorted(found[label])
            ]
            or [Class(label, label)]
        )
    )


def label_indexes(classes: Sequence[Class], labels: Sequence[str]) -> Ints:
    """Return for each class, (classes), the place of its label among the labels."""
    return np.array([labels.index(each.label) for each in classes], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class HeadScorer:
    """A model with a head; its raw scores are the head's logits."""

    model: EncoderModel

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,
        autocast: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """Score prompts without gradients and without dropout, in ``token_batches`` of at most
        ``batch_size`` rows; ``autocast`` computes in bfloat16, ``on_progress`` is told how many
        more are done. No answer can be outside the label set."""
        model = self.model

        def ask(batch: Sequence[PromptIds]) -> tuple[Tensor, Tensor]:
            return model.logits(batch), torch.ones(len(batch), dtype=torch.bool)

        with model.without_dropout():
            return _score_all(
                prompts,
                ask,
                model.classes,
                model.device,
                batch_size=batch_size,
                autocast=autocast,
                on_progress=on_progress,
            )

    def logits(self, prompts: Sequence[PromptIds]) -> Floats:
        """Return the logits, (prompts, classes), each prompt scored alone: without padding, so that
        no other arithmetic is in them."""
        return self.score(prompts, batch_size=1).logprobs


def _score_all(
    prompts: Sequence[PromptIds],
    ask: Callable[[Sequence[PromptIds]], tuple[Tensor, Tensor]],
    outputs: int,
    device: torch.device,
    *,
    batch_size: int,
    autocast: bool,
    on_progress: Callable[[int], None] | None,
) -> Scores:
    """Score prompts in ``token_batches``; ``ask`` gives a batch's raw scores, (prompts, outputs),
    and whether the likeliest answer of all is a label, (prompts)."""
    scores = np.empty((len(prompts), outputs))
    in_set = np.empty(len(prompts), dtype=bool)
    batch_seconds = np.empty(len(prompts))
    precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast)
    started = time.perf_counter()
    with torch.inference_mode(), precision:
        for chosen in token_batches([len(prompt) for prompt in prompts], rows=batch_size):
            began = time.perf_counter()
            found, inside = ask([prompts[at] for at in chosen])
            scores[chosen] = found.double().cpu().numpy()
            in_set[chosen] = inside.cpu().numpy()
            batch_seconds[chosen] = time.perf_counter() - began
            if on_progress:
                on_progress(len(chosen))
    return Scores(scores, in_set, batch_seconds, time.perf_counter() - started)
