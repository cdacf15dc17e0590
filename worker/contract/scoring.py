"""Label codes, decisions, and the review rule: from an engine's raw scores to one label.

In this order: codes, which the trainer chooses once (``choose_codes``) and a worker checks; the
walk through codes of several tokens; ``decide_from_*``, one for each way in which an engine can
answer; ``review_reasons``.
"""

from __future__ import annotations

import math
import string
from collections import Counter
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
    """The answer that stands for a label: its text and its tokens. A code that the trainer chose is
    one token; ``rest`` are the further ones of the words that an adapter from elsewhere learnt."""

    text: str
    token_id: int
    rest: tuple[int, ...] = field(default=(), metadata=LEAVE_OUT_EMPTY)

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens."""
        return (self.token_id, *self.rest)


def choose_codes(
    labels: Sequence[str], suffix: str, encode_control: Encode, tokens: SingleTokens = no_tokens
) -> dict[str, Code]:
    """Choose a code for each label: a text that is one token right after the prompt.

    Letters and digits come first. For more labels than those, ``tokens`` offers others in order of
    preference; a token qualifies if it is printable, has no blank, and is read as the same token in
    that place. Raises ContractError if the tokenizer has too few.
    """
    suffix_ids = tuple(encode_control(suffix))
    # By token, because a tokenizer may map two characters to the same token (one that folds case).
    by_token: dict[int, Code] = {}
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
    """Yield texts, each with the token that it should be, if known. ``tokens`` is called only after
    letters and digits are used up: it may go through a whole vocabulary."""
    for text in _CANDIDATES:
        yield text, None
    for text, token_id in tokens():
        if text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text and not _has_blank(text):
            yield text, token_id


def _has_blank(text: str) -> bool:
    return not text or any(character.isspace() for character in text)


def word_codes(words: Mapping[str, str], suffix: str, encode_control: Encode) -> dict[str, Code]:
    """Return the codes of an adapter that answers with the words of each label, given with whatever
    ends an answer. Raises ContractError if they cannot be told apart, or are not tokens of their
    own after the prompt."""
    start = len(encode_control(suffix))
    codes = {}
    for label, text in words.items():
        ids = tuple(encode_control(suffix + text))[start:]
        if not ids:
            raise ContractError(f"the answer of label {label!r} has no token")
        codes[label] = Code(text, ids[0], ids[1:])
    if problem := check_codes(words, codes, suffix, encode_control):
        raise ContractError(problem)
    return codes


def check_codes(
    labels: Iterable[str], codes: Mapping[str, Code], suffix: str, encode_control: Encode
) -> str | None:
    """Return the problem with ``codes`` under this tokenizer, or None."""
    names = tuple(labels)
    if set(names) != set(codes):
        return f"codes for {sorted(codes)} but labels {sorted(names)}"
    for name, code in codes.items():
        for other in names:
            if other != name and codes[other].ids[: len(code.ids)] == code.ids:
                return f"the code of label {name!r} is also the beginning of {other!r}'s"
    suffix_ids = tuple(encode_control(suffix))
    for name in names:
        code = codes[name]
        found = tuple(encode_control(suffix + code.text))
        if found != suffix_ids + code.ids:
            return (
                f"label {name!r} has the code {code.text!r} as tokens {list(code.ids)}, "
                f"but this tokenizer reads it as {list(found[len(suffix_ids) :])}"
            )
    return None


# --- Codes of several tokens ---
#
# They form a prefix tree. An engine is asked for the next token only where codes part, so a model
# whose codes are one token each is asked once, and one that answers in words seldom more than
# twice. What is known then is the same: a raw log-probability of every label.


_UNLIKELY = math.log(0.001)
"""A branch that is this much less probable than the best label is not asked."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A place where codes part: the tokens that they have in common, and those that may follow."""

    path: tuple[int, ...]
    tokens: tuple[int, ...]


def find_branches(codes: Iterable[Code]) -> tuple[Branch, ...]:
    """Return where codes part, the shorter paths first; none without codes. No code begins
    another."""
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for code in codes:
        for at, token in enumerate(code.ids):
            following.setdefault(code.ids[:at], {})[token] = None
    parting = [Branch(path, tuple(tokens)) for path, tokens in following.items() if len(tokens) > 1]
    if following and not parting:  # one label alone
        return (Branch((), tuple(following[()])),)
    return tuple(sorted(parting, key=lambda branch: len(branch.path)))


class CodeWalk:
    """Scores the codes for one message: ask for ``next``, ``add`` what the engine says, until
    ``next`` is None."""

    def __init__(self, codes: Mapping[str, Code], branches: Sequence[Branch]) -> None:
        self._codes = codes
        self._waiting = list(branches)
        # By the tokens up to and with one after a branch: the sum of the branches' logprobs.
        self._known: dict[tuple[int, ...], float] = {}

    def next(self) -> Branch | None:
        """Return the branch to ask for, None if the rest would change nothing that matters."""
        if not self._waiting:
            return None
        least = max(self._value(code.ids) for code in self._codes.values()) + _UNLIKELY
        return next((each for each in self._waiting if self._value(each.path) >= least), None)

    def add(self, branch: Branch, logprobs: Mapping[int, float]) -> None:
        """Take the log-probabilities (natural log) of a branch's tokens, by token id. Raises
        InvalidScores if one is missing."""
        self._waiting.remove(branch)
        before = self._value(branch.path)
        for token in branch.tokens:
            if token not in logprobs:
                raise InvalidScores(f"the engine gave no score for token {token} of the codes")
            self._known[(*branch.path, token)] = before + logprobs[token]

    def scores(self) -> dict[str, float]:
        """Return the raw log-probability of each label's code. The codes behind a branch that was
        not asked share its probability."""
        ends = {label: self._end(code.ids) for label, code in self._codes.items()}
        sharing = Counter(ends.values())
        return {label: self._known[end] - math.log(sharing[end]) for label, end in ends.items()}

    def _value(self, path: tuple[int, ...]) -> float:
        return self._known.get(self._end(path), 0.0)

    def _end(self, path: tuple[int, ...]) -> tuple[int, ...]:
        """Return the longest beginning of a path that has a value; empty if none has."""
        lengths = range(len(path), 0, -1)
        return next((path[:length] for length in lengths if path[:length] in self._known), ())


# --- Decisions ---


# Half-precision log-probabilities may add up to slightly more than 1.
_MASS_SLACK = 0.02


# Not frozen: one is made for each record, and a frozen dataclass takes four times as long to make.
@dataclass(slots=True)
class Decision:
    """One label, with the model's confidence in it.

    ``confidence`` is the calibrated probability of ``label`` among all labels; ``scores`` has that
    of each label and adds up to 1. ``off_label_mass`` is the raw probability of answers that are
    not a label, None with a head. A head has ``out_of_scope`` instead: higher for a message that
    fits no output, of any sign and scale (``head.OutOfScopeMethod``). ``earlier`` has the decisions
    of the cascade's stages before the one that answered.
    """

    label: str
    confidence: float
    scores: Mapping[str, float]
    off_label_mass: float | None
    out_of_scope: float | None = None
    earlier: tuple[Decision, ...] = ()

    @property
    def misfit(self) -> float | None:
        """Off-label mass, or a head's out-of-scope score: higher if no label fits."""
        return self.off_label_mass if self.out_of_scope is None else self.out_of_scope


def decide_from_codes(
    logprobs: Mapping[str, float], labels: Sequence[str], temperature: float
) -> Decision:
    """Turn the raw log-probability (natural log) of each label's code into a Decision.

    Confidence is a softmax over the labels' log-probabilities divided by ``temperature``
    (temperature scaling: Guo et al. 2017, arXiv 1706.04599). Ties go to the first label. Raises
    InvalidScores when a code has no score or a score is not a log-probability.
    """
    raw: dict[str, float] = {}
    for label in labels:
        value = logprobs.get(label)
        if value is None:
            raise InvalidScores(f"the engine gave no score for the code of label {label!r}")
        if not value <= _MASS_SLACK:  # written so that NaN fails too
            raise InvalidScores(f"the engine's score for label {label!r} is {value}")
        raw[label] = value
    best = max(raw.values())
    if best == -math.inf:
        raise InvalidScores("the engine gave every label a probability of zero")
    mass = sum(map(math.exp, raw.values()))
    if mass > 1 + _MASS_SLACK:
        raise InvalidScores(f"the labels' probabilities add up to {mass:.3f}")
    # Relative to the best one, so that exp neither overflows nor makes every weight zero.
    weights = [math.exp((value - best) / temperature) for value in raw.values()]
    total = sum(weights)
    scores = {label: weight / total for label, weight in zip(raw, weights, strict=True)}
    label = max(scores, key=scores.__getitem__)
    return Decision(label, scores[label], scores, min(1.0, max(0.0, 1.0 - mass)))


def decide_from_logits(
    logits: Sequence[float], head: Head | None, labels: tuple[str, ...], temperature: float
) -> Decision:
    """Turn a head's raw logits, one for each output, into a Decision over ``labels``.

    A softmax of the logits divided by ``temperature`` gives the outputs' probabilities; those of
    outputs with the same label are summed. Ties go to the first label. Raises InvalidScores
    without a head, for the wrong number of logits, and for a logit that is not finite.
    """
    if head is None:
        raise InvalidScores("the engine gave logits, but the model has no head")
    if len(logits) != len(head.outputs):
        raise InvalidScores(f"the engine gave {len(logits)} scores for {len(head.outputs)} outputs")
    if not all(map(math.isfinite, logits)):
        raise InvalidScores("the engine gave an output a score that is not a finite number")
    best = max(logits)
    scores = dict.fromkeys(labels, 0.0)
    total = 0.0
    # The temperature comes before the sum. With another one after it, accuracy and calibration on
    # 3,200 of the bank's messages differed by no more than chance, in both directions, and a model
    # that is too unsure was more accurate this way (90.3 and 89.5 %).
    for output, logit in zip(head.outputs, logits, strict=True):
        weight = math.exp((logit - best) / temperature)
        scores[output.label] += weight
        total += weight
    scores = {label: weight / total for label, weight in scores.items()}
    label = max(scores, key=scores.__getitem__)
    confidence = min(1.0, scores[label])  # a sum of several may round to slightly above 1
    scores[label] = confidence
    return Decision(label, confidence, scores, None, out_of_scope_score(logits, head.out_of_scope))


def out_of_scope_score(logits: Sequence[float], method: OutOfScopeMethod) -> float:
    """Return how unlike all outputs a message is: higher means it fits none."""
    best = max(logits)
    if method == "max-logit":
        return -best
    return -(best + math.log(sum(math.exp(logit - best) for logit in logits)))


# --- Review ---


ReviewReason = Literal["low_confidence", "off_label_mass", "out_of_scope", "disagreement"]
"""Why a decision goes to review: confidence below its threshold, off-label mass or out-of-scope
score above theirs, or an earlier stage of a cascade that preferred another label."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits beyond which a decision goes to review; None turns one off.

    A confidence below, or an off-label mass or out-of-scope score above its limit is a reason. A
    model has off-label mass or an out-of-scope score, never both. ``review_disagreement`` applies
    to cascades: the confidence (0: any) from which an earlier stage's other label is a reason.
    """

    review_confidence: float | None
    review_off_label_mass: float | None = None
    review_out_of_scope: float | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    review_disagreement: float | None = field(default=None, metadata=LEAVE_OUT_EMPTY)


def review_reasons(decision: Decision, thresholds: Thresholds) -> tuple[ReviewReason, ...]:
    """Return the reasons to review a decision. A value that equals its threshold, or that the model
    does not have, is not a reason."""
    reasons: list[ReviewReason] = []
    min_confidence = thresholds.review_confidence
    if min_confidence is not None and decision.confidence < min_confidence:
        reasons.append("low_confidence")
    if _is_above(decision.off_label_mass, thresholds.review_off_label_mass):
        reasons.append("off_label_mass")
    if _is_above(decision.out_of_scope, thresholds.review_out_of_scope):
        reasons.append("out_of_scope")
    disagreement = thresholds.review_disagreement
    if disagreement is not None and any(
        stage.label != decision.label and stage.confidence >= disagreement
        for stage in decision.earlier
    ):
        reasons.append("disagreement")
    return tuple(reasons)


def _is_above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit
