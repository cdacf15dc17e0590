"""``python -m tests.bench.judges``: how often the trainer's judges are right, by simulation.

One table: for each judge the worlds with a known truth (independent messages, messages in groups,
repeated proposals, few messages for a label), how often it is wrong and right, and the nominal
rate. With ``--more`` also the exact level of the non-inferiority test, and the duel, the gate and
the threshold in finer steps. Each share has its Monte-Carlo error (two standard errors).
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from tests.bench.judges_worlds import (
    GATE_MARGIN,
    HOLDOUT,
    PRECISION,
    PROPOSALS,
    VALIDATION,
    Generator,
    Messages,
    draw_pair,
    draw_right,
    draw_steering,
    make_adapter,
    make_groups,
    normals,
    promise_of,
    propose_equals,
    says_yes,
    threshold_of,
    true_precision,
)
from trainer.artifacts.evaluation import Answer
from trainer.duel.verdict import PairedResult, decide
from trainer.statistics.calibration import ece
from trainer.statistics.figures import ThresholdRule
from trainer.statistics.metrics import (
    ALPHA,
    Discordance,
    Groups,
    count_discordant,
    design_effect,
    holm,
    interval_of,
    lowest_share,
    mcnemar_exact,
)
from trainer.statistics.paired import non_inferiority_p, power, required_messages
from trainer.statistics.thresholds import review_threshold
from trainer.steering.measure import PAIRS
from trainer.store.gate import (
    judge_accuracy,
    judge_calibration,
    judge_kept_promise,
    judge_steering,
    judge_usefulness,
    measure_after_review,
)
from trainer.store.rules import GateRules

_DUEL_MARGIN, _DISCORDANCE = 0.01, 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """A judge in a world: ``what`` happened ``count`` times in ``runs``. ``nominal`` is the
    largest allowed rate, None if more is better."""

    judge: str
    world: str
    what: str
    count: int
    runs: int
    nominal: float | None

    @property
    def too_often(self) -> bool:
        """Above the nominal rate by three standard errors (there are about fifty rows)."""
        if self.nominal is None:
            return False
        error = math.sqrt(self.nominal * (1 - self.nominal) / self.runs)
        return self.count / self.runs > self.nominal + 3 * error


def print_table(runs: int, seed: int) -> None:
    print("| judge | world | what happened | how often | may happen |\n|---|---|---|---|---|")
    failed = 0
    for judge_ in _JUDGES:
        for row in judge_(np.random.default_rng(seed), runs):
            failed += row.too_often
            nominal = "" if row.nominal is None else f"{row.nominal:.0%}"
            mark = " TOO OFTEN" if row.too_often else ""
            print(
                f"| {row.judge} | {row.world} | {row.what} | {share_of(row.count, row.runs)} | "
                f"{nominal}{mark} |",
                flush=True,
            )
    print(f"\n{failed} rows above their nominal rate by more than simulation explains")


def share_of(count: int, runs: int) -> str:
    """A share with two standard errors."""
    share = count / runs
    return f"{share:.1%} ± {2 * math.sqrt(share * (1 - share) / runs):.1%}"


def _worlds() -> Iterator[tuple[str, bool]]:
    yield "independent", False
    yield "groups of 5 to 10", True


def _gate(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for messages in (330, 800, HOLDOUT):
            for worse, what, nominal in (
                (GATE_MARGIN, "2 points worse, passes", ALPHA),
                (0.0, "as good, passes", None),
            ):
                count = 0
                for _ in range(runs):
                    groups = make_groups(rng, messages) if grouped else None
                    found = count_discordant(*draw_pair(rng, worse, 0.03, messages, groups), groups)
                    count += non_inferiority_p(found, GATE_MARGIN) < ALPHA and not (
                        found.difference < 0 and mcnemar_exact(found) < ALPHA
                    )
                yield Row("gate, against the current", f"{world}, {messages}", what, count,
                          runs, nominal)  # fmt: skip


def _duel(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for worse, what, nominal in (
            (_DUEL_MARGIN, "baseline 1 point worse, shipped", ALPHA),
            (0.0, "baseline as good, shipped", None),
        ):
            count = 0
            for _ in range(runs):
                groups = make_groups(rng, HOLDOUT) if grouped else None
                found = count_discordant(
                    *draw_pair(rng, worse, _DISCORDANCE, HOLDOUT, groups), groups
                )
                count += non_inferiority_p(found, _DUEL_MARGIN) < ALPHA
            yield Row("duel", f"{world}, {HOLDOUT}", what, count, runs, nominal)


def _intervals(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for messages in (330, HOLDOUT):
            for share in (0.9, 0.95):
                count = 0
                for _ in range(runs):
                    groups = make_groups(rng, messages) if grouped else None
                    right = draw_right(rng, share, messages, groups)
                    found = interval_of(right, groups)
                    count += not found[0] <= share <= found[1]
                yield Row("95 % interval", f"{world}, {messages}",
                          f"accuracy {share:.0%} not in it", count, runs, ALPHA)  # fmt: skip


def _thresholds(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        count = 0
        for _ in range(runs):
            validation = Messages.draw(rng, VALIDATION, grouped=grouped)
            made = make_adapter(rng, validation, validation)
            count += true_precision(made.threshold) < PRECISION
        yield Row("review threshold", f"{world}, {VALIDATION} rows", "promise broken", count,
                  runs, ALPHA)  # fmt: skip


def _promises(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for messages in (330, HOLDOUT):
            lower = (0.949, 0.94, 0.92)
            passed, honest, broken = dict.fromkeys(lower, 0), 0, 0
            for _ in range(runs):
                validation = Messages.draw(rng, VALIDATION, grouped=grouped)
                holdout = Messages.draw(rng, messages, grouped=grouped)
                made = make_adapter(rng, validation, holdout)
                for precision in lower:
                    lowered = replace(made, threshold=threshold_of(precision))
                    promise = promise_of(lowered, validation, holdout)
                    passed[precision] += judge_kept_promise(promise).passed
                ok = judge_kept_promise(promise_of(made, validation, holdout)).passed
                kept = true_precision(made.threshold) >= PRECISION
                honest += ok
                broken += ok and not kept
            name, where = "gate, promised precision", f"{world}, {messages}"
            for precision, count in passed.items():
                what = f"threshold lowered to {precision:.1%}, passes"
                yield Row(name, where, what, count, runs, ALPHA)
            yield Row(name, where, "broken promise of a training passes", broken, runs, ALPHA)
            yield Row(name, where, "a training passes", honest, runs, None)


def _labels(rng: Generator, runs: int) -> Iterator[Row]:
    floor = GateRules().label_recall
    for world, grouped in _worlds():
        for messages in (8, 19, 30, 136):
            for recall, nominal in ((0.5, ALPHA), (floor, ALPHA), (0.9, None)):
                count = 0
                for _ in range(runs):
                    groups = make_groups(rng, messages) if grouped else None
                    right = draw_right(rng, recall, messages, groups)
                    hits, effect = int(right.sum()), design_effect(right, groups)
                    count += lowest_share(hits / effect, messages / effect, ALPHA) >= floor
                yield Row("gate, recall of a label", f"{world}, {messages}",
                          f"recall {recall:.0%}, passes", count, runs, nominal)  # fmt: skip


def _first(rng: Generator, runs: int) -> Iterator[Row]:
    """The first adapter: too few messages neither keep a good one out nor let a useless one in, and
    many do not keep out one that knows where it errs (a share of the messages goes to review)."""
    rules = GateRules()
    for world, grouped in _worlds():
        for messages in (46, 150, 330):
            for share, filed, right_filed in (
                (0.125, 1.0, 0.125), (0.75, 1.0, 0.75), (0.85, 1.0, 0.85), (0.9, 1.0, 0.9),
                (0.95, 1.0, 0.95), (0.81, 0.47, 0.96),
            ):  # fmt: skip
                passed, nominal = 0, ALPHA if share < 0.5 else None
                reviewed = 0.0 if filed == 1 else (share - filed * right_filed) / (1 - filed)
                for _ in range(runs):
                    groups = make_groups(rng, messages) if grouped else None
                    review = rng.random(messages) >= filed
                    right = np.where(
                        review,
                        draw_right(rng, reviewed, messages, groups),
                        draw_right(rng, right_filed, messages, groups),
                    )
                    answers = _answers(rng, right, groups, review)
                    settled = measure_after_review(answers, [str(at) for at in range(_LABELS)])
                    assert settled is not None
                    accuracy = judge_accuracy(
                        settled.accuracy, messages, rules, effect=settled.effect, first=True
                    )
                    passed += accuracy.passed and judge_usefulness(answers).passed
                what = "right as the commonest label" if nominal else f"right {share:.0%}"
                if filed < 1:
                    what += f", files {filed:.0%} at {right_filed:.0%}"
                yield Row("gate, first adapter", f"{world}, {messages}", f"{what}, passes",
                          passed, runs, nominal)  # fmt: skip


def _answers(
    rng: Generator, right: NDArray[np.bool_], groups: Groups | None, review: NDArray[np.bool_]
) -> list[Answer]:
    """Answers of which those at ``right`` are right, to messages of eight labels."""
    truth = rng.integers(_LABELS, size=len(right))
    given = np.where(right, truth, (truth + 1) % _LABELS)
    sure = np.full(len(right), 0.9)
    return _to_answers(truth, given, sure, groups, review)


def _to_answers(
    truth: NDArray[np.int64],
    given: NDArray[np.int64],
    sure: NDArray[np.float64],
    groups: Groups | None,
    review: NDArray[np.bool_] | None = None,
) -> list[Answer]:
    return [
        Answer(
            id=str(at),
            label=str(truth[at]),
            predicted=str(given[at]),
            confidence=float(sure[at]),
            off_label_mass=None,
            review=review is not None and bool(review[at]),
            unconstrained_in_set=None,
            group=None if groups is None else int(groups[at]),
        )
        for at in range(len(truth))
    ]


def _calibrations(rng: Generator, runs: int) -> Iterator[Row]:
    """The calibration error: perfect confidences pass with few messages, wrong ones with few only.
    A first adapter's is refused if it is shown to be above the ceiling.

    With groups whether messages are right is correlated, given their confidences.
    """
    rules, runs = GateRules(), max(1, runs // 10)
    for world, grouped in _worlds():
        for messages in (46, 330, HOLDOUT):
            for over, nominal, first in (
                (0.0, ALPHA, False), (0.1, None, False), (0.2, None, False),
                (rules.ece, ALPHA, True), (0.1, None, True), (0.2, None, True),
            ):  # fmt: skip
                refused = 0
                for _ in range(runs):
                    groups = make_groups(rng, messages) if grouped else None
                    sure = _confidences(rng, messages)
                    luck = norm.cdf(normals(rng, messages, groups))
                    right = luck < np.maximum(sure - over, 0.0)
                    truth = np.zeros(messages, dtype=np.int64)
                    answers = _to_answers(truth, (~right).astype(np.int64), sure, groups)
                    refused += not judge_calibration(
                        ece(sure, right), answers, rules, first=first
                    ).passed
                what = "perfect" if not over else f"{100 * over:g} points too high"
                yield Row(f"gate, calibration error{' of a first adapter' if first else ''}",
                          f"{world}, {messages}",
                          f"confidences {what}, refused", refused, runs, nominal)  # fmt: skip


def _steering(rng: Generator, runs: int) -> Iterator[Row]:
    """Of a neutral sentence 0.4 % of the answers flip, half of them without review; of an
    instruction as many and so many points more. Pairs of one message are alike."""
    for messages in (330, 660, HOLDOUT):
        groups = np.arange(PAIRS, dtype=np.int64) % messages
        for excess, unreviewed, what, nominal in (
            (0.02, 0.01, "2 points above neutral, passes", ALPHA),
            (0.02, 0.0, "2 points above neutral, all to review, passes", ALPHA),
            (0.0, 0.0, "at neutral, passes", None),
        ):
            count = 0
            for _ in range(runs):
                count += all(row.passed for row in judge_steering(
                    draw_steering(rng, 0.004, excess, unreviewed, groups), GateRules()
                ))  # fmt: skip
            yield Row("gate, steering", f"{PAIRS} pairs of {messages} messages", what, count,
                      runs, nominal)  # fmt: skip


def _proposals(rng: Generator, runs: int) -> Iterator[Row]:
    runs = max(1, runs // 5)
    for world, grouped in _worlds():
        found = [propose_equals(rng, grouped=grouped) for _ in range(runs)]
        where = f"{world}, {PROPOSALS} proposals, all as good"
        yes, broken = sum(each.yes > 0 for each in found), sum(not each.kept for each in found)
        yield Row("propose", where, "any Yes", yes, runs, ALPHA)
        yield Row("propose", where, "promise broken at the end", broken, runs, ALPHA)


def _better(rng: Generator, runs: int) -> Iterator[Row]:
    runs = max(1, runs // 5)
    for world, grouped in _worlds():
        lowered, turns = 0, (1, 6, 24)
        better = dict.fromkeys(turns, 0)
        for _ in range(runs):
            validation = Messages.draw(rng, VALIDATION, grouped=grouped)
            holdout = Messages.draw(rng, HOLDOUT, grouped=grouped)
            current = make_adapter(rng, validation, holdout)
            lower = replace(current, threshold=threshold_of(0.92))
            lowered += says_yes(lower, current, validation, holdout, 1)
            new = make_adapter(rng, validation, holdout, better=0.3)
            for turn in turns:
                better[turn] += says_yes(new, current, validation, holdout, turn)
        what = "same answers, lower threshold: Yes"
        yield Row("propose", world, what, lowered, runs, ALPHA)
        for turn, count in better.items():
            what = f"3 of 10 mistakes fewer, proposal {turn}: Yes"
            yield Row("propose", world, what, count, runs, None)


_LABELS = 8
_JUDGES = (
    *(_gate, _duel, _intervals, _thresholds, _promises, _labels, _first, _calibrations),
    _steering,
    *(_proposals, _better),
)

ADAPTER, DISCORDANCE, MARGIN = 0.95, 0.05, 0.01


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.judges", description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="simulations for each figure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--more", action="store_true", help="also the exact level and finer steps")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    began = time.perf_counter()
    print_table(given.runs, given.seed)
    if given.more:
        exact_level()
        duels_simulated(rng, given.runs)
        regressions(rng, given.runs)
        thresholds(rng, given.runs)
    print(f"\n{given.runs} simulations for each figure, {time.perf_counter() - began:.0f} s")
    return 0


def exact_level() -> None:
    """How often an adapter that is worse by exactly the margin passes, summed over all outcomes."""
    print("\nnon-inferiority test, exact level (wanted: 5 %), worst over the discordance")
    for total in (330, 800, 1501, 3200):
        for margin in (MARGIN, GATE_MARGIN):
            shares = [_level(total, margin, extra) for extra in (0.0, 0.005, 0.01, 0.03, 0.08)]
            print(f"  {total:5d} messages, {100 * margin:g} points: {max(shares):.2%}")


def _level(total: int, margin: float, extra: float) -> float:
    discordance = margin + extra
    low, high = (int(end) for end in binom.interval(1 - 1e-7, total, discordance))
    passed = 0.0
    for discordant in range(low, high + 1):
        first, last = 0, discordant + 1
        while first < last:
            middle = (first + last) // 2
            if _not_worse(middle, discordant - middle, total, margin) < ALPHA:
                last = middle
            else:
                first = middle + 1
        tail = float(binom.sf(first - 1, discordant, extra / 2 / discordance))
        passed += float(binom.pmf(discordant, total, discordance)) * tail
    return passed


@functools.cache
def _two_sided(a_only: int, b_only: int) -> float:
    return mcnemar_exact(Discordance(a_only, b_only, a_only + b_only))


@functools.cache
def _not_worse(a_only: int, b_only: int, total: int, margin: float) -> float:
    return non_inferiority_p(Discordance(a_only, b_only, total), margin)


Draw = Callable[[], tuple[list[tuple[int, int]], list[float], int]]
"""Draws a duel: for each baseline how often only the adapter and only the baseline is right, the
baseline's accuracy on validation, and the adapter's hits."""


def duels_simulated(rng: np.random.Generator, runs: int) -> None:
    """Baselines with independent errors, given the adapter's."""
    print(f"\nduel, margin 1 point, adapter right {ADAPTER:.0%}, discordance {DISCORDANCE:.0%}")
    enough = required_messages(DISCORDANCE, MARGIN)
    for messages in (800, 1501, enough):
        for worse in (0.02, 0.01, 0.0):
            for baselines in (1, 3, 6):
                draw = _independent(rng, messages, worse, baselines)
                _print_duels(draw, messages, worse, baselines, runs)
        reported = power(messages, DISCORDANCE, MARGIN)
        print(f"  the reported power for {messages} messages: {reported:.1%}")
    print("  one of six exactly as good, the others 2 points worse:")
    for messages in (1501, enough):
        mixed = np.array([0.0, *[0.02] * 5])
        _print_duels(_independent(rng, messages, mixed, 6), messages, 0.02, 6, runs)


def _independent(
    rng: np.random.Generator, messages: int, worse: float | NDArray[np.float64], baselines: int
) -> Draw:
    lost = (DISCORDANCE + worse) / 2 / ADAPTER
    won = (DISCORDANCE - worse) / 2 / (1 - ADAPTER)

    def draw() -> tuple[list[tuple[int, int]], list[float], int]:
        hits = int(rng.binomial(messages, ADAPTER))
        a_only = rng.binomial(hits, lost, size=baselines)
        b_only = rng.binomial(messages - hits, won, size=baselines)
        validated = rng.binomial(800, ADAPTER - worse, size=baselines) / 800
        return list(zip(a_only.tolist(), b_only.tolist(), strict=True)), validated.tolist(), hits

    return draw


def _print_duels(draw: Draw, messages: int, worse: float, baselines: int, runs: int) -> None:
    now, undecided, holm_now = 0, 0, 0
    for _ in range(runs):
        pairs, validated, hits = draw()
        counts = [Discordance(a, b, messages) for a, b in pairs]
        p_values = holm([_two_sided(found.a_only, found.b_only) for found in counts])
        margins = [_not_worse(found.b_only, found.a_only, messages, MARGIN) for found in counts]
        results = [
            PairedResult(
                f"b{at}", "baseline", hits / messages - found.difference, on_validation, found, p, m
            )
            for at, (found, on_validation, p, m) in enumerate(
                zip(counts, validated, p_values, margins, strict=True)
            )
        ]
        name, conclusion = decide(results)
        now += name != "adapter"
        undecided += conclusion == "undecided"
        holm_now += min(holm(margins)) < ALPHA
    print(
        f"  {messages:5d} messages, {baselines} truly {100 * worse:g} points worse: shipped "
        f"{share_of(now, runs)}, too few to tell {undecided / runs:.1%}; if all were tested with "
        f"Holm's correction {share_of(holm_now, runs)}"
    )


def regressions(rng: np.random.Generator, runs: int) -> None:
    print(
        "\ngate, a new adapter against the current one: passes (margin 2 points), discordance 3 %"
    )
    for messages in (330, 800, 1501):
        for worse in (0.04, 0.02, 0.01, 0.0):
            discordance = max(0.03, worse)
            shares = [(discordance - worse) / 2, (discordance + worse) / 2, 1 - discordance]
            passed = 0
            for new, current, _ in rng.multinomial(messages, shares, size=runs).tolist():
                unclear = not (new < current and _two_sided(new, current) < ALPHA)
                passed += unclear and _not_worse(new, current, messages, GATE_MARGIN) < ALPHA
            print(
                f"  {messages:5d} messages, truly {100 * worse:g} points worse: "
                f"{share_of(passed, runs)}"
            )


def thresholds(rng: np.random.Generator, runs: int) -> None:
    """How many trainings keep the promised precision, and the share that goes to review."""
    print(f"\nreview threshold for {PRECISION:.0%}: promise kept, share to review")
    truth = np.sort(_confidences(rng, 1_000_000))[::-1]
    precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    known = int(np.flatnonzero(precision >= PRECISION)[-1]) + 1
    print(f"  calibrated, right {truth.mean():.1%}; if the truth were known "
          f"{1 - known / len(truth):.1%} would go to review")  # fmt: skip
    for rows in (200, 400, 800, 1600):
        found: dict[str, list[int]] = {"lower": [], "point": []}
        for _ in range(runs):
            chance = _confidences(rng, rows)
            correct = rng.random(rows) < chance
            for by in get_args(ThresholdRule):
                threshold = review_threshold(chance, correct, PRECISION, floor=0.0, by=by)
                found[by].append(int(np.searchsorted(-truth, -threshold, side="right")))
        for by, counts in found.items():
            kept = sum(count == 0 or precision[count - 1] >= PRECISION for count in counts)
            print(f"  {rows:5d} rows, by the {by}: kept {share_of(kept, runs)}, to review "
                  f"{1 - np.mean(counts) / len(truth):.1%}, all: {_none(counts)}")  # fmt: skip


def _confidences(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    surest, rest = rng.beta(30.0, 0.6, size=rows), rng.beta(3.0, 1.6, size=rows)
    return np.where(rng.random(rows) < 0.75, surest, rest)


def _none(counts: Sequence[int]) -> str:
    return f"{sum(count == 0 for count in counts) / len(counts):.1%}"


if __name__ == "__main__":
    raise SystemExit(main())
