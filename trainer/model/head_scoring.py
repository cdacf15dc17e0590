"""A model with a classification head: what its outputs stand for, and the loop that scores many
messages."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.dataset.folder import Example
from trainer.model.encoder import EncoderModel
from trainer.model.forward import PromptIds
from trainer.model.scoring import BATCH_SIZE, BATCH_TOKENS, Scores, token_batches

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
        batch_seconds = np.empty(len(prompts))
        logits = self._empty(len(prompts))
        started = time.perf_counter()
        for chosen, found, seconds in self._batches(prompts, batch_size, autocast=autocast):
            logits[chosen], batch_seconds[chosen] = found, seconds
            if on_progress:
                on_progress(len(chosen))
        return Scores(
            logprobs=logits,
            in_set=np.ones(len(prompts), dtype=bool),
            batch_seconds=batch_seconds,
            seconds=time.perf_counter() - started,
        )

    def logits(self, prompts: Sequence[PromptIds]) -> Floats:
        """Return the logits, (prompts, classes), each prompt scored alone: without padding, so that
        no other arithmetic is in them."""
        found = self._empty(len(prompts))
        for chosen, rows, _ in self._batches(prompts, 1, autocast=False):
            found[chosen] = rows
        return found

    def _empty(self, rows: int) -> Floats:
        return np.empty((rows, self.model.classes))

    def _batches(
        self, prompts: Sequence[PromptIds], batch_size: int, *, autocast: bool
    ) -> Iterator[tuple[list[int], Floats, float]]:
        model = self.model
        precision = torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=autocast)
        lengths = [len(prompt) for prompt in prompts]
        with torch.inference_mode(), precision, model.without_dropout():
            for chosen in token_batches(lengths, rows=batch_size, tokens=BATCH_TOKENS):
                began = time.perf_counter()
                found = model.logits([prompts[at] for at in chosen])
                yield chosen, found.double().cpu().numpy(), time.perf_counter() - began
