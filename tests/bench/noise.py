"""Planted label errors: what the detector finds, what its suggestions repair, and what a few
checked examples are worth against many noisy ones.

    python -m tests.bench.noise --tickets CSV --out DIR

The file needs the columns message, category and subcategory. Features and results are kept in
DIR; what is already there is not computed again.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from trainer.check.duplicates import number_clusters
from trainer.check.out_of_fold import (
    assign_folds,
    cross_val_predict,
    embedding_features,
    fit_predict,
    sum_per_label,
    text_features,
    unit_rows,
)
from trainer.check.suspects import METHODS, doubtful, flag, self_confidence
from trainer.dataset.folder import Example
from trainer.model.embeddings import find_embedding_model
from trainer.similarity import SIMILARITY

SEEDS = (1, 2)
PLANTED = (0.02, 0.05, 0.10)
KINDS = ("uniform", "confused")
FEATURES = ("tfidf", "both")
SIZES = (25, 50, 100, 200, 364)
RATES = (0.0, 0.05, 0.10, 0.20, 0.40)
HOLDOUT_FOLDS = 5  # one of them is held out

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Data:
    """Features by name, labels and sublabels as numbers, each sublabel's label, each message's
    cluster of near-duplicates, and what a model of the clean sublabels thinks of each message."""

    features: Mapping[str, NDArray[np.float32]]
    labels: Ints
    sublabels: Ints
    label_of: Ints
    clusters: Ints
    out_of_fold: NDArray[np.float64]

    @property
    def label_count(self) -> int:
        return int(self.labels.max()) + 1


def main() -> None:
    """Measure, and write noise.json and noise.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tickets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    data = load(arguments.tickets, arguments.out)
    results: dict[str, Any] = {
        "messages": len(data.labels),
        "labels": data.label_count,
        "sublabels": len(data.label_of),
        "drill": kept(arguments.out / "drill.json", drill(data)),
        "clean": kept(arguments.out / "clean.json", clean(data)),
        "curve": kept(arguments.out / "curve.json", curve(data)),
    }
    (arguments.out / "noise.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    drilled = [*drill_table(results["drill"]), *queue_table(results["drill"] + results["clean"])]
    text = "\n".join([*drilled, *curve_table(results["curve"])])
    (arguments.out / "noise.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)
    print(f"\n{time.process_time() - start:.0f} s of one core")


def load(tickets: Path, out: Path) -> Data:
    """Read the file; compute features and the clean out-of-fold predictions once."""
    with tickets.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    messages = [row["message"] for row in rows]
    _, labels = np.unique([row["category"] for row in rows], return_inverse=True)
    _, sublabels = np.unique([row["subcategory"] for row in rows], return_inverse=True)
    label_of = np.zeros(sublabels.max() + 1, dtype=np.int64)
    label_of[sublabels] = labels
    directory = find_embedding_model()
    assert directory is not None, "install filing-clerk[embeddings]"
    text = cached(out / "tfidf.npy", lambda: text_features(messages))
    vectors = cached(out / "embeddings.npy", lambda: embedding_features(messages, directory))
    examples = [Example("", message, "") for message in messages]
    clusters = cached(out / "clusters.npy", lambda: number_clusters(examples, SIMILARITY))
    both = unit_rows(np.concatenate((text, vectors), axis=1)) * np.float32(2**0.5)
    out_of_fold = cached(
        out / "out_of_fold.npy",
        lambda: cross_val_predict(
            both, sublabels, assign_folds(sublabels, clusters, 0), len(label_of), fine=True
        ),
    )
    features = {"tfidf": text, "both": both}
    return Data(features, labels, sublabels, label_of, clusters, out_of_fold)


def cached(path: Path, make: Any) -> Any:
    if not path.exists():
        np.save(path, make())
    return np.load(path)


def kept(path: Path, found: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run through a measurement, writing each row down; return the file's where it is whole."""
    if path.exists():
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return rows
    rows = []
    with path.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
        for row in found:
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    path.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def plant(data: Data, rows: Ints, share: float, kind: str, seed: int) -> tuple[Ints, Ints]:
    """Return labels and sublabels of ``rows`` with so many errors in them.

    ``uniform`` picks any other label, ``confused`` the one that a model confuses the row's label
    with most; the sublabel follows (any of the new label's, or the likeliest of them).
    """
    random = np.random.default_rng(seed)
    labels, sublabels = data.labels[rows].copy(), data.sublabels[rows].copy()
    per_label = sum_per_label(data.out_of_fold, data.label_of, data.label_count)
    confused = np.zeros((data.label_count, data.label_count))
    np.add.at(confused, (data.labels, per_label.argmax(axis=1)), 1)
    np.fill_diagonal(confused, -1)
    for at in random.choice(len(rows), round(share * len(rows)), replace=False):
        old = labels[at]
        others = np.delete(np.arange(data.label_count), old)
        labels[at] = confused[old].argmax() if kind == "confused" else random.choice(others)
        inside = np.flatnonzero(data.label_of == labels[at])
        likeliest = inside[data.out_of_fold[rows[at]][inside].argmax()]
        sublabels[at] = likeliest if kind == "confused" else random.choice(inside)
    return labels, sublabels


def split(data: Data, seed: int) -> tuple[Ints, Ints]:
    """Return the rows to learn from and the rows to judge by."""
    folds = assign_folds(data.labels, data.clusters, 1000 + seed, HOLDOUT_FOLDS)
    return np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)


def accuracy(data: Data, known: Ints, labels: Ints, held: Ints) -> float:
    """Learn ``labels`` of the ``known`` rows; return the accuracy on the held-out rows."""
    x = data.features["both"]
    found = fit_predict(x[known], labels, x[held], data.label_count)
    return float((found.argmax(axis=1) == data.labels[held]).mean())


def drill(data: Data) -> Iterator[dict[str, Any]]:
    """Plant errors, look for them, and repair as many as were planted."""
    for seed, share, kind in product(SEEDS, PLANTED, KINDS):
        rows, held = split(data, seed)
        labels, sublabels = plant(data, rows, share, kind, seed)
        planted = labels != data.labels[rows]
        folds = assign_folds(sublabels, data.clusters[rows], seed)
        common = {"seed": seed, "share": share, "kind": kind, "planted": int(planted.sum())}
        common["clean"] = accuracy(data, rows, data.labels[rows], held)
        common["noisy"] = accuracy(data, rows, labels, held)
        for features, fine in product(FEATURES, (False, True)):
            x = data.features[features][rows]
            start = time.process_time()
            found = out_of_fold(data, x, labels, sublabels if fine else None, folds)
            seconds = time.process_time() - start
            doubt = 1 - self_confidence(labels, found)
            order = np.argsort(-doubt, kind="stable")[: planted.sum()]
            suggested = found.copy()
            suggested[np.arange(len(rows)), labels] = -1
            repaired = labels.copy()
            repaired[order] = suggested[order].argmax(axis=1)
            yield common | {
                "features": features,
                "sublabels": fine,
                "seconds": round(seconds, 1),
                "auprc": float(average_precision_score(planted, doubt)),
                "precision_at_k": float(planted[order].mean()),
                "suggestion_right": float(
                    (repaired[order] == data.labels[rows][order])[planted[order]].mean()
                ),
                "repaired": accuracy(data, rows, repaired, held),
                "flagged": {name: hit(flag(labels, found, name), planted) for name in METHODS},
                "queue": hit(doubtful(labels, found), planted),
            }


def out_of_fold(
    data: Data, x: NDArray[np.float32], labels: Ints, sublabels: Ints | None, folds: Ints
) -> NDArray[np.float64]:
    """The detector: out-of-fold probabilities of the labels, by way of sublabels if given."""
    if sublabels is None:
        return cross_val_predict(x, labels, folds, data.label_count)
    inner = cross_val_predict(x, sublabels, folds, len(data.label_of), fine=True)
    return sum_per_label(inner, data.label_of, data.label_count)


def clean(data: Data) -> Iterator[dict[str, Any]]:
    """Look at the queue of labels as they came, nothing planted."""
    for seed, features in product(SEEDS, FEATURES):
        rows, _ = split(data, seed)
        labels, sublabels = data.labels[rows], data.sublabels[rows]
        folds = assign_folds(sublabels, data.clusters[rows], seed)
        found = out_of_fold(data, data.features[features][rows], labels, sublabels, folds)
        none = np.zeros(len(rows), dtype=bool)
        yield {
            "seed": seed,
            "share": 0.0,
            "kind": KINDS[0],
            "features": features,
            "sublabels": True,
            "queue": hit(doubtful(labels, found), none),
        }


def hit(flagged: NDArray[np.bool_], planted: NDArray[np.bool_]) -> dict[str, float]:
    both = int((flagged & planted).sum())
    count = int(flagged.sum())
    return {
        "rows": count,
        "precision": both / max(1, count),
        "recall": both / max(1, planted.sum()),
    }


def curve(data: Data) -> Iterator[dict[str, Any]]:
    """Hold-out accuracy by the number of examples a label and the share of wrong labels."""
    for seed, kind, rate in product(SEEDS, KINDS, RATES):
        if rate == 0 and kind != KINDS[0]:
            continue
        rows, held = split(data, seed)
        labels, _ = plant(data, rows, rate, kind, seed)
        order = np.random.default_rng(seed).permutation(len(rows))
        for size in (*SIZES, 0):
            # So many that are filed under a label, rightly or wrongly: as an annotator sees it.
            chosen = [
                order[labels[order] == label][: size or None] for label in range(data.label_count)
            ]
            take = np.concatenate(chosen)
            score = accuracy(data, rows[take], labels[take], held)
            yield {
                "seed": seed,
                "kind": kind,
                "rate": rate,
                "per_label": size,
                "examples": len(take),
                "accuracy": score,
            }


def mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def drill_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Means over the seeds, a line for each detector."""
    for share, kind in product(PLANTED, KINDS):
        chosen = [row for row in rows if (row["share"], row["kind"]) == (share, kind)]
        yield f"**{share:.0%} {kind}** ({chosen[0]['planted']} of the training rows); hold-out "
        yield f"accuracy {mean(chosen, 'clean'):.2%} clean, {mean(chosen, 'noisy'):.2%} noisy"
        yield ""
        heads = " | ".join(f"{name}: flagged, precision, recall" for name in METHODS)
        first = "detector | AUPRC | precision at k | suggestion right | repaired | seconds"
        yield f"| {first} | {heads} |"
        yield "|---|" + "---:|" * (5 + len(METHODS))
        for features, fine in product(FEATURES, (False, True)):
            detector = (features, fine)
            mine = [row for row in chosen if (row["features"], row["sublabels"]) == detector]
            flags = []
            for name in METHODS:
                inner = [row["flagged"][name] for row in mine]
                flags.append(
                    f"{mean(inner, 'rows'):.0f}, {mean(inner, 'precision'):.1%}, "
                    f"{mean(inner, 'recall'):.1%}"
                )
            yield (
                f"| {features}{', sublabels' if fine else ''} | {mean(mine, 'auprc'):.3f} | "
                f"{mean(mine, 'precision_at_k'):.1%} | {mean(mine, 'suggestion_right'):.1%} | "
                f"{mean(mine, 'repaired'):.2%} | {mean(mine, 'seconds'):.0f} | "
                f"{' | '.join(flags)} |"
            )
        yield ""


def queue_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Means over the seeds: how long the queue is, and what it holds of the planted errors."""
    yield "| planted | features, over sublabels | queue: rows, precision, recall |"
    yield "|---|---|---:|"
    for share, kind, features in product((0.0, *PLANTED), KINDS, FEATURES):
        key = (share, kind, features, True)
        mine = [
            row["queue"]
            for row in rows
            if (row["share"], row["kind"], row["features"], row["sublabels"]) == key
        ]
        if mine:
            yield (
                f"| {share:.0%} {kind} | {features} | {mean(mine, 'rows'):.0f}, "
                f"{mean(mine, 'precision'):.1%}, {mean(mine, 'recall'):.1%} |"
            )
    yield ""


def curve_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Mean accuracy over the seeds: a line a rate, a column a size."""
    for kind in KINDS:
        yield f"**{kind}**"
        yield ""
        yield "| wrong labels | " + " | ".join([*map(str, SIZES), "all"]) + " |"
        yield "|---|" + "---:|" * (len(SIZES) + 1)
        for rate in RATES:
            cells = []
            for size in (*SIZES, 0):
                mine = [
                    row
                    for row in rows
                    if (row["rate"], row["per_label"]) == (rate, size)
                    and row["kind"] in {kind, KINDS[0] if rate == 0 else kind}
                ]
                cells.append(f"{mean(mine, 'accuracy'):.1%}")
            yield f"| {rate:.0%} | " + " | ".join(cells) + " |"
        yield ""


if __name__ == "__main__":
    main()
