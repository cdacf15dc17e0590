"""``clerk-trainer taxonomy suggest``: topics of unlabelled messages, as a first set of labels.

Messages are clustered by k-means on TF-IDF and sentence embeddings. The file that is written holds
no message, because a taxonomy ends up in every adapter: terms alone (``trainer.start.terms``), or
what a teacher wrote (``trainer.suggest.names``). Messages are shown on the user's own terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.check.suspects import Matrix
from trainer.errors import BadInput
from trainer.progress import track
from trainer.start.terms import BY_TOPICS, name_of, names_in, taxonomy_text, typical_terms
from trainer.statistics.calibration import Floats, Ints
from trainer.suggest.texts import first_of, make_features, read_texts
from worker.contract.digest import write_atomically

FEWEST, LARGEST = 4, 20
"""Numbers of topics that are tried."""

_LEAST_EACH = 5
_SHOWN = 3
_SAMPLE = 2_000  # for the silhouette, whose time grows with the square
_TRIES = 4
_SEED = 1


@dataclass(frozen=True, slots=True)
class Topic:
    """A cluster: its name and typical terms, how many messages it has, the most typical ones, and
    a sentence about it, if a teacher wrote one."""

    name: str
    terms: tuple[str, ...]
    size: int
    typical: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics, the largest first. ``silhouette`` is from -1 to 1: near 0, messages are as close
    to other topics as to their own. ``names`` are words that messages use as names."""

    topics: tuple[Topic, ...]
    messages: int
    silhouette: float
    names: frozenset[str]


def find_topics(
    messages: Path,
    *,
    labels: int | None = None,
    message_column: str | None = None,
    embeddings: Path | None = None,
) -> Topics:
    """Cluster the messages into ``labels`` topics, or as many as separate them best. Raises
    BadInput."""
    texts = first_of(read_texts(messages, message_column))
    fewest = labels or FEWEST
    if len(texts) < fewest * _LEAST_EACH:
        raise BadInput(
            f"{messages.name}: has {len(texts)} different messages, and {fewest} topics need "
            f"{fewest * _LEAST_EACH}: add messages"
            + (", or lower --labels" if labels and labels > 2 else "")
        )
    features = make_features(texts, embeddings)
    most = min(LARGEST, len(texts) // _LEAST_EACH)
    tried = [labels] if labels else list(range(FEWEST, most + 1))
    silhouette, of, distance = max(
        (_cluster(features, k) for k in track("clustering", tried)), key=lambda found: found[0]
    )
    every = list(texts.values())
    return Topics(_describe(every, of, distance), len(texts), silhouette, names_in(every))


def refuse_existing(path: Path) -> None:
    """Raise BadInput for a taxonomy that exists."""
    if path.exists():
        raise BadInput(f"{path}: exists, and may be your work: give another --out")


def write_topics(path: Path, messages: Path, topics: Sequence[Topic], by: str = "") -> None:
    """Write a taxonomy file to edit; ``by`` wrote the descriptions. Raises BadInput if it
    exists."""
    refuse_existing(path)
    text = taxonomy_text(
        name_of(messages.stem),
        [messages.name],
        {each.name: each.terms for each in topics},
        {each.name: each.description for each in topics if each.description},
        origin=BY_TOPICS,
        how=f"named and described by {by}, or by typical words",
    )
    write_atomically(path, text.encode())


def _cluster(features: Matrix, topics: int) -> tuple[float, Ints, Floats]:
    """Return the silhouette, the cluster of each message, and the distance to its centre."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    model = KMeans(topics, n_init=_TRIES, random_state=_SEED).fit(features)
    of = np.asarray(model.labels_, dtype=np.int64)
    part = np.random.default_rng(_SEED).permutation(len(of))[:_SAMPLE]
    # The silhouette is not defined for one cluster, or with a cluster for each message.
    several = 1 < len(np.unique(of[part])) < len(part)
    found = silhouette_score(features[part], of[part]) if several else -1.0
    distance = np.linalg.norm(features - model.cluster_centers_[of], axis=1)
    return float(found), of, distance


def _describe(texts: Sequence[str], of: Ints, distance: Floats) -> tuple[Topic, ...]:
    rows = [(text, str(cluster)) for text, cluster in zip(texts, of, strict=True)]
    terms = typical_terms(rows)
    sizes = np.bincount(of)
    topics: list[Topic] = []
    taken: set[str] = set()
    for cluster in (int(at) for at in np.argsort(-sizes, kind="stable") if sizes[at]):
        members = np.flatnonzero(of == cluster)
        nearest = members[np.argsort(distance[members], kind="stable")][:_SHOWN]
        words = terms.get(str(cluster), ())
        name = _name(words, taken, len(topics) + 1)
        taken.add(name)
        topics.append(
            Topic(name, words, int(sizes[cluster]), tuple(texts[int(at)] for at in nearest))
        )
    return tuple(topics)


def _name(terms: Sequence[str], taken: set[str], number: int) -> str:
    """Return a name made of the first terms: one, or more if it is taken."""
    words = [term.replace(" ", "_") for term in terms[:2]]
    for name in ("_".join(words), f"{'_'.join(words)}_{number}"):
        if words and name not in taken:
            return name
    return f"topic_{number}"
