"""label_sources.jsonl: where each label comes from, for rows whose label is not the export's.

``prepare`` and ``propose`` write it, with the source and, where a person decided by one, the
version of the labelling guideline. It holds ids, of the hold-out too, and no text or label.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.dataset.folder import SPLITS, Example
from trainer.errors import BadInput
from worker.contract.exchange import LabelSource

LABEL_SOURCES = "label_sources.jsonl"


@dataclass(frozen=True, slots=True)
class LabelOrigin:
    """Where a label comes from, and by which version of the guideline."""

    source: LabelSource = "export"
    guideline: str | None = None

    @property
    def words(self) -> str:
        """The origin as it is counted."""
        return f"{self.source}, guideline {self.guideline}" if self.guideline else self.source


EXPORT = LabelOrigin()


def source_lines(
    splits: Mapping[str, Sequence[Example]], origins: Mapping[str, LabelOrigin]
) -> tuple[bytes, int]:
    """Return the file and how many rows it has. ``origins`` maps ids to theirs; of an id that is
    not there the label is the export's."""
    lines = []
    for example in _all(splits):
        origin = origins.get(example.id, EXPORT)
        if origin != EXPORT:
            row = {"id": example.id, "source": origin.source, "guideline": origin.guideline}
            lines.append(json.dumps(row, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines).encode("utf-8"), len(lines)


def count_sources(
    splits: Mapping[str, Sequence[Example]], origins: Mapping[str, LabelOrigin]
) -> dict[str, dict[str, int]]:
    """Return split -> origin in words -> messages."""
    return {
        split: dict(
            sorted(Counter(origins.get(each.id, EXPORT).words for each in splits[split]).items())
        )
        for split in SPLITS
    }


def read_label_sources(directory: Path) -> dict[str, LabelOrigin]:
    """Return id -> origin of the labels of a dataset folder that are not the export's. Raises
    BadInput."""
    path = directory / LABEL_SOURCES
    if not path.is_file():
        return {}
    try:
        rows: list[dict[str, Any]] = [
            json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line
        ]
        return {row["id"]: LabelOrigin(row["source"], row["guideline"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read: prepare the dataset again") from error


def _all(splits: Mapping[str, Sequence[Example]]) -> Iterable[Example]:
    return (example for split in SPLITS for example in splits[split])
