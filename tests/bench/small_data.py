"""How often a training on few rows keeps its promise.

    python -m tests.bench.small_data [--runs 150] [--rows 100 300 1000] [--embed FILE.jsonl]

Each run draws so many rows from a large pool, holds 15 % out as ``prepare`` does, and trains a
linear head on the rest twice: with 8 % for validation, and by folds. Of the head that ships, all
other rows of the pool give the true precision of its labels without review, and its accuracy. The
pool is a world of eight normal clouds, or real messages (``--embed``: JSON Lines with ``message``
and ``label``) under the shipped sentence encoder.

``kept`` counts the trainings whose true precision without review is the promised one or more; a
training that sends everything to review keeps it.
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
    fit_temperature,
    temperature_softmax,
)
from trainer.statistics.thresholds import FOLD_LEVEL, LEVEL, review_threshold
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
    logits of the judged rows of the pool."""

    made_of: Floats
    labels: Ints
    level: float
    judged: Floats


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a training."""

    kept: bool
    acts: bool
    review: float
    accuracy: float


def train(pool: Pool, learnt: Ints, validation: Ints, judged: Ints) -> Iterator[Trained]:
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
    yield Trained(head(model, validation), pool.y[validation], LEVEL, head(model, judged))
    rows = np.concatenate([learnt, validation])
    x, y = pool.x[rows], pool.y[rows]
    folds = assign_folds(y, np.arange(len(rows)), 1, FOLDS)
    tried = fit_by_folds(
        x, y.tolist(), folds, outputs, lambda scores: float((scores.argmax(axis=1) == y).mean())
    )
    best = max(tried, key=lambda fit: fit.accuracy)
    model = fit_linear(x, y.tolist(), best.c)
    yield Trained(best.model, y, FOLD_LEVEL, head(model, judged))


def judge(trained: Trained, truth: Ints, precision: float) -> Outcome:
    """Make the thresholds as the trainer does; ``truth`` are the labels of the judged rows."""
    # As ``calibrate`` does, without its figures and its advice, which take most of the time.
    temperature = round(fit_temperature(trained.made_of, trained.labels), 4)
    made_of, judged = (
        temperature_softmax(logits, temperature) for logits in (trained.made_of, trained.judged)
    )
    threshold = review_threshold(
        made_of.max(axis=1), made_of.argmax(axis=1) == trained.labels, precision,
        floor=_REVIEW_FLOOR, level=trained.level,
    )  # fmt: skip
    accepted = judged.max(axis=1) >= threshold
    right = judged.argmax(axis=1) == truth
    kept = not accepted.any() or bool(right[accepted].mean() >= precision)
    return Outcome(kept, bool(accepted.any()), 1 - float(accepted.mean()), float(right.mean()))


def simulate(pool: Pool, rows: int, precisions: Sequence[float], runs: int, seed: int) -> None:
    """Print a line for each promise and way of training."""
    found: dict[tuple[float, str], list[Outcome]] = {}
    for run in range(runs):
        order = np.random.default_rng([seed, rows, run]).permutation(len(pool.y))
        own, judged = order[:rows], order[rows : rows + _JUDGED]
        cut = round(_HELD_OUT * rows)
        end = cut + max(len(np.unique(pool.y)), round(_VALIDATION * rows))
        validation, learnt = own[cut:end], own[end:]
        if len(np.unique(pool.y[learnt])) < len(np.unique(pool.y)):
            continue  # prepare refuses such an export
        ways = zip(("validation", "folds"), train(pool, learnt, validation, judged), strict=True)
        for way, trained in ways:
            for precision in precisions:
                outcome = judge(trained, pool.y[judged], precision)
                found.setdefault((precision, way), []).append(outcome)
    for (precision, way), outcomes in sorted(found.items()):
        count = len(outcomes)
        print(
            f"| {pool.name} | {rows:,} | {np.mean([each.accuracy for each in outcomes]):.1%} | "
            f"{precision:.0%} | {way} | {share_of(sum(each.kept for each in outcomes), count)} | "
            f"{np.mean([each.acts for each in outcomes]):.0%} | "
            f"{np.mean([each.review for each in outcomes]):.1%} | {count} |",
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
          "to review | runs |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    pools = [clouds(apart) for apart in given.apart]
    if given.embed:
        pools.append(messages(given.embed))
    for pool in pools:
        for rows in given.rows:
            simulate(pool, rows, given.precision, given.runs, given.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
