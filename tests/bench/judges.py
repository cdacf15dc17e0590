"""``python -m tests.bench.judges``: how often the trainer's judges are right, by simulation.

One table: for each judge the worlds with a known truth (independent messages, messages in groups,
repeated proposals, few messages for a label), how often it is wrong and right, and the nominal
rate. Each share has its Monte-Carlo error (two standard errors).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

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
    exact_share_missed,
    exact_share_passed,
    is_no_regression,
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
from trainer.statistics.calibration import ece
from trainer.statistics.metrics import (
    ALPHA,
    Discordance,
    Groups,
    count_discordant,
    design_effect,
    interval_of,
    lowest_share,
)
from trainer.statistics.paired import non_inferiority_p
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
    """A judge in a world: ``what`` happened ``count`` times in ``runs``; without ``runs`` the
    count is the probability itself. ``nominal`` is the largest allowed rate, None if more is
    better."""

    judge: str
    world: str
    what: str
    count: float
    runs: int | None
    nominal: float | None

    @property
    def too_often(self) -> bool:
        """Above the nominal rate by three standard errors (there are about fifty rows), or by a
        tenth of it: exact levels of score tests and intervals are that near to the nominal one."""
        if self.nominal is None:
            return False
        if self.runs is None:
            return self.count > 1.1 * self.nominal
        error = math.sqrt(self.nominal * (1 - self.nominal) / self.runs)
        return self.count / self.runs > self.nominal + 3 * error

    @property
    def share(self) -> str:
        """How often it happened, in words."""
        return f"{self.count:.1%} exactly" if self.runs is None else share_of(self.count, self.runs)


def print_table(runs: int, seed: int) -> None:
    print("| judge | world | what happened | how often | may happen |\n|---|---|---|---|---|")
    failed = 0
    for judge_ in _JUDGES:
        for row in judge_(np.random.default_rng(seed), runs):
            failed += row.too_often
            nominal = "" if row.nominal is None else f"{row.nominal:.0%}"
            mark = " TOO OFTEN" if row.too_often else ""
            print(
                f"| {row.judge} | {row.world} | {row.what} | {row.share} | {nominal}{mark} |",
                flush=True,
            )
    print(f"\n{failed} rows above their nominal rate by more than simulation explains")


def share_of(count: float, runs: int) -> str:
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
                pair = Pair(worse, 0.03, messages, grouped)
                counted = _count(rng, runs, pair, is_no_regression)
                where = f"{world}, {messages}"
                yield Row("gate, against the current", where, what, *counted, nominal)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two labellings, the first in truth ``worse`` than the second."""

    worse: float
    discordance: float
    messages: int
    grouped: bool


def _count(
    rng: Generator, runs: int, pair: Pair, passes: Callable[[Discordance], bool]
) -> tuple[float, int | None]:
    """Return how often the first passes, and of how many simulations. Without groups it is
    computed: a thousand simulations may show 6 % where 4.9 % is true."""
    if not pair.grouped:
        return exact_share_passed(pair.messages, -pair.worse, pair.discordance, passes), None
    count = 0
    for _ in range(runs):
        groups = make_groups(rng, pair.messages)
        drawn = draw_pair(rng, pair.worse, pair.discordance, pair.messages, groups)
        count += passes(count_discordant(*drawn, groups))
    return count, runs


def _duel(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for worse, what, nominal in (
            (_DUEL_MARGIN, "baseline 1 point worse, shipped", ALPHA),
            (0.0, "baseline as good, shipped", None),
        ):
            counted = _count(rng, runs, Pair(worse, _DISCORDANCE, HOLDOUT, grouped), _ships)
            yield Row("duel", f"{world}, {HOLDOUT}", what, *counted, nominal)


def _ships(found: Discordance) -> bool:
    return non_inferiority_p(found, _DUEL_MARGIN) < ALPHA


def _intervals(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for messages in (330, HOLDOUT):
            for share in (0.9, 0.95):
                where, what = f"{world}, {messages}", f"accuracy {share:.0%} not in it"
                if not grouped:
                    missed = exact_share_missed(messages, share)
                    yield Row("95 % interval", where, what, missed, None, ALPHA)
                    continue
                count = 0
                for _ in range(runs):
                    groups = make_groups(rng, messages)
                    found = interval_of(draw_right(rng, share, messages, groups), groups)
                    count += not found[0] <= share <= found[1]
                yield Row("95 % interval", where, what, count, runs, ALPHA)


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.judges", description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="simulations for each figure")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.perf_counter()
    print_table(given.runs, given.seed)
    print(f"\n{given.runs} simulations for each figure, {time.perf_counter() - began:.0f} s")
    return 0


def _confidences(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    surest, rest = rng.beta(30.0, 0.6, size=rows), rng.beta(3.0, 1.6, size=rows)
    return np.where(rng.random(rows) < 0.75, surest, rest)


if __name__ == "__main__":
    raise SystemExit(main())
