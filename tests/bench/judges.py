"""``python -m tests.bench.judges``: how often the trainer's judges are right, by a known truth.

One table: for each judge the worlds with a known truth (independent messages, messages in groups,
repeated proposals, few messages a label), how often it is wrong and how often right, and the
nominal rate. With ``--more`` also the duel, the gate and the threshold
in finer steps, and on resampled real predictions: those of a run folder's evaluation and duel
(``--run DIR``), else of cheap models on the demo's messages, out of fold. Each share has its
Monte-Carlo error (two standard errors).
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack
from scipy.stats import binom
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import ComplementNB

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
    promise_of,
    propose_equals,
    says_yes,
    threshold_of,
    true_precision,
)
from trainer.artifacts.duel import ANSWERS_NAME, DUEL_FOLDER
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER, PREDICTIONS
from trainer.duel.verdict import PairedResult, decide
from trainer.statistics.calibration import fit_temperature, temperature_softmax
from trainer.statistics.figures import ThresholdRule
from trainer.statistics.metrics import (
    ALPHA,
    Discordance,
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
from trainer.store.gate import judge_kept_promise, judge_steering
from trainer.store.rules import GateRules

# Real predictions for ``tests.bench.judges``: a run folder's, or those of cheap models.


DEMO = Path(__file__).parents[2] / "worker" / "demo" / "data"
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Joint:
    """Which messages the adapter (messages) and each baseline (messages, baselines) get right."""

    source: str
    adapter: NDArray[np.bool_]
    others: NDArray[np.bool_]

    @property
    def baselines(self) -> int:
        """How many there are."""
        return int(self.others.shape[1])

    def first(self, count: int) -> Joint:
        """Return the same with the first baselines alone."""
        return replace(self, others=self.others[:, :count])

    def weights(self, worse: float) -> NDArray[np.float64]:
        """Return the weights nearest to equal ones (relative entropy) under which each baseline is
        worse than the adapter by exactly ``worse``."""
        gap = self.others.astype(float) - self.adapter[:, None] + worse
        found = minimize(
            lambda tilt: float(np.log(np.exp(gap @ tilt).mean())),
            np.zeros(gap.shape[1]),
            method="BFGS",
        )
        weights = np.exp(gap @ found.x)
        weights /= weights.sum()
        assert np.abs(weights @ gap).max() < 1e-4, "no weights make them so"
        return np.asarray(weights)


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities (messages, labels) and true labels."""

    source: str
    logprobs: NDArray[np.float64]
    truth: NDArray[np.int64]


def load_joint(run: Path | None) -> Joint:
    """Read a duel's answers, the adapter and the baselines; or make some of the demo's messages."""
    if run is None:
        return _demo_joint()
    with (run / DUEL_FOLDER / ANSWERS_NAME).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {
        entry["name"]: entry["kind"]
        for entry in json.loads((run / DUEL_FOLDER / "duel.json").read_text("utf-8"))["candidates"]
    }
    right = {
        name: np.array([row[name] == row["label"] for row in rows])
        for name, kind in kinds.items()
        if kind in {"adapter", "baseline"}
    }
    adapter = right.pop("adapter")
    source = f"{len(rows)} held-out messages, the adapter {adapter.mean():.1%}, " + ", ".join(
        f"{name} {hits.mean():.1%}" for name, hits in right.items()
    )
    return Joint(source, adapter, np.column_stack(list(right.values())))


def load_scores(run: Path | None) -> Scores:
    """Read an evaluation's scores on the hold-out; or make some of the demo's messages."""
    if run is None:
        demo = _demo()
        source = f"TF-IDF on {len(demo.truth)} of the demo's messages, out of fold"
        return Scores(source, np.log(np.maximum(demo.probabilities, 1e-12)), demo.truth)
    folder = run / EVALUATION_FOLDER
    labels = EVALUATION.read(folder).labels
    predictions = PREDICTIONS.read(folder)
    return Scores(
        f"the adapter on {len(predictions)} held-out messages",
        np.array([[found.logprobs[label] for label in labels] for found in predictions]),
        np.array([labels.index(str(found.label)) for found in predictions]),
    )


def calibrate_again(
    rng: np.random.Generator,
    scores: Scores,
    rows: int,
    by: ThresholdRule,
    precision: float,
    runs: int,
) -> tuple[int, float, float]:
    """Draw validation sets from the scores; return how often the threshold's precision over all of
    them is kept, the mean share that goes to review, and how often everything does."""
    best = scores.logprobs.argmax(axis=1) == scores.truth
    kept, review, everything = 0, 0.0, 0
    for _ in range(runs):
        drawn = rng.integers(0, len(best), size=rows)
        temperature = fit_temperature(scores.logprobs[drawn], scores.truth[drawn])
        confidence = temperature_softmax(scores.logprobs, temperature).max(axis=1)
        threshold = review_threshold(confidence[drawn], best[drawn], precision, floor=0.0, by=by)
        accepted = confidence >= threshold
        kept += not accepted.any() or best[accepted].mean() >= precision
        review += 1 - accepted.mean()
        everything += not accepted.any()
    return kept, review / runs, everything / runs


@dataclass(frozen=True, slots=True)
class _Demo:
    """The demo's messages as features, and the best cheap model's answers, out of fold."""

    words: csr_matrix
    letters: csr_matrix
    both: csr_matrix
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@functools.cache
def _demo() -> _Demo:
    lines = [
        json.loads(line)
        for name in ("train.jsonl", "holdout.jsonl")
        for line in (DEMO / name).read_text("utf-8").splitlines()
    ]
    texts, labels = [line["message"] for line in lines], [line["label"] for line in lines]
    names = sorted(set(labels))
    truth = np.array([names.index(label) for label in labels])
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    letters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2
    ).fit_transform(texts)
    both = hstack([words, letters], format="csr")
    best = LogisticRegression(C=10.0, max_iter=200)
    probabilities = cross_val_predict(best, both, truth, cv=_FOLDS, method="predict_proba")
    return _Demo(words, letters, both, truth, probabilities)


def _demo_joint() -> Joint:
    """The best cheap model stands for the adapter: what is real is who errs together with whom."""
    demo = _demo()
    models = (
        (RidgeClassifier(), demo.words),
        (RidgeClassifier(), demo.letters),
        (ComplementNB(), demo.words),
        (ComplementNB(), demo.letters),
        (ComplementNB(), demo.both),
        (RidgeClassifier(alpha=10.0), demo.both),
    )
    others = [
        cross_val_predict(model, features, demo.truth, cv=_FOLDS) == demo.truth
        for model, features in models
    ]
    adapter = demo.probabilities.argmax(axis=1) == demo.truth
    accuracies = ", ".join(f"{hits.mean():.1%}" for hits in (adapter, *others))
    source = f"cheap models on {len(adapter)} of the demo's messages, out of fold: {accuracies}"
    return Joint(source, adapter, np.column_stack(others))


# The table of ``tests.bench.judges``: every judge in every world.


_DUEL_MARGIN, _DISCORDANCE = 0.01, 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """A judge in a world: how often ``what`` happened of ``runs``. ``nominal`` is the most that it
    may, None where more is better."""

    judge: str
    world: str
    what: str
    count: int
    runs: int
    nominal: float | None

    @property
    def too_often(self) -> bool:
        """Whether it is above its nominal rate by more than simulation explains (three standard
        errors: there are some fifty rows)."""
        if self.nominal is None:
            return False
        error = math.sqrt(self.nominal * (1 - self.nominal) / self.runs)
        return self.count / self.runs > self.nominal + 3 * error


def print_table(runs: int, seed: int) -> None:
    """Run every world and print a row for each."""
    print("| judge | world | what happened | how often | may happen |\n|---|---|---|---|---|")
    failed = 0
    for judge_ in (
        _gate,
        _duel,
        _intervals,
        _thresholds,
        _promises,
        _labels,
        _steering,
        _proposals,
        _better,
    ):
        for row in judge_(np.random.default_rng(seed), runs):
            failed += row.too_often
            nominal = "" if row.nominal is None else f"{row.nominal:.0%}"
            mark = " TOO OFTEN" if row.too_often else ""
            print(
                f"| {row.judge} | {row.world} | {row.what} | {told(row.count, row.runs)} | "
                f"{nominal}{mark} |",
                flush=True,
            )
    print(f"\n{failed} rows above their nominal rate by more than simulation explains")


def told(count: int, runs: int) -> str:
    """Return a share with two standard errors."""
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


ADAPTER, DISCORDANCE, MARGIN = 0.95, 0.05, 0.01


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.judges", description=__doc__)
    parser.add_argument("--run", type=Path, help="a run folder with evaluation/ and duel/")
    parser.add_argument("--runs", type=int, default=2000, help="simulations for each figure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--more", action="store_true", help="also finer steps and real predictions")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    began = time.perf_counter()
    print_table(given.runs, given.seed)
    if given.more:
        exact_level()
        duels_simulated(rng, given.runs)
        duels_resampled(rng, given.runs, load_joint(given.run))
        regressions(rng, given.runs)
        thresholds(rng, given.runs, given.run)
    print(f"\n{given.runs} simulations for each figure, {time.perf_counter() - began:.0f} s")
    return 0


def exact_level() -> None:
    """Sum over every outcome how often one that is worse by exactly the margin passes."""
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
"""Draws a duel: for each baseline how often the adapter alone and it alone is right, its accuracy
on validation, and the adapter's hits."""


def duels_simulated(rng: np.random.Generator, runs: int) -> None:
    """Baselines whose errors are independent of one another, given the adapter's."""
    print(f"\nduel, margin 1 point, adapter right {ADAPTER:.0%}, discordance {DISCORDANCE:.0%}")
    enough = required_messages(DISCORDANCE, MARGIN)
    for messages in (800, 1501, enough):
        for worse in (0.02, 0.01, 0.0):
            for baselines in (1, 3, 6):
                draw = _independent(rng, messages, worse, baselines)
                _print_duels(draw, messages, worse, baselines, runs)
        said = power(messages, DISCORDANCE, MARGIN)
        print(f"  the power that is told for {messages} messages: {said:.1%}")
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


def duels_resampled(rng: np.random.Generator, runs: int, joint: Joint) -> None:
    """Real answers, drawn with weights under which each baseline is as much worse as is wanted."""
    print(f"\nduel on resampled real predictions: {joint.source}")
    for messages in (800, 1501):
        for worse in (0.02, 0.0):
            for baselines in sorted({1, min(3, joint.baselines), joint.baselines}):
                draw = _resampled(rng, joint, messages, worse, baselines)
                _print_duels(draw, messages, worse, baselines, runs)


def _resampled(
    rng: np.random.Generator, joint: Joint, messages: int, worse: float, baselines: int
) -> Draw:
    part = joint.first(baselines)
    weights = part.weights(worse)
    lost, won = part.adapter[:, None] & ~part.others, part.others & ~part.adapter[:, None]

    def draw() -> tuple[list[tuple[int, int]], list[float], int]:
        counts = rng.multinomial(messages, weights)
        validated = rng.multinomial(800, weights) @ part.others / 800
        pairs = zip((counts @ lost).tolist(), (counts @ won).tolist(), strict=True)
        return list(pairs), validated.tolist(), int(counts @ part.adapter)

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
        f"{told(now, runs)}, too few to tell {undecided / runs:.1%}; if all were tested with "
        f"Holm's correction {told(holm_now, runs)}"
    )


def regressions(rng: np.random.Generator, runs: int) -> None:
    """The gate's row against the current adapter."""
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
                f"{told(passed, runs)}"
            )


def thresholds(rng: np.random.Generator, runs: int, run: Path | None) -> None:
    """Trainings in which the true precision of what is accepted is the promised one, and the
    share that goes to review."""
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
            print(f"  {rows:5d} rows, by the {by}: kept {told(kept, runs)}, to review "
                  f"{1 - np.mean(counts) / len(truth):.1%}, all: {_none(counts)}")  # fmt: skip
    scores, fits = load_scores(run), max(1, runs // 4)
    print(f"  real scores, temperature fitted again each time: {scores.source}")
    for rows in (200, 800):
        for by in get_args(ThresholdRule):
            kept, review, everything = calibrate_again(rng, scores, rows, by, PRECISION, fits)
            print(f"  {rows:5d} rows, by the {by}: kept {told(kept, fits)}, to review "
                  f"{review:.1%}, all: {everything:.1%}")  # fmt: skip


def _confidences(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    surest, rest = rng.beta(30.0, 0.6, size=rows), rng.beta(3.0, 1.6, size=rows)
    return np.where(rng.random(rows) < 0.75, surest, rest)


def _none(counts: Sequence[int]) -> str:
    return f"{sum(count == 0 for count in counts) / len(counts):.1%}"


if __name__ == "__main__":
    raise SystemExit(main())
