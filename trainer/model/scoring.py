"""Raw scores of prompts, by a language model's codes or an encoder's head."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from trainer.progress import progress
from worker.contract import Branch, Code, CodeWalk, find_branches

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BATCH_SIZE = 64
"""The most rows of a scoring batch."""

BATCH_TOKENS = 4096
"""The most tokens of a scoring batch, prefixes and padding included. Memory depends on the tokens,
not on the rows. This number keeps a GPU busy, and needs less than a training step."""

_PROBES = 4
_LOWEST = -1e4
"""Instead of minus infinity, which JSON cannot represent."""


def token_batches(lengths: Sequence[int], *, rows: int = BATCH_SIZE) -> Iterator[list[int]]:
    """Yield the indexes of the lengths, the longest first, in batches of at most ``rows`` rows and,
    padded to the longest, ``BATCH_TOKENS`` tokens. A longer prompt is a batch by itself."""
    # The longest first, so that a batch that does not fit into memory fails at once.
    order = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    start = 0
    while start < len(order):
        count = max(1, min(rows, BATCH_TOKENS // max(1, lengths[order[start]])))
        yield order[start : start + count]
        start += count


def score_batch(
    causal_lm: Any, prefix: Tensor, codes: Tensor, prompts: Sequence[PromptIds], *, layout: Layout
) -> tuple[Tensor, Tensor]:
    """Return the codes' log-probabilities over the whole vocabulary, (prompts, codes), and whether
    the most probable token is a code, (prompts)."""
    logits = answer_logits(causal_lm, prefix, prompts, layout=layout)
    of_codes = logits[:, codes] - logits.logsumexp(dim=-1, keepdim=True)
    return of_codes, torch.isin(logits.argmax(dim=-1), codes)


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw scores, (prompts, outputs): natural log-probabilities of the labels' codes over the whole
    vocabulary, or a head's logits; whether the most probable answer is a label, (prompts); and the
    seconds in all."""

    logprobs: NDArray[np.float64]
    in_set: NDArray[np.bool_]
    seconds: float


class PromptScorer(Protocol):
    """Scores prompts: a language model by its codes, or an encoder by its head."""

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,
        autocast: bool = False,
    ) -> Scores:
        """Score prompts without gradients and dropout, in ``token_batches`` of at most
        ``batch_size`` rows. ``autocast`` computes in bfloat16."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A language model with its prompt's prefix and each label's code; see ``verify`` for the
    ``layout``."""

    model: LoraModel
    prefix_ids: tuple[int, ...]
    codes: Mapping[str, Code]
    layout: Layout

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,
        autocast: bool = False,
    ) -> Scores:
        """Score prompts: see ``PromptScorer``. Codes of several tokens are walked through as by a
        worker; on the way to the best one, each most probable token has to be one of a code's."""
        branches = find_branches(self.codes.values())
        how: Any = {"batch_size": batch_size, "autocast": autocast}
        if len(branches) == 1 and not branches[0].path:
            return self._next_token(prompts, branches[0].tokens, **how)
        walks = [CodeWalk(self.codes, branches) for _ in prompts]
        inside: list[dict[PromptIds, bool]] = [{} for _ in prompts]  # by a branch's path
        seconds = 0.0
        while asked := _group(walk.next() for walk in walks):
            for branch, places in asked.items():
                found = self._next_token(
                    [(*prompts[at], *branch.path) for at in places], branch.tokens, **how
                )
                seconds += found.seconds
                for at, row, is_code in zip(places, found.logprobs, found.in_set, strict=True):
                    walks[at].add(branch, dict(zip(branch.tokens, row.tolist(), strict=True)))
                    inside[at][branch.path] = bool(is_code)
        scores = np.array([list(walk.scores().values()) for walk in walks])
        ids = [code.ids for code in self.codes.values()]
        in_set = [
            all(is_code for path, is_code in known.items() if ids[best][: len(path)] == path)
            for known, best in zip(inside, scores.argmax(axis=1), strict=True)
        ]
        return Scores(scores, np.array(in_set, dtype=bool), seconds)

    def _next_token(
        self,
        prompts: Sequence[PromptIds],
        tokens: Sequence[int],
        *,
        batch_size: int,
        autocast: bool,
    ) -> Scores:
        """Score tokens, (prompts, tokens), as the next one."""
        device, causal_lm = self.model.device, self.model.causal_lm
        prefix = torch.tensor(self.prefix_ids, device=device)
        ids = torch.tensor(tokens, device=device)

        def ask(batch: Sequence[PromptIds]) -> tuple[Tensor, Tensor]:
            of_codes, inside = score_batch(causal_lm, prefix, ids, batch, layout=self.layout)
            return of_codes.clamp(min=_LOWEST), inside

        with self.model.without_dropout():
            return _score_all(
                prompts,
                ask,
                len(tokens),
                device,
                batch_size=batch_size,
                autocast=autocast,
            )

    def verify(self, prompts: Sequence[PromptIds]) -> None:
        """Compare the forward pass on a few prompts with the model's own. Raises ProofFailed."""
        prefix = torch.tensor(self.prefix_ids, device=self.model.device)
        verify_forward(self.model.causal_lm, prefix, prompts[:_PROBES], layout=self.layout)


def _group(branches: Iterable[Branch | None]) -> dict[Branch, list[int]]:
    """Return the places of those that are asked for the same branch."""
    found: dict[Branch, list[int]] = {}
    for at, branch in enumerate(branches):
        if branch is not None:
            found.setdefault(branch, []).append(at)
    return found


def make_verified_scorer(
    model: LoraModel,
    prefix_ids: tuple[int, ...],
    codes: Mapping[str, Code],
    prompts: Sequence[PromptIds],
) -> Scorer:
    """Return a scorer, by ``codes`` in the labels' order, with the layout "cached" if a few of
    ``prompts`` show that it gives the model's own logits, else "whole". Raises ProofFailed if that
    differs too."""
    whole = Scorer(model, prefix_ids, codes, layout="whole")
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
    """An output of a head: a label, or one of its sublabels."""

    name: str
    label: str
    sublabel: str | None = None


def find_classes(
    examples: Iterable[Example], labels: Sequence[str], *, finer: bool
) -> tuple[Class, ...]:
    """Return the head's classes, by label in the taxonomy's order: with ``finer`` the sublabels
    that occur under each, or the label itself if it has none. The name of a sublabel that occurs
    under two labels, or equals a label's name, includes its label."""
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
    """Return each class's label as an index, (classes)."""
    return np.array([labels.index(each.label) for each in classes], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class HeadScorer:
    """A scorer of a model with a head; the raw scores are the head's logits."""

    model: EncoderModel

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,
        autocast: bool = False,
    ) -> Scores:
        """Score prompts: see ``PromptScorer``. No answer is outside the label set."""
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
            )

    def logits(self, prompts: Sequence[PromptIds]) -> Floats:
        """Return the logits, (prompts, classes), of each prompt alone, without padding, which would
        change the rounding."""
        return self.score(prompts, batch_size=1).logprobs


def _score_all(
    prompts: Sequence[PromptIds],
    ask: Callable[[Sequence[PromptIds]], tuple[Tensor, Tensor]],
    outputs: int,
    device: torch.device,
    *,
    batch_size: int,
    autocast: bool,
) -> Scores:
    """Score prompts in ``token_batches``; ``ask`` returns a batch's raw scores, (prompts, outputs),
    and whether the most probable answer is a label, (prompts)."""
    scores = np.empty((len(prompts), outputs))
    in_set = np.empty(len(prompts), dtype=bool)
    precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast)
    started = time.perf_counter()
    with torch.inference_mode(), precision, progress("scoring", len(prompts)) as advance:
        for chosen in token_batches([len(prompt) for prompt in prompts], rows=batch_size):
            found, inside = ask([prompts[at] for at in chosen])
            scores[chosen] = found.double().cpu().numpy()
            in_set[chosen] = inside.cpu().numpy()
            advance(len(chosen))
    return Scores(scores, in_set, time.perf_counter() - started)
