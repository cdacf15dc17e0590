"""From an engine's raw scores to one label with a confidence."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from worker.contract.codec import LEAVE_OUT_EMPTY
from worker.contract.errors import ContractError, InvalidScores
from worker.contract.head import Head, OutOfScopeMethod
from worker.contract.prompt import Encode, SingleTokens, no_tokens

_CANDIDATES = string.ascii_uppercase + string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class Code:
    """A label's answer: its text and the one token id that the text has."""

    text: str
    token_id: int


def choose_codes(
    labels: Sequence[str], suffix: str, encode_control: Encode, tokens: SingleTokens = no_tokens
) -> dict[str, Code]:
    """Choose a code for each label: what is one token right after the prompt.

    Letters and digits come first; where there are more labels than those, ``tokens`` offers
    others, in its order. Of them those serve that can be seen (printable, without a blank), and
    that the tokenizer reads as the same token in that place. Raises ContractError when the
    tokenizer has too few for the label set.
    """
    suffix_ids = tuple(encode_control(suffix))
    by_token: dict[int, Code] = {}  # a tokenizer may map two characters to one token
    for text, token_id in _candidates(tokens):
        ids = tuple(encode_control(suffix + text))
        if ids[:-1] != suffix_ids or len(ids) != len(suffix_ids) + 1:
            continue
        if token_id in {None, ids[-1]}:
            by_token.setdefault(ids[-1], Code(text, ids[-1]))
        if len(by_token) == len(labels):
            break
    if len(by_token) < len(labels):
        raise ContractError(
            f"this tokenizer offers {len(by_token)} one-token codes and there are {len(labels)} "
            "labels: merge labels, or take a base with a larger vocabulary"
        )
    return dict(zip(labels, by_token.values(), strict=True))


def _candidates(tokens: SingleTokens) -> Iterator[tuple[str, int | None]]:
    """Yield texts, and which token each should be where that is known. ``tokens`` is not asked
    before the letters and digits are used up: it may go through a whole vocabulary."""
    for text in _CANDIDATES:
        yield text, None
    for text, token_id in tokens():
        if text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text and not _has_blank(text):
            yield text, token_id


def _has_blank(text: str) -> bool:
    return not text or any(character.isspace() for character in text)


def check_codes(
    labels: Iterable[str], codes: Mapping[str, Code], suffix: str, encode_control: Encode
) -> str | None:
    """Return what is wrong with ``codes`` under this tokenizer, or None."""
    names = tuple(labels)
    if set(names) != set(codes):
        return f"codes for {sorted(codes)} but labels {sorted(names)}"
    ids = [code.token_id for code in codes.values()]
    if len(set(ids)) != len(ids):
        return "two labels share a code token"
    suffix_ids = tuple(encode_control(suffix))
    for name in names:
        code = codes[name]
        found = tuple(encode_control(suffix + code.text))
        if found != (*suffix_ids, code.token_id):
            return (
                f"label {name!r} has the code {code.text!r} as token {code.token_id}, "
                f"but this tokenizer reads it as {list(found[len(suffix_ids) :])}"
            )
    return None


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
        if not value <= _MASS_SLACK:  # so, too, where it is not a number
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


ReviewReason = Literal["low_confidence", "off_label_mass", "out_of_scope", "disagreement"]
"""Why a label is doubtful: confidence below its threshold, off-label mass or out-of-scope score
above theirs, or an earlier stage of a cascade that thought otherwise."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a person should look: confidence below, off-label mass or out-of-scope score above.

    None turns one off. A model has off-label mass or an out-of-scope score, never both.
    ``review_disagreement`` is of cascades: from this confidence on, of an earlier stage in another
    label, its disagreement is a reason (0: any).
    """

    review_confidence: float | None
    review_off_label_mass: float | None = None
    review_out_of_scope: float | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    review_disagreement: float | None = field(default=None, metadata=LEAVE_OUT_EMPTY)


def review_reasons(decision: Decision, thresholds: Thresholds) -> tuple[ReviewReason, ...]:
    """Return why a person should look at ``decision``; empty where none needs to.

    A value that equals its threshold passes. An off-label mass, or an out-of-scope score, that the
    model does not have is no reason.
    """
    reasons: list[ReviewReason] = []
    least, most = thresholds.review_confidence, thresholds.review_off_label_mass
    mass = decision.off_label_mass
    if least is not None and decision.confidence < least:
        reasons.append("low_confidence")
    if most is not None and mass is not None and mass > most:
        reasons.append("off_label_mass")
    farthest, score = thresholds.review_out_of_scope, decision.out_of_scope
    if farthest is not None and score is not None and score > farthest:
        reasons.append("out_of_scope")
    heard = thresholds.review_disagreement
    if heard is not None and any(
        other.label != decision.label and other.confidence >= heard for other in decision.earlier
    ):
        reasons.append("disagreement")
    return tuple(reasons)
