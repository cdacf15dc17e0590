"""One labelled message, as it is from the dataset folder on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from worker.contract.digest import sha256_json
from worker.contract.text import normalize


@dataclass(frozen=True, slots=True)
class Example:
    """A message with its label, and a finer label where the data has one.

    ``id`` is unique in its dataset; files that travel (predictions, reports of figures) name a
    message by it and hold no text.
    """

    id: str
    message: str
    label: str
    sublabel: str | None = None

    @property
    def key(self) -> str:
        """What two messages share when one is a copy of the other: normalized, case folded."""
        return normalize(self.message).casefold()


def describe(examples: Sequence[Example], labels: Iterable[str]) -> dict[str, Any]:
    """Return a split's size, its count per label and a digest over its messages and labels."""
    counts = Counter(one.label for one in examples)
    return {
        "examples": len(examples),
        "per_label": {label: counts[label] for label in labels},
        "sha256": sha256_json(sorted([one.message, one.label] for one in examples)),
    }
