"""Tasks of three purposes: check doubted labels, audit a sample, learn from unlabelled messages.

Messages to learn from are chosen by gradient embeddings (BADGE; Ash et al. 2020, arXiv 1906.03671):
the loss's gradient at the last layer if the model's own answer were the label.
Its length is the model's uncertainty, its direction what the message would teach. Seeding as
k-means++ does (Arthur & Vassilvitskii 2007) draws messages whose gradients are long and far apart.
Only the messages of the smallest margins are looked at (Scheffer et al. 2001): a plain margin is
hard to beat (Bahri et al. 2022, arXiv 2210.03822).
"""

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
from trainer.dataset.near_duplicates import near_clusters, near_pairs
from trainer.errors import BadInput
from trainer.evaluation.predictions import outputs_of
from trainer.model.lora_model import encode_prompts
from trainer.model.published import open_scorer, read_adapter
from trainer.model.scoring import BATCH_SIZE
from trainer.similarity import SIMILARITY
from worker.contract.exchange import LabelSource, Neighbour, Task, read_answers, read_tasks, task_id
from worker.contract.text import message_sha256, normalize

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


Floats = NDArray[np.float64]

WIDTH = 10
"""So many times the batch's size are the messages of the smallest margins that a batch is drawn
from: 1 is the margin alone, without diversity."""


def margins(probabilities: Floats) -> Floats:
    """Return the likeliest label's probability less the second one's, (messages,)."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


def choose_batch(
    probabilities: Floats,
    features: NDArray[np.float32],
    size: int,
    *,
    seed: int,
    width: int = WIDTH,
) -> list[int]:
    """Return the places of at most ``size`` messages to ask about, the first one first.

    ``probabilities`` (messages, labels) are the model's, ``features`` (messages, dimensions) unit
    vectors. Deterministic for a seed; the same messages in another order give the same batch only
    where no two are exactly alike.
    """
    order = np.argsort(margins(probabilities), kind="stable")[: size * width]
    if len(order) <= size:
        return [int(at) for at in order]
    residual = -probabilities[order]
    residual[np.arange(len(order)), probabilities[order].argmax(axis=1)] += 1.0
    return [int(order[at]) for at in _seed_centres(residual, features[order], size, seed)]


def _seed_centres(
    residual: Floats, features: NDArray[np.float32], size: int, seed: int
) -> list[int]:
    """Draw centres as k-means++ does, among the outer products of the rows of ``residual`` and
    ``features``, which are never formed: the inner product of two is the product of two."""
    draw = np.random.default_rng(seed)
    x = features.astype(np.float64)
    lengths = (residual**2).sum(axis=1) * (x**2).sum(axis=1)
    chosen = [int(lengths.argmax())]
    distances = np.full(len(x), np.inf)
    while len(chosen) < size:
        last = chosen[-1]
        inner = (residual @ residual[last]) * (x @ x[last])
        distances = np.minimum(distances, np.maximum(lengths + lengths[last] - 2 * inner, 0.0))
        distances[chosen] = 0.0
        total = distances.sum()
        if total <= 0:  # all that are left say the same as one that is chosen
            rest = np.setdiff1d(np.arange(len(x)), chosen)
            chosen += [int(at) for at in rest[: size - len(chosen)]]
            break
        chosen.append(int(draw.choice(len(x), p=distances / total)))
    return chosen


def one_of_each(
    keys: Sequence[str], known: Sequence[Fingerprint], *, similarity: float
) -> list[int]:
    """Return the places of the messages worth asking about: none that says what one of ``known``
    says, and one of each cluster of copies and near-duplicates. ``keys`` are as ``Example.key``."""
    first: dict[str, int] = {}
    for at, key in enumerate(keys):
        first.setdefault(key, at)
    distinct = sorted(first)
    mine = [fingerprint(key) for key in distinct]
    near = near_pairs(
        [each.shingles for each in mine], [each.shingles for each in known], similarity, most=1
    )
    copies = {each.key for each in known}
    told = {place for place, _, _ in near}
    told |= {place for place, each in enumerate(mine) if each.key in copies}
    fresh = [key for place, key in enumerate(distinct) if place not in told]
    clusters = near_clusters(fresh, similarity=similarity)
    return sorted(min(first[fresh[place]] for place in cluster) for cluster in clusters)


def judge_by_adapter(
    dataset: Dataset,
    pool: Pool,
    adapter: Path,
    base: Path | None,
    embeddings: Path | None,
    *,
    device: str = "auto",
) -> PoolScores:
    """Score the pool as serving does. Raises BadInput where the adapter has other labels than the
    dataset, AdapterRefused where a worker would refuse it."""
    manifest, tokenizer = read_adapter(adapter, base)
    names = dataset.taxonomy.names
    if set(manifest.taxonomy.names) != set(names):
        raise BadInput(f"{adapter}: its labels are not the dataset's: take an adapter of these")
    prompts = encode_prompts(
        {str(at): example.message for at, example in enumerate(pool.examples)},
        manifest.prompt,
        tokenizer,
    )
    scorer = open_scorer(adapter, base, manifest, list(prompts.values()), device=device)
    scores = scorer.score(
        list(prompts.values()), batch_size=BATCH_SIZE, on_progress=lambda _done: None
    )
    found = outputs_of(manifest).probabilities(scores.logprobs, manifest.calibration.temperature)
    order = [manifest.taxonomy.names.index(name) for name in names]
    texts = [example.message for example in (*dataset.train, *pool.examples)]
    features = make_features(texts, embeddings)
    cut = len(dataset.train)
    return PoolScores(
        np.asarray(found[:, order]), features[cut:], features[:cut], f"adapter {manifest.name}"
    )


def read_earlier(paths: Sequence[Path]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the keys of the messages that tasks (``.jsonl``) asked about, and the digests of those
    that decisions (``.csv``) are about, whose texts are not known. Raises RecordRefused."""
    keys: set[str] = set()
    digests: set[str] = set()
    for path in paths:
        if path.suffix.casefold() == ".csv":
            digests |= {answer.message_sha256 for answer in read_answers(path)}
        else:
            keys |= {normalize(task.text).casefold() for task in read_tasks(path)}
    return frozenset(keys), frozenset(digests)
