"""What people were asked before, so that nobody is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from worker.contract.exchange import read_answers, read_tasks
from worker.contract.text import normalize


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
