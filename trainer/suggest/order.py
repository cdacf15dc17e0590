"""``clerk-trainer suggest``: what a cheap model would say of each message, and which message to
label next.

The model is logistic regression on TF-IDF and sentence embeddings. Messages are ordered by BADGE
(``trainer.tasks.make.choose_batch``): uncertain ones that differ from each other, so that of
near-duplicates one is asked. ``tests/bench/labelling.py`` compares it with a random order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.check.suspects import Matrix, fit_predict
from trainer.dataset.readers import choose_columns
from trainer.dataset.settings import ColumnNames
from trainer.errors import BadInput
from trainer.statistics.calibration import Floats
from trainer.suggest.texts import first_of, make_features, read_texts
from trainer.tasks.make import choose_batch, margins
from worker.common.tables import TableError, read_table
from worker.contract.exchange import Suggestion, write_suggestions
from worker.contract.taxonomy import Taxonomy, label_name
from worker.contract.text import message_sha256, normalize

BATCH = 25
"""Labels between two orders: so many messages are chosen together."""


@dataclass(frozen=True, slots=True)
class Suggested:
    """How many labelled messages the model learned from and how many suggestions it made, none of
    fewer than two labels."""

    labelled: int
    suggestions: int


def suggest(
    messages: Path,
    labelled: Path | None,
    taxonomy: Path,
    out: Path,
    *,
    message_column: str | None = None,
    embeddings: Path | None = None,
) -> Suggested:
    """Learn from the labelled messages, and write suggestions for those without a label.

    Of more than ``MOST`` messages a random part is considered. ``out`` with the suffix ``.npz``
    keeps the features, so that the next call takes a second. Raises BadInput.
    """
    names = Taxonomy.from_toml(taxonomy).names
    texts = first_of(read_texts(messages, message_column))
    known = read_labelled(labelled, names) if labelled is not None and labelled.exists() else {}
    texts |= {digest: text for digest, (text, _) in known.items()}
    features = make_features(texts, embeddings, out.with_suffix(".npz"))
    targets = np.array(
        [names.index(known[digest][1]) if digest in known else -1 for digest in texts],
        dtype=np.int64,
    )
    is_open = targets < 0
    found: list[Suggestion] = []
    if is_open.any() and len(np.unique(targets[~is_open])) > 1:
        asked = features[is_open]
        probabilities = predict(features[~is_open], targets[~is_open], asked, len(names))
        digests = [digest for digest, open_ in zip(texts, is_open, strict=True) if open_]
        found = [
            Suggestion(
                "suggestions/1",
                digests[at],
                names[int(probabilities[at].argmax())],
                round(min(1.0, float(probabilities[at].max())), 4),
            )
            for at in order(probabilities, asked, seed=len(known))
        ]
    write_suggestions(out, found)
    return Suggested(len(known), len(found))


def predict(known: Matrix, targets: NDArray[np.int64], asked: Matrix, labels: int) -> Floats:
    """Return probabilities, (asked, labels), of a model of the labelled messages."""
    return fit_predict(known * 2, targets, asked * 2, labels, fine=True)


def order(probabilities: Floats, features: Matrix, *, seed: int) -> list[int]:
    """Return the places of all messages in the order in which to label them: a batch by BADGE, then
    the others by their margins."""
    first = choose_batch(probabilities, features, BATCH, seed=seed)
    chosen = set(first)
    rest = np.argsort(margins(probabilities), kind="stable")
    return first + [int(at) for at in rest if int(at) not in chosen]


def read_labelled(path: Path, names: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Return digest -> (message, label) of a table's rows that have both. Raises BadInput, also for
    a label that is not one of ``names``."""
    found: dict[str, tuple[str, str]] = {}
    try:
        table = read_table(path, path.name)
        columns = choose_columns(ColumnNames(), table).of
        for number, (message, cell) in table.rows([columns["message"], columns["label"]]):
            label, text = label_name(cell), normalize(message)
            if not text or not label:
                continue
            if label not in names:
                raise BadInput(f"{table.where(number)}: its label is not in the taxonomy")
            found[message_sha256(message)] = (text, label)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except TableError as error:
        raise BadInput(str(error)) from error
    return found
