"""Accuracy against people's labels, with a teacher's labels as a help that cannot mislead.

People decided a random sample; a teacher labelled many more messages. Whether a model's answer is
the teacher's label (*agreement*) is known for all of them, whether it is right only in the sample.
Prediction-powered inference (Angelopoulos et al. 2023, arXiv 2301.09633) estimates the accuracy by
the agreement over all messages, corrected by the sample's mean difference, so a teacher that errs
costs width and never bias. How much weight the agreement gets is tuned to the sample (PPI++;
Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453). Agreement is a yes or no, and then the tuned
estimate is the accuracy where the model agrees and where it does not, each by its share of all
messages: the estimate of double sampling (Tenenbein 1970, JASA 65:1350).

Their normal interval is too short where mistakes are few: it has no width if none is found. Here
the Wilson limits of each part are combined by MOVER (Zou and Donner 2008, Statistics in Medicine
27:1693), as for an audit (``trainer.statistics.label_errors``). ``python -m
tests.bench.people_and_teacher`` has the coverage of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy

from trainer.statistics.label_errors import Estimate
from trainer.statistics.metrics import Bools, Groups, design_effect, wilson

_SURE = 0.05
"""The level of the test that agreement says anything about being right. Without it a hostile
teacher makes the interval up to twice as wide: parts of a few messages have wide limits."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A model's answers, counted in independent messages; counts need not be integers.

    Of the sample, in which people decided: ``agree`` has the teacher's label, ``differ`` another
    one, ``untaught`` no label by the teacher; each is (right, all). ``pool`` is (agree, all) of the
    messages that only the teacher labelled.
    """

    agree: tuple[float, float]
    differ: tuple[float, float]
    untaught: tuple[float, float]
    pool: tuple[float, float]

    @property
    def parts(self) -> tuple[tuple[float, float], ...]:
        """The three parts of the sample."""
        return self.agree, self.differ, self.untaught

    @property
    def sample(self) -> tuple[float, float]:
        """Right, and all, in the sample."""
        return sum(right for right, _ in self.parts), sum(all_ for _, all_ in self.parts)


def count_answers(
    right: Bools,
    agrees: Bools,
    taught: Bools,
    pool: Bools,
    *,
    groups: Groups | None = None,
    pool_groups: Groups | None = None,
) -> Counts:
    """Count answers: ``right``, ``agrees``, and whether the teacher labelled the message, (sample);
    ``pool`` says which answers agree, (pool). Grouped messages count as fewer."""
    effect, pool_effect = design_effect(right, groups), design_effect(pool, pool_groups)

    def part(where: Bools) -> tuple[float, float]:
        return float((right & where).sum()) / effect, float(where.sum()) / effect

    return Counts(
        agree=part(taught & agrees),
        differ=part(taught & ~agrees),
        untaught=part(~taught),
        pool=(float(pool.sum()) / pool_effect, len(pool) / pool_effect),
    )


def plain_accuracy(counts: Counts) -> Estimate:
    """Return the accuracy by the sample alone, with its 95 % Wilson interval."""
    right, all_ = counts.sample
    return Estimate(right / all_ if all_ else 0.0, wilson(right, all_))


def powered_accuracy(counts: Counts) -> Estimate:
    """Return the accuracy against people's labels with its 95 % interval, by sample and pool.

    The sample must be drawn at random from all messages, and the pool from those that the teacher
    labelled. Without a pool, or if the sample does not show that agreeing answers are right more
    often than others (Fisher's exact test, 5 %), it is ``plain_accuracy``.
    """
    if not counts.pool[1] or not _is_informative(counts):
        return plain_accuracy(counts)
    (_, agree), (_, differ), (_, untaught) = counts.parts
    taught, total = agree + differ, agree + differ + untaught
    seen = (agree + counts.pool[0], taught + counts.pool[1])
    share = seen[0] / seen[1]
    weights = (taught / total * share, taught / total * (1 - share), untaught / total)
    rates = [right / all_ if all_ else 0.0 for right, all_ in counts.parts]
    value = sum(weight * rate for weight, rate in zip(weights, rates, strict=True))
    below, above = [], []
    for weight, rate, (right, all_) in zip(weights, rates, counts.parts, strict=True):
        low, high = wilson(right, all_) if all_ else (rate, rate)
        below.append(weight * (rate - low))
        above.append(weight * (high - rate))
    # The shares of the parts are estimates too: of agreement, over all messages, and of messages
    # without a teacher's label, in the sample.
    known = share * rates[0] + (1 - share) * rates[1]
    for (hits, all_), slope in (
        (seen, taught / total * (rates[0] - rates[1])),
        ((taught, total), known - rates[2] if untaught else 0.0),
    ):
        low, high = wilson(hits, all_)
        down, up = slope * (hits / all_ - low), slope * (high - hits / all_)
        below.append(down if slope >= 0 else up)
        above.append(up if slope >= 0 else down)
    return Estimate(
        value, (max(0.0, value - math.hypot(*below)), min(1.0, value + math.hypot(*above)))
    )


def _is_informative(counts: Counts) -> bool:
    """Whether agreeing answers are shown to be right more often."""
    table = [[round(right), round(all_ - right)] for right, all_ in (counts.agree, counts.differ)]
    if not all(map(sum, table)):
        return False
    return float(scipy.stats.fisher_exact(table, alternative="greater").pvalue) < _SURE


def error_correlation(student_wrong: Bools, teacher_wrong: Bools) -> float | None:
    """Return the correlation (phi) of two models' errors on the same messages; None if one of them
    makes none, or nothing else. At 0 they err independently; near 1 the student repeats the
    teacher's mistakes, and agreement says little about being right."""
    n = len(student_wrong)
    a, b = float(student_wrong.sum()), float(teacher_wrong.sum())
    spread = a * (n - a) * b * (n - b)
    if not spread:
        return None
    both = float((student_wrong & teacher_wrong).sum())
    return (n * both - a * b) / math.sqrt(spread)


def reachable(agreement: float, teacher: tuple[float, float]) -> tuple[float, float]:
    """Return the lowest and highest accuracy of a model that gives the teacher's label in a share
    ``agreement`` of the messages, if the teacher is right in a share of the same messages that lies
    within ``teacher``.

    A right answer either agrees where the teacher is right, or differs where it is wrong: at most
    min(g, a) + min(1 - g, 1 - a) = 1 - |g - a|, and at least g + a - 1 (Fréchet's bounds). A model
    that only repeats its teacher (g = 1) is right exactly as often as it.
    """
    low, high = teacher
    nearest = min(max(agreement, low), high)
    return max(0.0, agreement + low - 1), 1 - abs(agreement - nearest)
