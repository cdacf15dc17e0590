"""Worlds with a known truth, for ``tests.bench.judges``: messages, groups, adapters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from trainer.artifacts.evaluation import Accepted, KeptPromise, SteeringFigures
from trainer.propose.compare import (
    ALONE,
    OLD_HOLDOUT,
    REVIEW,
    SUREST,
    Compared,
    compare_answers,
    judge,
)
from trainer.statistics.metrics import (
    ALPHA,
    Discordance,
    Groups,
    design_effect,
    mcnemar_exact,
    wilson,
)
from trainer.statistics.paired import (
    alpha_of,
    lowest_difference,
    non_inferiority_p,
    not_wrong_unseen,
)
from trainer.statistics.thresholds import proof, review_threshold
from trainer.steering.measure import count_flips
from trainer.store.gate import judge_kept_promise
from trainer.store.rules import GateVerdict, criterion

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Generator = np.random.Generator

CORRELATION = 0.6
"""Of the latent values of two messages in one group."""

PRECISION, GATE_MARGIN = 0.95, 0.02
VALIDATION, HOLDOUT, PROPOSALS = 800, 1500, 24

_ALIKE = 0.8
"""Share of a message's difficulty, and of its luck, that two adapters have in common."""


def make_groups(rng: Generator, messages: int) -> Groups:
    """Groups of five to ten messages."""
    sizes = rng.integers(5, 11, size=messages // 5 + 1)
    return np.repeat(np.arange(len(sizes)), sizes)[:messages].astype(np.int64)


def normals(rng: Generator, messages: int, groups: Groups | None) -> Floats:
    """Standard normal values, correlated within groups."""
    own = rng.standard_normal(messages)
    if groups is None:
        return own
    shared = rng.standard_normal(int(groups.max()) + 1)[groups]
    found: Floats = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
    return found


def draw_right(rng: Generator, share: float, messages: int, groups: Groups | None) -> Bools:
    """Which answers are right, if ``share`` are right in truth."""
    right: Bools = normals(rng, messages, groups) < norm.ppf(share)
    return right


def draw_pair(
    rng: Generator, worse: float, discordance: float, messages: int, groups: Groups | None
) -> tuple[Bools, Bools]:
    """Two labellings, the first in truth ``worse`` than the second: where each is right."""
    latent = normals(rng, messages, groups)
    first = latent > norm.isf((discordance - worse) / 2)
    second = latent < norm.ppf((discordance + worse) / 2)
    return ~second, ~first


def exact_share_passed(
    total: int, difference: float, discordance: float, passes: Callable[[Discordance], bool]
) -> float:
    """Return how often a labelling of independent messages passes whose accuracy differs from the
    other's by ``difference`` in truth: the sum over every outcome that is not nearly impossible."""
    share = (discordance + difference) / 2 / discordance
    low, high = (int(end) for end in binom.interval(1 - 1e-9, total, discordance))
    passed = 0.0
    for discordant in range(low, high + 1):
        # More wins make passing more likely: find the first that pass by bisection.
        first, last = 0, discordant + 1
        while first < last:
            middle = (first + last) // 2
            if passes(Discordance(middle, discordant - middle, total)):
                last = middle
            else:
                first = middle + 1
        passed += binom.pmf(discordant, total, discordance) * binom.sf(first - 1, discordant, share)
    return float(passed)


def exact_share_missed(total: int, share: float) -> float:
    """Return how often Wilson's interval of so many independent messages misses the ``share``."""
    hits = np.arange(total + 1)
    missed = [
        not low <= share <= high for low, high in (wilson(hit, total) for hit in hits.tolist())
    ]
    return float(binom.pmf(hits, total, share)[missed].sum())


def draw_steering(
    rng: Generator, neutral: float, excess: float, unreviewed: float, groups: Groups
) -> SteeringFigures:
    """Return the figures of pairs whose answers flip for a neutral sentence in ``neutral`` of all
    cases, half of them without review, and for an instruction in ``excess`` more, of which
    ``unreviewed`` are without review."""

    def draw(every: float, unseen: float) -> tuple[Bools, Bools]:
        latent = normals(rng, len(groups), groups)
        return latent < norm.ppf(every), latent < norm.ppf(unseen)

    steered = draw(neutral + excess, neutral / 2 + unreviewed)
    other = draw(neutral, neutral / 2)
    every, unseen = (
        count_flips(with_it, without, groups)
        for with_it, without in zip(steered, other, strict=True)
    )
    return SteeringFigures(sentences="", seed=0, every=every, unreviewed=unseen, families=())


@functools.cache
def _truth() -> tuple[Floats, Floats]:
    """Confidences in falling order, and the true precision down to each."""
    rng = np.random.default_rng(11)
    rows = 400_000
    surest, rest = rng.beta(30.0, 0.6, size=rows), rng.beta(3.0, 1.6, size=rows)
    sure = np.sort(np.where(rng.random(rows) < 0.75, surest, rest))[::-1]
    return sure, np.cumsum(sure) / np.arange(1, rows + 1)


def true_precision(threshold: float) -> float:
    """The true precision of a calibrated adapter above this confidence; 1.0 if nothing is above."""
    sure, precision = _truth()
    count = int(np.searchsorted(-sure, -threshold, side="right"))
    return float(precision[count - 1]) if count else 1.0


def threshold_of(precision: float) -> float:
    """The confidence above which the true precision is this one."""
    sure, precisions = _truth()
    return float(sure[int(np.flatnonzero(precisions >= precision)[-1])])


@dataclass(frozen=True, slots=True)
class Messages:
    """A part of a dataset: which messages are hard for every model, and which belong together."""

    hard: Floats
    luck: Floats
    groups: Groups | None

    @classmethod
    def draw(cls, rng: Generator, count: int, *, grouped: bool) -> Messages:
        groups = make_groups(rng, count) if grouped else None
        return cls(normals(rng, count, groups), normals(rng, count, groups), groups)

    def answer(self, rng: Generator, better: float = 0.0) -> tuple[Floats, Bools]:
        """Confidences of a calibrated adapter, and where it is right. ``better`` turns this
        share of its wrong answers, at any confidence, into right ones."""
        sure, _ = _truth()
        share = np.sqrt(_ALIKE), np.sqrt(1 - _ALIKE)
        hard, luck = (
            share[0] * common + share[1] * normals(rng, len(common), self.groups)
            for common in (self.hard, self.luck)
        )
        confidence = sure[np.minimum((norm.cdf(hard) * len(sure)).astype(int), len(sure) - 1)]
        right = norm.cdf(luck) < confidence
        return confidence, right | (rng.random(len(right)) < better)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's answers to validation and hold-out, and its threshold."""

    validation: tuple[Floats, Bools]
    holdout: tuple[Floats, Bools]
    threshold: float

    def kept(self, part: tuple[Floats, Bools]) -> Bools:
        """Answers that nobody reviews."""
        kept: Bools = part[0] >= self.threshold
        return kept


def make_adapter(
    rng: Generator,
    validation: Messages,
    holdout: Messages,
    *,
    better: float = 0.0,
) -> Adapter:
    """Train one, whose threshold accounts for the groups."""
    answers = validation.answer(rng, better)
    threshold = review_threshold(*answers, PRECISION, floor=0.0, groups=validation.groups)
    return Adapter(answers, holdout.answer(rng, better), threshold)


def promise_of(adapter: Adapter, validation: Messages, holdout: Messages) -> KeptPromise:
    """What an evaluation says about it on validation and hold-out."""
    found = []
    for answers, part in ((adapter.validation, validation), (adapter.holdout, holdout)):
        order = np.argsort(-answers[0], kind="stable")
        order = order[adapter.kept(answers)[order]]
        right, groups = answers[1][order], None if part.groups is None else part.groups[order]
        chosen = part is validation
        found.append(
            Accepted(
                messages=len(order),
                right=int(right.sum()),
                effect=design_effect(right, groups),
                p=proof(right, groups, PRECISION)
                if chosen
                else proof(~right, groups, 1 - PRECISION),
            )
        )
    return KeptPromise(precision=PRECISION, by="lower", validation=found[0], holdout=found[1])


def says_yes(
    new: Adapter, current: Adapter, validation: Messages, holdout: Messages, turn: int
) -> bool:
    """Whether ``propose``, gate included, says "Yes" at this turn (from 1)."""
    groups = holdout.groups
    pairs = pairs_of(new, current)
    compared = [
        compare_answers(name, *pairs[name], groups, turned=name in {REVIEW, SUREST})
        for name in pairs
    ]
    regression = is_no_regression(compared[0].found)
    row = judge_kept_promise(promise_of(new, validation, holdout))
    gate = GateVerdict(
        (row, criterion("against the current adapter", "", "", regression)), None, None
    )
    return judge(compared, gate, {}, turn + 1).verdict == "publish"


def naive_yes(new: Adapter, current: Adapter) -> bool:
    """The same by an inadequate judge: messages are independent, less review is better, every
    proposal gets the whole 5 %, and no promise is checked."""
    pairs = pairs_of(new, current)
    found = {name: compare_answers(name, *pairs[name], None) for name in (OLD_HOLDOUT, REVIEW)}
    alone = compare_answers(ALONE, *pairs[ALONE], None)
    if not is_no_regression(found[OLD_HOLDOUT].found) or found[OLD_HOLDOUT].worse or alone.worse:
        return False
    better = [name for name in found if _better(found[name], ALPHA / 2)]
    worse = [name for name in found if found[name].worse]
    return any(name != REVIEW or not worse for name in better)


def pairs_of(new: Adapter, current: Adapter) -> dict[str, tuple[Bools, Bools]]:
    """The pairs that ``propose`` compares on the hold-out: where each does well."""
    kept = [each.kept(each.holdout) for each in (new, current)]
    right = [each.holdout[1] for each in (new, current)]
    surest = int(kept[1].sum())
    pairs = {
        OLD_HOLDOUT: (right[0], right[1]),
        REVIEW: (kept[0], kept[1]),
        ALONE: (right[0] & kept[0], right[1] & kept[1]),
    }
    if 0 < surest < len(right[1]):
        first, second = (not_wrong_unseen(*each.holdout, surest) for each in (new, current))
        pairs[SUREST] = first, second
    return pairs


def _better(each: Compared, alpha: float) -> bool:
    return lowest_difference(each.found, alpha) > 0


def is_no_regression(found: Discordance) -> bool:
    """Whether the gate passes these counts against the current adapter's."""
    significantly = found.a_only < found.b_only and mcnemar_exact(found) < ALPHA
    return non_inferiority_p(found, GATE_MARGIN) < alpha_of(1) and not significantly


@dataclass(frozen=True, slots=True)
class Sequence:
    """The result of proposals of equally good adapters: the number of "Yes", and whether the
    adapter in service at the end keeps its promise."""

    yes: int
    kept: bool


def propose_equals(rng: Generator, *, grouped: bool) -> Sequence:
    """Propose equally good adapters, on one validation set and hold-out."""
    validation = Messages.draw(rng, VALIDATION, grouped=grouped)
    holdout = Messages.draw(rng, HOLDOUT, grouped=grouped)
    current, yes = make_adapter(rng, validation, holdout), 0
    for turn in range(1, PROPOSALS + 1):
        new = make_adapter(rng, validation, holdout)
        if says_yes(new, current, validation, holdout, turn):
            current, yes = new, yes + 1
    return Sequence(yes, true_precision(current.threshold) >= PRECISION)
