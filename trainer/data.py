"""Labelled messages: read strictly, split once, and never let the hold-out leak."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import BadInput
from worker.contract import Taxonomy
from worker.contract.digest import sha256_json
from worker.contract.text import normalize


@dataclass(frozen=True, slots=True)
class Example:
    """One hand-labelled message; ``where`` is its file and line, for error messages."""

    message: str
    label: str
    where: str

    @property
    def key(self) -> str:
        """What two messages share when one is a copy of the other: normalized, case folded."""
        return normalize(self.message).casefold()


@dataclass(frozen=True, slots=True)
class Splits:
    """Disjoint sets: gradients from ``train``, every choice from ``validation``, and the hold-out
    for the final figures alone."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    holdout: tuple[Example, ...]


def load_splits(
    data: Path, holdout: Path, taxonomy: Taxonomy, *, validation_share: float, seed: int
) -> Splits:
    """Read both files, refuse copies between and within them, and carve validation from ``data``.

    Raises BadInput with the file and line at fault.
    """
    examples = read_examples(data, taxonomy)
    held_out = read_examples(holdout, taxonomy)
    refuse_copies([*examples, *held_out])
    train, validation = split_validation(examples, taxonomy, share=validation_share, seed=seed)
    return Splits(train, validation, held_out)


def read_examples(path: Path, taxonomy: Taxonomy) -> tuple[Example, ...]:
    """Read a JSON Lines file of ``{"message", "label"}``. Raises BadInput with ``file:line``."""
    known = frozenset(taxonomy.names)
    examples = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    examples.append(_read_line(line, f"{path}:{number}", known))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot read the data: {error}") from error
    if not examples:
        raise BadInput(f"{path}: holds no examples")
    return tuple(examples)


def refuse_copies(examples: Iterable[Example]) -> None:
    """Raise BadInput at the first message that occurs twice, as the model would read it."""
    seen: dict[str, str] = {}
    for example in examples:
        first = seen.setdefault(example.key, example.where)
        if first != example.where:
            raise BadInput(f"{example.where}: the same message as {first}: remove one of them")


def split_validation(
    examples: Sequence[Example], taxonomy: Taxonomy, *, share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Split into (train, validation), each label by the same share; at least one example on
    either side.

    The split depends on the seed and the messages alone, not on the order of lines.
    """
    train: list[Example] = []
    validation: list[Example] = []
    for label in taxonomy.names:
        mine = sorted((one for one in examples if one.label == label), key=lambda one: one.key)
        if len(mine) < 2:
            raise BadInput(
                f"label {label!r} has {len(mine)} training examples: two or more are needed, and "
                "dozens to learn it"
            )
        random.Random(f"{seed}:{label}").shuffle(mine)  # noqa: S311 - a split, not a secret
        count = min(len(mine) - 1, max(1, round(len(mine) * share)))
        validation.extend(mine[:count])
        train.extend(mine[count:])
    return tuple(train), tuple(validation)


def describe(examples: Sequence[Example], taxonomy: Taxonomy) -> dict[str, object]:
    """Return a split's size, its count per label and a digest over its messages and labels."""
    counts = Counter(one.label for one in examples)
    return {
        "examples": len(examples),
        "per_label": {label: counts[label] for label in taxonomy.names},
        "sha256": sha256_json(sorted([one.message, one.label] for one in examples)),
    }


def _read_line(line: str, where: str, known: frozenset[str]) -> Example:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{where}: not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise BadInput(f"{where}: must be a JSON object with 'message' and 'label'")
    message, label = record.get("message"), record.get("label")
    if not isinstance(message, str) or not isinstance(label, str):
        raise BadInput(f"{where}: needs 'message' and 'label' as text")
    if label not in known:
        raise BadInput(f"{where}: unknown label {label!r}; known are {', '.join(sorted(known))}")
    if not normalize(message):
        raise BadInput(f"{where}: the message is empty")
    return Example(message, label, where)
