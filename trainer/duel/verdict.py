"""Every candidate against the adapter, and what to ship, by rules that are written down before
the figures are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.artifacts.duel import CandidateKind, Conclusion, Pair
from trainer.duel.candidates import ADAPTER, Candidate
from trainer.statistics.figures import in_points
from trainer.statistics.metrics import (
    ALPHA,
    Discordance,
    Groups,
    count_discordant,
    holm,
    mcnemar_exact,
    minimum_detectable_difference,
)
from trainer.statistics.paired import (
    largest_discordance,
    lowest_difference,
    messages_for,
    non_inferiority_p,
    paired_interval,
    power,
    required_messages,
    smallest_margin,
)

MARGIN = 0.01
"""One point: what a baseline may be worse and still be shipped, unless the user says otherwise."""

_RULES = (
    "1. A candidate that is significantly better than the adapter is shipped in its place (the "
    "most accurate of them): McNemar's exact test of each against the adapter, below 5 % after "
    "Holm's correction for all of them. 2. Else the baseline (no GPU, no base model) that is the "
    "most accurate on validation is shipped, if the hold-out shows that it is less than {margin} "
    "worse than the adapter: Tango's score test for non-inferiority on the same messages, below "
    "5 %. That is one test however many baselines there are, for validation chose which. 3. Else "
    "the adapter; where the messages were too few to tell, the verdict says so. 4. Where no worker "
    "can serve that candidate, the same rules are applied once more to those that one can."
)
_ELSEWHERE = (
    " It runs elsewhere: what it costs a message, how long it takes and that the messages leave "
    "the house are yours to weigh."
)
_PLANNED_DISCORDANCE = 0.05


@dataclass(frozen=True, slots=True)
class PairedResult:
    """A candidate next to the adapter, on the same messages.

    ``not_served`` says why no worker can serve it, None where one can. ``found`` counts the adapter
    as a; ``p`` is McNemar's p-value, corrected for all candidates;
    ``not_worse_p`` is that of "worse than the adapter by the margin or more".
    """

    name: str
    kind: CandidateKind
    accuracy: float
    validation_accuracy: float | None
    found: Discordance
    p: float
    not_worse_p: float
    not_served: str | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether it runs without a GPU and without a base model."""
        return self.kind == "baseline"

    @property
    def difference(self) -> float:
        """The adapter's accuracy less the candidate's."""
        return self.found.difference

    @property
    def worst_difference(self) -> float:
        """By how much it may be worse than the adapter: the end of a one-sided 95 % interval."""
        return -lowest_difference(self.found.turned)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Which candidate to ship ("adapter" or another's name), what was shown, and why, in plain
    words. ``baseline`` is the one that was tested for being not worse."""

    candidate: str
    conclusion: Conclusion
    baseline: str
    reason: str


@dataclass(frozen=True, slots=True)
class DuelOutcome:
    """The adapter against each other candidate, and what follows. ``servable`` is the best that a
    worker can serve, where the recommended one is not of them.

    The last two are those of the pair with the baseline that was tested: the smallest difference
    that is found four times in five, and the messages that pass an equal baseline as often.
    """

    pairs: tuple[Pair, ...]
    rules: str
    recommendation: Recommendation
    minimum_detectable_difference: float
    required_messages: int
    servable: Recommendation | None = None

    @property
    def verdict(self) -> str:
        """What to ship and why; of what no worker serves, why, and what to serve in its place."""
        return self.recommendation.reason + (f" {self.servable.reason}" if self.servable else "")


def compare_all(
    candidates: Sequence[Candidate],
    truth: Sequence[str],
    *,
    margin: float = MARGIN,
    groups: Groups | None = None,
) -> DuelOutcome:
    """Test the first candidate, the adapter, against each other one. At least one of them is a
    baseline; ``margin`` is a share, above 0 and below 1; ``groups`` says which messages belong
    together."""
    adapter, *others = candidates
    of_adapter = is_right(adapter, truth)
    results = pair_all(candidates, truth, margin, groups)
    pairs = tuple(
        Pair(
            a=adapter.name,
            b=other.name,
            difference=result.difference,
            interval_95=paired_interval(result.found),
            mcnemar_p=mcnemar_exact(result.found),
            p_holm=result.p,
            a_only=result.found.a_only,
            b_only=result.found.b_only,
            minimum_detectable_difference=minimum_detectable_difference(
                result.found.share, result.found.independent
            ),
            non_inferiority_p=result.not_worse_p,
            worst_difference=result.worst_difference,
        )
        for other, result in zip(others, results, strict=True)
    )
    tested = choose_baseline(results).found
    accuracy = float(of_adapter.mean())
    recommendation = recommend(results, accuracy, margin)
    return DuelOutcome(
        pairs=pairs,
        rules=_RULES.format(margin=in_points(margin)),
        recommendation=recommendation,
        minimum_detectable_difference=minimum_detectable_difference(
            tested.share, tested.independent
        ),
        required_messages=messages_for(tested, margin),
        servable=recommend_servable(results, recommendation, accuracy, margin),
    )


def pair_all(
    candidates: Sequence[Candidate],
    truth: Sequence[str],
    margin: float,
    groups: Groups | None = None,
) -> list[PairedResult]:
    """Return each other candidate next to the first, the adapter."""
    adapter, *others = candidates
    of_adapter = is_right(adapter, truth)
    right = [is_right(other, truth) for other in others]
    counts = [count_discordant(of_adapter, of_other, groups) for of_other in right]
    corrected = holm([mcnemar_exact(found) for found in counts])
    return [
        PairedResult(
            name=other.name,
            kind=other.kind,
            accuracy=float(of_other.mean()),
            validation_accuracy=other.validation_accuracy,
            found=found,
            p=p,
            not_worse_p=non_inferiority_p(found.turned, margin),
            not_served=other.not_served,
        )
        for other, of_other, found, p in zip(others, right, counts, corrected, strict=True)
    ]


def is_right(candidate: Candidate, truth: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each message whether the candidate's answer is the true label."""
    pairs = zip(candidate.answers, truth, strict=True)
    return np.array([answer == label for answer, label in pairs], dtype=np.bool_)


def choose_baseline(results: Sequence[PairedResult]) -> PairedResult:
    """Return the baseline that is tested: the most accurate on validation, of equals the first,
    which is the cheapest. The hold-out has no say, so that nothing has to be corrected for the
    choice."""
    baselines = [result for result in results if result.is_baseline]
    return max(baselines, key=lambda result: result.validation_accuracy or 0.0)


def decide(results: Sequence[PairedResult]) -> tuple[str, Conclusion]:
    """Apply the rules: return which candidate to ship ("adapter" or another's name), and what was
    shown."""
    better = [result for result in results if result.p < ALPHA and result.difference < 0]
    if better:
        return max(better, key=lambda result: result.accuracy).name, "better"
    tested = choose_baseline(results)
    if tested.not_worse_p < ALPHA:
        return tested.name, "not_worse"
    return ADAPTER, "adapter" if tested.p < ALPHA else "undecided"


def recommend(
    results: Sequence[PairedResult], accuracy: float, margin: float = MARGIN
) -> Recommendation:
    """Apply the rules and give the reason. ``accuracy`` is the adapter's."""
    name, conclusion = decide(results)
    tested = choose_baseline(results)
    match conclusion:
        case "better":
            best = next(result for result in results if result.name == name)
            reason = _ship_better(best, accuracy)
        case "not_worse":
            reason = _ship_baseline(tested, accuracy, margin)
        case "adapter":
            reason = _deploy_adapter(tested, accuracy) + _name_equals(results)
        case "undecided":
            reason = _keep_adapter(tested, accuracy, margin) + _name_equals(results)
    return Recommendation(name, conclusion, tested.name, reason)


def recommend_servable(
    results: Sequence[PairedResult],
    recommendation: Recommendation,
    accuracy: float,
    margin: float = MARGIN,
) -> Recommendation | None:
    """Apply the rules to what a worker can serve, where what they recommend is not of it; None
    where it is. The p-values stay those of all candidates."""
    found = {result.name: result.not_served for result in results}
    why = found.get(recommendation.candidate)
    if why is None:
        return None
    first = f"{recommendation.candidate} is not served: {why}."
    served = [result for result in results if result.not_served is None]
    if not any(result.is_baseline for result in served):
        reason = f"{first} Of what a worker can serve there is the adapter alone."
        return Recommendation(ADAPTER, "adapter", recommendation.baseline, reason)
    best = recommend(served, accuracy, margin)
    return Recommendation(
        best.candidate, best.conclusion, best.baseline, f"{first} Of what is: {best.reason}"
    )


def tell_power(messages: int, margin: float) -> str:
    """Return what a hold-out of so many messages can tell, before it is opened: which share of
    them is discordant is known only afterwards."""
    planned, wanted = _PLANNED_DISCORDANCE, in_points(margin)
    return (
        f"{messages:,} held-out messages, a margin of {wanted}: a baseline exactly as good as the "
        f"adapter passes four times in five if the two differ in being right on up to "
        f"{largest_discordance(messages, margin):.1%} of the messages. Where they differ on "
        f"{planned:.0%}, it passes {power(messages, planned, margin):.0%} of the time; so many "
        f"messages then tell {in_points(smallest_margin(messages, planned))}, and {wanted} takes "
        f"{required_messages(planned, margin):,}"
    )


def _ship_better(best: PairedResult, accuracy: float) -> str:
    text = (
        f"Ship {best.name}: right {best.accuracy:.1%} of the time against the adapter's "
        f"{accuracy:.1%}, which is more than chance would explain (p = {best.p:.2g})."
    )
    return text + (_ELSEWHERE if best.kind == "recorded" else "")


def _ship_baseline(tested: PairedResult, accuracy: float, margin: float) -> str:
    worst = tested.worst_difference
    at_worst = (
        f"at most {in_points(worst)} worse" if worst > 0 else f"at least {in_points(-worst)} better"
    )
    return (
        f"Ship {tested.name}: right {tested.accuracy:.1%} of the time against the adapter's "
        f"{accuracy:.1%}, it is {at_worst} (95 %), within the margin of {in_points(margin)} "
        f"(p = {tested.not_worse_p:.2g}), and needs no GPU."
    )


def _deploy_adapter(tested: PairedResult, accuracy: float) -> str:
    return (
        f"Deploy the adapter: right {accuracy:.1%} of the time, it beats {tested.name}, the best "
        f"baseline on validation, which reaches {tested.accuracy:.1%} (p = {tested.p:.2g})."
    )


def _keep_adapter(tested: PairedResult, accuracy: float, margin: float) -> str:
    found = tested.found
    told = smallest_margin(found.independent, found.share)
    return (
        f"Keep the adapter for now: not enough messages to tell whether {tested.name} "
        f"({tested.accuracy:.1%}, the adapter {accuracy:.1%}) is within {in_points(margin)} of it; "
        f"it may be up to {in_points(tested.worst_difference)} worse (95 %). {found.total:,} "
        f"messages tell {in_points(told)}; {in_points(margin)} needs about "
        f"{messages_for(found, margin):,}."
    )


def _name_equals(results: Sequence[PairedResult]) -> str:
    equal = [result for result in results if not result.is_baseline and result.p >= ALPHA]
    if not equal:
        return ""
    names = ", ".join(f"{result.name} ({result.accuracy:.1%})" for result in equal)
    return f" Not told apart from it: {names}, which cost no less to run, or more a message."
