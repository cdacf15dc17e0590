"""Messages for the circle's simulation: their embeddings, labels and near-duplicates, kept."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.check.duplicates import number_clusters
from trainer.dataset.folder import Example
from trainer.model.embeddings import embed, find_embedding_model
from trainer.similarity import SIMILARITY

ROOT = Path(__file__).parents[2]
SHOP = ("train", "holdout", "holdout_more")

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Messages:
    """``features`` (messages, dimensions) are unit vectors, ``labels`` and ``sublabels`` numbers,
    ``clusters`` those of near-duplicates; ``names`` are the labels'."""

    texts: tuple[str, ...]
    features: NDArray[np.float32]
    labels: Ints
    sublabels: Ints
    clusters: Ints
    names: tuple[str, ...]


def load(tickets: Path | None, keep: Path, *, each: int | None = None) -> Messages:
    """Read the shop's messages, or those of a CSV file with the columns message, category and
    subcategory; ``each``: at most so many of every label, drawn at random. Embeddings and clusters
    are kept in ``keep`` and not computed again."""
    if tickets is None:
        rows = [
            (row["message"], row["label"], "")
            for name in SHOP
            for row in map(json.loads, _lines(ROOT / "worker/demo/data" / f"{name}.jsonl"))
        ]
    else:
        with tickets.open(encoding="utf-8-sig", newline="") as file:
            rows = [(r["message"], r["category"], r["subcategory"]) for r in csv.DictReader(file)]
    name = "shop" if tickets is None else tickets.stem
    if each is not None:
        rows, name = _some(rows, each), f"{name}-{each}"
    texts = [text for text, _, _ in rows]
    features = _kept(keep / f"{name}.npy", lambda: _embed(texts))
    examples = [Example(str(at), text, "") for at, text in enumerate(texts)]
    clusters = _kept(keep / f"{name}-clusters.npy", lambda: number_clusters(examples, SIMILARITY))
    names, labels = _numbered([label for _, label, _ in rows])
    _, sublabels = _numbered([f"{label}/{fine}" for _, label, fine in rows])
    return Messages(tuple(texts), features, labels, sublabels, clusters, names)


def _some(rows: list[tuple[str, str, str]], each: int) -> list[tuple[str, str, str]]:
    draw = np.random.default_rng(0)
    own = np.array([label for _, label, _ in rows])
    places = [draw.permutation(np.flatnonzero(own == label))[:each] for label in np.unique(own)]
    return [rows[at] for at in np.concatenate(places).tolist()]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _embed(texts: Sequence[str]) -> NDArray[np.float32]:
    model = find_embedding_model()
    assert model is not None, "the extra 'embeddings' is not installed"
    return embed(texts, model)


def _kept(path: Path, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    if not path.exists():
        np.save(path, make())
    kept: NDArray[Any] = np.load(path)
    return kept


def _numbered(values: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    names = tuple(sorted(set(values)))
    index = {name: at for at, name in enumerate(names)}
    return names, np.array([index[value] for value in values], dtype=np.int64)
