"""Tasks of the three purposes, made of what the trainer knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.check.duplicates import Fingerprint, fingerprint
from trainer.check.suspects import (
    Suspect,
    embedding_features,
    fit_predict,
    nearest_trusted,
    text_features,
    unit_rows,
)
from trainer.dataset.clean import cleaner_of
from trainer.dataset.folder import Dataset, Example
from trainer.errors import BadInput
from trainer.similarity import SIMILARITY
from trainer.tasks.choose import Floats, choose_batch, margins, one_of_each
from worker.contract.circle import LabelSource, Neighbour, Task, task_id
from worker.contract.text import message_sha256

SUSPECTED = "models_disagree"
NEIGHBOURS_AGREE = "neighbours_agree"
CLOSE_CALL = "close_call"
"""Codes of reasons: models that did not learn the message give another label; most similar
messages have it; the model can hardly tell two labels apart."""

_CLOSE = 0.2


@dataclass(frozen=True, slots=True)
class Asking:
    """What tasks of one file have in common."""

    dataset: Dataset
    batch: str
    guideline: str | None = None

    def task(self, example: Example, purpose: str, **more: object) -> Task:
        """Return the task of one message; ``more`` are further fields of ``Task``."""
        sha256 = message_sha256(example.message)
        return Task(
            schema="tasks/1",
            id=task_id(self.dataset.digest, purpose, sha256),  # type: ignore[arg-type]
            message_id=example.id,
            message_sha256=sha256,
            text=example.message,
            purpose=purpose,  # type: ignore[arg-type]
            dataset=self.dataset.digest,
            batch=self.batch,
            guideline=self.guideline,
            **more,  # type: ignore[arg-type]
        )


def check_tasks(
    asking: Asking, suspects: Sequence[Suspect], source_of: Mapping[str, LabelSource]
) -> list[Task]:
    """Return a task for each doubted label, the surest first. ``source_of`` maps ids to where their
    labels come from, for those that are not the export's."""
    return [
        asking.task(
            suspect.example,
            "check",
            label=suspect.example.label,
            label_source=source_of.get(suspect.example.id, "export"),
            suggested=suspect.suggested,
            confidence=round(suspect.confidence, 4),
            reasons=_reasons(suspect),
            neighbours=tuple(
                Neighbour(near.message, near.label, near.id) for near in suspect.similar
            ),
        )
        for suspect in suspects
    ]


def _reasons(suspect: Suspect) -> tuple[str, ...]:
    agree = [near.label for near in suspect.similar].count(suspect.suggested)
    return (SUSPECTED, NEIGHBOURS_AGREE) if 2 * agree > len(suspect.similar) else (SUSPECTED,)


def audit_tasks(asking: Asking, sample: Sequence[Example]) -> list[Task]:
    """Return a blind task for each message of a sample of the hold-out, in the sample's order."""
    return [asking.task(example, "audit") for example in sample]


@dataclass(frozen=True, slots=True)
class Pool:
    """Messages without a label that may be asked about, one of each cluster of near-duplicates.

    ``left_out`` counts those that say what a known message says, or what another one does.
    """

    examples: tuple[Example, ...]
    left_out: int


def make_pool(
    dataset: Dataset,
    messages: Mapping[str, str],
    *,
    told: Collection[str] = (),
    told_sha256: Collection[str] = (),
    holdout: Sequence[Fingerprint] = (),
    similarity: float = SIMILARITY,
) -> Pool:
    """Clean ``messages`` (id -> text) as the dataset is, but for names, which people may read, and
    leave out what would be asked twice:
    what is near to a message of the dataset, or to one of ``told``, keys of messages that were
    asked about before (``told_sha256``: those of which the digest alone is known), or of the
    hold-out, of which fingerprints are enough. Raises BadInput where none is left."""
    examples = []
    cleaner = cleaner_of(dataset)
    for id_, text in messages.items():
        cleaned = cleaner.clean(text).text
        # A task is about the clean text, an item of the desk about the message as it came.
        asked = {message_sha256(cleaned), message_sha256(text)}
        if cleaned.strip() and asked.isdisjoint(told_sha256):
            examples.append(Example(id_, cleaned, ""))
    known = {example.key for example in (*dataset.train, *dataset.validation)} | set(told)
    kept = one_of_each(
        [example.key for example in examples],
        [*map(fingerprint, sorted(known)), *holdout],
        similarity=similarity,
    )
    if not kept:
        raise BadInput(
            "no message is left to ask about: all say what a known message or an earlier task does"
        )
    return Pool(tuple(examples[at] for at in kept), len(messages) - len(kept))


@dataclass(frozen=True, slots=True)
class PoolScores:
    """What a model says of the pool's messages: ``probabilities`` (messages, labels of the
    taxonomy); ``features`` (messages, dimensions), unit vectors, and those of what is known."""

    probabilities: Floats
    features: NDArray[np.float32]
    known: NDArray[np.float32]
    by: str


def make_features(texts: Sequence[str], embeddings: Path | None) -> NDArray[np.float32]:
    """Return unit vectors: sentence embeddings, or TF-IDF where there is no model of them."""
    if embeddings is not None:
        return unit_rows(embedding_features(texts, embeddings))
    return text_features(texts)


def judge_cheaply(dataset: Dataset, pool: Pool, embeddings: Path | None) -> PoolScores:
    """Judge the pool by logistic regression that learns the dataset's training part in seconds."""
    names = dataset.taxonomy.names
    texts = [example.message for example in (*dataset.train, *pool.examples)]
    features = make_features(texts, embeddings)
    known, asked = features[: len(dataset.train)], features[len(dataset.train) :]
    targets = np.array([names.index(example.label) for example in dataset.train], dtype=np.int64)
    found = fit_predict(known * 2, targets, asked * 2, len(names), fine=True)
    what = "sentence embeddings" if embeddings else "TF-IDF"
    return PoolScores(found, asked, known, f"logistic regression on {what}")


def learn_tasks(
    asking: Asking, pool: Pool, judged: PoolScores, size: int, *, seed: int
) -> list[Task]:
    """Return tasks for the messages whose labels would teach most (see ``choose``), as they were
    drawn."""
    names = asking.dataset.taxonomy.names
    chosen = choose_batch(judged.probabilities, judged.features, size, seed=seed)
    gaps = margins(judged.probabilities)
    train = asking.dataset.train
    both = np.concatenate([judged.known, judged.features[chosen]])
    places = np.arange(len(judged.known), len(both), dtype=np.int64)
    near = nearest_trusted(both, places, np.arange(len(both)) < len(judged.known))
    tasks = []
    for at, neighbours in zip(chosen, near, strict=True):
        row = judged.probabilities[at]
        tasks.append(
            asking.task(
                pool.examples[at],
                "learn",
                suggested=names[int(row.argmax())],
                confidence=round(min(1.0, float(row.max())), 4),
                scores={name: round(float(p), 4) for name, p in zip(names, row, strict=True)},
                reasons=(CLOSE_CALL,) if gaps[at] < _CLOSE else (),
                neighbours=tuple(
                    Neighbour(train[n].message, train[n].label, train[n].id) for n in neighbours
                ),
            )
        )
    return tasks
