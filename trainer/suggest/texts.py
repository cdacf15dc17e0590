"""Messages without labels, and their features, which take most of the time and are kept."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from trainer.check.suspects import Matrix, embedding_features, text_features, unit_rows
from trainer.errors import BadInput
from trainer.teacher.label import unlabelled_columns
from worker.common.tables import TableError, read_table
from worker.contract.digest import sha256_json, write_atomically
from worker.contract.exchange import PRIVATE
from worker.contract.text import message_sha256, normalize

MOST = 5_000
"""Messages that are compared with each other. Their features take about 20 ms of CPU each, once."""


def read_texts(path: Path, message_column: str | None) -> dict[str, str]:
    """Return the different messages of a table by their digest, in the order of the digests, which
    is a random order that stays the same. Raises BadInput."""
    try:
        table = read_table(path, path.name)
        column = unlabelled_columns(table, message_column)[0]
        texts = {message_sha256(cell): normalize(cell) for _, (cell,) in table.rows([column])}
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except TableError as error:
        raise BadInput(str(error)) from error
    found = {digest: texts[digest] for digest in sorted(texts) if texts[digest]}
    if not found:
        raise BadInput(f"{path}: has no message with a text")
    return found


def first_of(texts: Mapping[str, str], most: int = MOST) -> dict[str, str]:
    """Return a random part of the messages: the first by their digests."""
    return {digest: texts[digest] for digest in sorted(texts)[:most]}


def make_features(
    texts: Mapping[str, str], embeddings: Path | None, kept: Path | None = None
) -> Matrix:
    """Return unit vectors, (messages, dimensions): TF-IDF, and sentence embeddings if there is a
    model. ``kept`` is a file that holds them for the next call with the same messages."""
    key = sha256_json(["features/1", list(texts), str(embeddings)])
    if kept is not None and (found := _read(kept, key)) is not None:
        return found
    messages: Sequence[str] = list(texts.values())
    parts = [text_features(messages)]
    if embeddings is not None:
        parts.append(embedding_features(messages, embeddings))
    features = unit_rows(np.concatenate(parts, axis=1))
    if kept is not None:
        data = io.BytesIO()
        np.savez(data, key=np.array(key), features=features)
        write_atomically(kept, data.getvalue(), mode=PRIVATE)
    return features


def _read(kept: Path, key: str) -> Matrix | None:
    """Return the features of these messages; None if the file holds others or is damaged."""
    try:
        with np.load(io.BytesIO(kept.read_bytes()), allow_pickle=False) as found:
            return found["features"] if str(found["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
