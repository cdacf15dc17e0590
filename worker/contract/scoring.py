"""From an engine's raw scores to one label with a confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.contract.codes import Code
from worker.contract.errors import InvalidScores
from worker.contract.head import Head, OutOfScopeMethod

_MASS_SLACK = 0.02
"""Log-probabilities have the engine's precision: probabilities may add up to a little over 1."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One label and how sure it is.

    ``confidence`` is the calibrated probability of ``label`` among all labels; ``scores`` holds
    it for every label that has one, adding up to 1. ``off_label_mass`` is the share of raw
    probability that the model gave to answers outside the set, None where decoding cannot see it.
    ``out_of_scope`` is what a model with a head has in its place: by its method (see
    ``head.OutOfScopeMethod``) higher for a message that none of the outputs fits, of any sign and
    size, None without a head. ``earlier`` is what the stages of a cascade thought that were asked
    before the one whose decision this is.
    """

    label: str
    confidence: float
    scores: Mapping[str, float]
    off_label_mass: float | None
    out_of_scope: float | None = None
    earlier: tuple[Decision, ...] = ()

    @property
    def misfit(self) -> float | None:
        """Off-label mass, or with a head the out-of-scope score: higher where no label fits."""
        return self.off_label_mass if self.out_of_scope is None else self.out_of_scope


def decide_from_codes(
    logprobs: Mapping[int, float], codes: Mapping[str, Code], temperature: float
) -> Decision:
    """Turn raw log-probabilities of the code tokens (natural log) into a Decision.

    Confidence is a softmax over the labels' log-probabilities divided by ``temperature``
    (temperature scaling: Guo et al. 2017, arXiv 1706.04599). Ties go to the first label in
    taxonomy order. Raises InvalidScores when a code has no score or a score is not a
    log-probability.
    """
    raw: dict[str, float] = {}
    for label, code in codes.items():
        value = logprobs.get(code.token_id)
        if value is None:
            raise InvalidScores(f"the engine gave no score for the code of label {label!r}")
        if not value <= _MASS_SLACK:  # so, too, where it is no number
            raise InvalidScores(f"the engine's score for label {label!r} is {value}")
        raw[label] = value
    best = max(raw.values())
    if best == -math.inf:
        raise InvalidScores("the engine gave every label a probability of zero")
    mass = sum(map(math.exp, raw.values()))
    if mass > 1 + _MASS_SLACK:
        raise InvalidScores(f"the labels' probabilities add up to {mass:.3f}")
    weights = [math.exp((value - best) / temperature) for value in raw.values()]
    total = sum(weights)
    scores = {label: weight / total for label, weight in zip(raw, weights, strict=True)}
    label = max(scores, key=scores.__getitem__)
    return Decision(label, scores[label], scores, min(1.0, max(0.0, 1.0 - mass)))


def decide_from_choice(text: str, logprob: float, labels: tuple[str, ...]) -> Decision:
    """Turn an answer in words and its total log-probability into a Decision.

    The engine was constrained to the labels; the answer is checked nevertheless. Only the chosen
    label has a score, and the off-label mass is not known. Raises InvalidScores.
    """
    label = text.strip()
    if label not in labels:
        raise InvalidScores("the engine answered with words that are no label")
    if math.isnan(logprob) or logprob > _MASS_SLACK:
        raise InvalidScores(f"the engine's score for label {label!r} is {logprob}")
    confidence = min(1.0, math.exp(logprob))
    return Decision(label, confidence, {label: confidence}, None)


def decide_from_logits(
    logits: Sequence[float], head: Head | None, labels: tuple[str, ...], temperature: float
) -> Decision:
    """Turn a head's raw logits, one an output, into a Decision over ``labels``.

    The logits are divided by ``temperature`` and made probabilities of the outputs; those of the
    outputs that count for one label are summed. Ties go to the first label. Raises InvalidScores
    when there is no head, when there are more or fewer logits than outputs, or when one is no
    finite number.
    """
    if head is None:
        raise InvalidScores("the engine gave logits, and the model has no head")
    if len(logits) != len(head.outputs):
        raise InvalidScores(f"the engine gave {len(logits)} scores for {len(head.outputs)} outputs")
    if not all(map(math.isfinite, logits)):
        raise InvalidScores("the engine gave an output a score that is no finite number")
    best = max(logits)
    scores = dict.fromkeys(labels, 0.0)
    total = 0.0
    for output, logit in zip(head.outputs, logits, strict=True):
        weight = math.exp((logit - best) / temperature)
        scores[output.label] += weight
        total += weight
    scores = {label: weight / total for label, weight in scores.items()}
    label = max(scores, key=scores.__getitem__)
    confidence = min(1.0, scores[label])  # a sum of many may round to a little above
    scores[label] = confidence
    return Decision(label, confidence, scores, None, out_of_scope_score(logits, head.out_of_scope))


def out_of_scope_score(logits: Sequence[float], method: OutOfScopeMethod) -> float:
    """Return how unlike all outputs a message is; higher for what fits none."""
    best = max(logits)
    if method == "max-logit":
        return -best
    return -(best + math.log(sum(math.exp(logit - best) for logit in logits)))
