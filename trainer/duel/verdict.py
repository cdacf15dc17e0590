"""Every candidate against the adapter, and what to ship, by rules that are written down before
the figures are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.artifacts.duel import CandidateKind, Pair
from trainer.duel.candidates import Candidate
from trainer.statistics.metrics import (
    ALPHA,
    bootstrap_difference,
    count_discordant,
    holm,
    mcnemar_exact,
    minimum_detectable_difference,
)

RULES = (
    "1. A candidate that is significantly better than the adapter is shipped in its place (the "
    "most accurate of them). 2. Else, where a baseline (no GPU, no base model) cannot be told from "
    "the adapter, the baseline is shipped (the most accurate of them). 3. Else the adapter. "
    "Significant: McNemar's exact test of each candidate against the adapter, below 5 % after "
    "Holm's correction for all of them."
)
_ELSEWHERE = (
    " It runs elsewhere: what it costs a message, how long it takes and that the messages leave "
    "the house are yours to weigh."
)


@dataclass(frozen=True, slots=True)
class PairedResult:
    """A candidate beside the adapter. ``difference`` is the adapter's accuracy less the
    candidate's, ``p`` the corrected p-value."""

    name: str
    kind: CandidateKind
    accuracy: float
    difference: float
    p: float

    @property
    def is_baseline(self) -> bool:
        """Whether it runs without a GPU and without a base model."""
        return self.kind == "baseline"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Which candidate to ship ("adapter" or another's name), and why, in plain words."""

    candidate: str
    reason: str


@dataclass(frozen=True, slots=True)
class DuelOutcome:
    """The adapter against each other candidate, and what follows.

    ``minimum_detectable_difference`` is that of the pair with the strongest baseline.
    """

    pairs: tuple[Pair, ...]
    minimum_detectable_difference: float
    recommendation: Recommendation


def compare_all(candidates: Sequence[Candidate], truth: Sequence[str], *, seed: int) -> DuelOutcome:
    """Test the first candidate, the adapter, against each other one."""
    adapter, *others = candidates
    right = {candidate.name: is_right(candidate, truth) for candidate in candidates}
    of_adapter = right[adapter.name]
    discordances = [count_discordant(of_adapter, right[other.name]) for other in others]
    p_values = [mcnemar_exact(counts) for counts in discordances]
    pairs, results = [], []
    for other, counts, p, p_holm in zip(
        others, discordances, p_values, holm(p_values), strict=True
    ):
        pairs.append(
            Pair(
                a=adapter.name,
                b=other.name,
                difference=counts.difference,
                interval_95=bootstrap_difference(of_adapter, right[other.name], seed=seed),
                mcnemar_p=p,
                p_holm=p_holm,
                a_only=counts.a_only,
                b_only=counts.b_only,
                minimum_detectable_difference=minimum_detectable_difference(
                    counts.share, counts.total
                ),
            )
        )
        accuracy = float(right[other.name].mean())
        results.append(PairedResult(other.name, other.kind, accuracy, counts.difference, p_holm))
    strongest = max(
        (at for at, result in enumerate(results) if result.is_baseline),
        key=lambda at: results[at].accuracy,
    )
    detectable = pairs[strongest].minimum_detectable_difference
    recommendation = recommend(results, float(of_adapter.mean()), detectable)
    return DuelOutcome(tuple(pairs), detectable, recommendation)


def is_right(candidate: Candidate, truth: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each message whether the candidate's answer is the true label."""
    pairs = zip(candidate.answers, truth, strict=True)
    return np.array([answer == label for answer, label in pairs], dtype=np.bool_)


def recommend(
    results: Sequence[PairedResult], accuracy: float, detectable: float
) -> Recommendation:
    """Apply ``RULES``. ``accuracy`` is the adapter's, ``detectable`` the smallest difference
    that the hold-out finds four times in five."""
    better = [result for result in results if result.p < ALPHA and result.difference < 0]
    if better:
        return _ship_better(_most_accurate(better), accuracy)
    equal = [result for result in results if result.is_baseline and result.p >= ALPHA]
    if equal:
        return _ship_baseline(_most_accurate(equal), accuracy, detectable)
    return _deploy_adapter(results, accuracy)


def _ship_better(best: PairedResult, accuracy: float) -> Recommendation:
    text = (
        f"Ship {best.name}: right {best.accuracy:.1%} of the time against the adapter's "
        f"{accuracy:.1%}, which is more than chance would explain (p = {best.p:.2g})."
    )
    return Recommendation(best.name, text + (_ELSEWHERE if best.kind == "recorded" else ""))


def _ship_baseline(best: PairedResult, accuracy: float, detectable: float) -> Recommendation:
    text = (
        f"Ship {best.name}: right {best.accuracy:.1%} of the time, it cannot be told from the "
        f"adapter's {accuracy:.1%} (p = {best.p:.2g}) and needs no GPU. This hold-out finds "
        f"differences from {detectable:.1%} on; a larger one, or a better adapter, could "
        "change this."
    )
    return Recommendation(best.name, text)


def _deploy_adapter(results: Sequence[PairedResult], accuracy: float) -> Recommendation:
    text = f"Deploy the adapter: right {accuracy:.1%} of the time"
    baselines = [result for result in results if result.is_baseline]
    if baselines:
        best = _most_accurate(baselines)
        text += (
            f", it beats every baseline; the best, {best.name}, reaches "
            f"{best.accuracy:.1%} (p = {best.p:.2g})"
        )
    equal = [result for result in results if not result.is_baseline and result.p >= ALPHA]
    if equal:
        names = ", ".join(f"{result.name} ({result.accuracy:.1%})" for result in equal)
        text += f". Not told apart from it: {names}, which cost more to run or more a message"
    return Recommendation("adapter", f"{text}.")


def _most_accurate(results: Sequence[PairedResult]) -> PairedResult:
    return max(results, key=lambda result: result.accuracy)
