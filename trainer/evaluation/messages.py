"""The messages of an evaluation, and files of them that come with no dataset: out of scope ones,
and other models' answers."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainer.dataset.examples import Example
from trainer.errors import BadInput

Element = TypeVar("Element")

_SEED = 1


@dataclass(frozen=True, slots=True)
class MessageSets:
    """The three sets of messages to answer; out-of-scope messages, by id, have no label."""

    holdout: tuple[Example, ...]
    validation: tuple[Example, ...]
    out_of_scope: Mapping[str, str]

    @property
    def messages(self) -> dict[str, str]:
        """Every message by a key that tells the sets apart."""
        known = {f"h:{example.id}": example.message for example in self.holdout}
        known |= {f"v:{example.id}": example.message for example in self.validation}
        return known | {f"o:{name}": message for name, message in self.out_of_scope.items()}


def sample(elements: Sequence[Element], limit: int | None) -> tuple[Element, ...]:
    """Return all, or ``limit`` drawn at random (always the same ones), in their order."""
    if limit is None or limit >= len(elements):
        return tuple(elements)
    chosen = sorted(random.Random(_SEED).sample(range(len(elements)), limit))  # noqa: S311
    return tuple(elements[at] for at in chosen)


def read_messages(path: Path) -> dict[str, str]:
    """Read messages by id from JSON Lines or CSV with the fields ``message`` and, optionally,
    ``id`` (else the line's number). Raises BadInput with file and line."""
    found: dict[str, str] = {}
    for number, record in read_table(path):
        message = record.get("message")
        if not isinstance(message, str) or not message.strip():
            raise BadInput(f"{path}: line {number} has no text in 'message'")
        name = str(record.get("id") or f"{path.name}:{number}")
        if name in found:
            raise BadInput(f"{path}: line {number} has the id {name!r} a second time")
        found[name] = message
    if not found:
        raise BadInput(f"{path}: holds no message")
    return found


def read_table(path: Path) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, fields) of a .jsonl or .csv file. Raises BadInput."""
    if path.suffix.lower() not in {".csv", ".jsonl", ".ndjson"}:
        raise BadInput(f"{path}: must be a .jsonl or a .csv file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                reader = csv.DictReader(file, strict=True)
                yield from ((reader.line_num, row) for row in reader)
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _object(json.loads(line))
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a line is not a JSON object")
    return value
