"""How often a training on few rows keeps its promise, and what the gate says of it.

    python -m tests.bench.small_data [--runs 150] [--rows 100 300 1000] [--embed FILE.jsonl]

Each run draws so many rows from a large pool, holds 15 % out as ``prepare`` does, and trains a
linear head on the rest twice: with 8 % for validation, and by folds. Of the head that ships, all
other rows of the pool give the true precision of its labels without review, and its accuracy. The
pool is a world of eight normal clouds, or real messages (``--embed``: JSON Lines with ``message``
and ``label``) under the shipped sentence encoder.

``kept`` counts the trainings whose true precision without review is the promised one or more; a
training that sends everything to review keeps it. ``passes`` is the verdict on it as a first
adapter; ``wrongly`` passes although its promise is broken.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bench.judges import share_of
from trainer.artifacts.evaluation import Accepted, Answer, KeptPromise
from trainer.check.suspects import assign_folds
from trainer.model.bases import require_embedding_model
from trainer.model.embeddings import (
    EMBEDDING_LENGTH,
    embed,
    fit_by_folds,
    fit_grid,
    fit_linear,
    linear_layer,
)
from trainer.statistics.calibration import (
    Floats,
    Ints,
    ece,
    fit_temperature,
    temperature_softmax,
)
from trainer.statistics.thresholds import FOLD_LEVEL, LEVEL, proof, review_threshold
from trainer.store.gate import (
    judge_calibration,
    judge_floors,
    judge_kept_promise,
    judge_label,
    judge_usefulness,
    measure_after_review,
)
from trainer.store.rules import GateRules
from trainer.training.inputs import FOLDS

_HELD_OUT, _VALIDATION, _REVIEW_FLOOR = 0.15, 0.08, 0.5
_LABELS, _DIMENSIONS, _POOL, _JUDGED = 8, 24, 20_000, 6_000


@dataclass(frozen=True, slots=True)
class Pool:
    """Features, (rows, dimensions), and labels of all rows."""

    name: str
    x: Floats
    y: Ints


def clouds(apart: float) -> Pool:
    """Normal clouds, of which the labels' centres are ``apart`` standard deviations apart."""
    centres = np.random.default_rng(5).normal(size=(_LABELS, _DIMENSIONS))
    rng = np.random.default_rng(9)
    y = rng.integers(_LABELS, size=_POOL)
    x = centres[y] * apart / np.sqrt(2 * _DIMENSIONS) + rng.normal(size=(_POOL, _DIMENSIONS))
    return Pool(f"clouds {apart:g} apart", x, y.astype(np.int64))


def messages(file: Path) -> Pool:
    """Embed the messages of a file."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    x = embed([row["message"] for row in rows], require_embedding_model("leave out --embed"))
    labels = sorted({row["label"] for row in rows})
    y = np.array([labels.index(row["label"]) for row in rows], dtype=np.int64)
    return Pool(file.name, x.astype(np.float64) * EMBEDDING_LENGTH, y)


@dataclass(frozen=True, slots=True)
class Trained:
    """A head that ships: the logits that thresholds were made of with their labels, and its own
    logits of the hold-out and of the judged rows of the pool."""

    made_of: Floats
    labels: Ints
    level: float
    holdout: Floats
    judged: Floats


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a training."""

    kept: bool
    acts: bool
    review: float
    accuracy: float
    passes: bool


def train(
    pool: Pool, learnt: Ints, validation: Ints, held: Ints, judged: Ints
) -> Iterator[Trained]:
    """Train with a validation split, then by folds."""
    outputs = int(pool.y.max()) + 1

    def head(model: object, rows: Ints) -> Floats:
        weights, biases = linear_layer(model, outputs)
        found: Floats = pool.x[rows] @ weights.T + biases
        return found

    def accuracy(model: object) -> float:
        return float((head(model, validation).argmax(axis=1) == pool.y[validation]).mean())

    fits = fit_grid(pool.x[learnt], pool.y[learnt].tolist(), accuracy)
    model = max(fits, key=lambda fit: fit.accuracy).model
    yield Trained(
        head(model, validation), pool.y[validation], LEVEL, head(model, held), head(model, judged)
    )
    rows = np.concatenate([learnt, validation])
    x, y = pool.x[rows], pool.y[rows]
    folds = assign_folds(y, np.arange(len(rows)), 1, FOLDS)
    tried = fit_by_folds(
        x, y.tolist(), folds, outputs, lambda scores: float((scores.argmax(axis=1) == y).mean())
    )
    best = max(tried, key=lambda fit: fit.accuracy)
    model = fit_linear(x, y.tolist(), best.c)
    yield Trained(best.model, y, FOLD_LEVEL, head(model, held), head(model, judged))


def judge(trained: Trained, held: Ints, judged: Ints, precision: float) -> Outcome:
    """Make the thresholds as the trainer does, and ask the gate about the first adapter."""
    # As ``calibrate`` does, without its figures and its advice, which take most of the time.
    temperature = round(fit_temperature(trained.made_of, trained.labels), 4)

    def answers(logits: Floats, truth: Ints) -> tuple[Floats, Ints, Ints]:
        found = temperature_softmax(logits, temperature)
        return found.max(axis=1), found.argmax(axis=1), truth

    made_of = answers(trained.made_of, trained.labels)
    threshold = review_threshold(
        made_of[0], made_of[1] == made_of[2], precision, floor=_REVIEW_FLOOR, level=trained.level
    )
    sure, given, truth = answers(trained.judged, judged)
    accepted = sure >= threshold
    right = given == truth
    kept = not accepted.any() or bool(right[accepted].mean() >= precision)
    passes = _passes(
        answers(trained.made_of, trained.labels),
        answers(trained.holdout, held),
        threshold,
        precision,
    )
    return Outcome(
        kept, bool(accepted.any()), 1 - float(accepted.mean()), float(right.mean()), passes
    )


def _passes(
    made_of: tuple[Floats, Ints, Ints],
    held: tuple[Floats, Ints, Ints],
    threshold: float,
    precision: float,
) -> bool:
    rules = GateRules()
    found = []
    for (sure, given, truth), chosen in ((made_of, True), (held, False)):
        right = (given == truth)[sure >= threshold]
        p = proof(right, None, precision) if chosen else proof(~right, None, 1 - precision)
        found.append(Accepted(messages=len(right), right=int(right.sum()), effect=1.0, p=p))
    sure, given, truth = held
    names = [str(at) for at in range(int(max(truth.max(), given.max())) + 1)]
    rows = [
        Answer(
            id=str(at),
            label=str(truth[at]),
            predicted=str(given[at]),
            confidence=float(sure[at]),
            off_label_mass=None,
            review=bool(sure[at] < threshold),
            unconstrained_in_set=None,
        )
        for at in range(len(truth))
    ]
    settled = measure_after_review(rows, names)
    assert settled is not None
    criteria = [
        *judge_floors(settled, rules, first=True),
        *(judge_label(each, rules, first=True) for each in settled.per_label if each.support),
        judge_kept_promise(
            KeptPromise(precision=precision, by="lower", validation=found[0], holdout=found[1])
        ),
        judge_calibration(ece(sure, given == truth), rows, rules, first=True),
        judge_usefulness(rows),
    ]
    return all(row.passed for row in criteria)


def simulate(pool: Pool, rows: int, precisions: Sequence[float], runs: int, seed: int) -> None:
    """Print a line for each promise and way of training."""
    found: dict[tuple[float, str], list[Outcome]] = {}
    for run in range(runs):
        order = np.random.default_rng([seed, rows, run]).permutation(len(pool.y))
        own, judged = order[:rows], order[rows : rows + _JUDGED]
        cut = round(_HELD_OUT * rows)
        end = cut + max(len(np.unique(pool.y)), round(_VALIDATION * rows))
        held, validation, learnt = own[:cut], own[cut:end], own[end:]
        if len(np.unique(pool.y[learnt])) < len(np.unique(pool.y)):
            continue  # prepare refuses such an export
        ways = zip(
            ("validation", "folds"), train(pool, learnt, validation, held, judged), strict=True
        )
        for way, trained in ways:
            for precision in precisions:
                outcome = judge(trained, pool.y[held], pool.y[judged], precision)
                found.setdefault((precision, way), []).append(outcome)
    for (precision, way), outcomes in sorted(found.items()):
        count = len(outcomes)
        wrongly = sum(each.passes and not each.kept for each in outcomes)
        print(
            f"| {pool.name} | {rows:,} | {np.mean([each.accuracy for each in outcomes]):.1%} | "
            f"{precision:.0%} | {way} | {share_of(sum(each.kept for each in outcomes), count)} | "
            f"{np.mean([each.acts for each in outcomes]):.0%} | "
            f"{np.mean([each.review for each in outcomes]):.1%} | "
            f"{np.mean([each.passes for each in outcomes]):.0%} | {wrongly / count:.1%} | "
            f"{count} |",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.small_data", description=__doc__)
    parser.add_argument("--runs", type=int, default=150)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--apart", type=float, nargs="*", default=[4.0, 5.2])
    parser.add_argument("--precision", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--embed", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", "The least populated class", UserWarning)
    print("| world | rows | right | promise | thresholds from | kept | labels some itself | "
          "to review | passes | wrongly | runs |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    pools = [clouds(apart) for apart in given.apart]
    if given.embed:
        pools.append(messages(given.embed))
    for pool in pools:
        for rows in given.rows:
            simulate(pool, rows, given.precision, given.runs, given.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
