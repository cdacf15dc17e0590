"""A dataset as its page reads it: its manifest, its check, and, if asked for, some texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer import numbers
from trainer.check.duplicates import fingerprint, holdout_fingerprints
from trainer.check.findings import CHECK, CONFLICTS, SUSPECTS, CheckRecord, Finding
from trainer.dataset.folder import Dataset, Opening, list_openings, open_dataset
from trainer.dataset.near_duplicates import near_pairs
from trainer.errors import BadInput
from trainer.similarity import SIMILARITY

HIDDEN = "(near to the sealed hold-out: look it up by its id)"
"""In place of a training message that says what a held-out one says."""

MOST_SUSPECTS = 50
MOST_CONFLICTS = 20


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """Everything the page may show of a dataset. The hold-out is there in the manifest's counts
    alone. ``texts`` maps the ids of some training and validation messages to their texts, and is
    None where texts are left out."""

    dataset: Dataset
    check: CheckRecord | None
    opened: tuple[Opening, ...]
    texts: Mapping[str, str] | None = None

    @property
    def openings(self) -> int:
        """How often the hold-out has been opened."""
        return len(self.opened)

    @property
    def record(self) -> Mapping[str, Any]:
        """The manifest."""
        return self.dataset.record

    @property
    def counts(self) -> Mapping[str, Any]:
        """What became of the rows; empty in a dataset that ``prepare`` did not make."""
        counts: Mapping[str, Any] = self.record.get("counts") or {}
        return counts

    @property
    def labels(self) -> tuple[str, ...]:
        """The taxonomy's labels, in its order."""
        return self.dataset.taxonomy.names

    def per_label(self, split: str) -> Mapping[str, int]:
        """Return a split's messages a label, by the manifest."""
        found: Mapping[str, int] = self.record["files"][f"{split}.jsonl"]["per_label"]
        return found

    def size(self, split: str) -> int:
        """Return how many messages a split has, by the manifest."""
        return sum(self.per_label(split).values())

    def finding(self, name: str) -> Finding | None:
        """Return one of the check's findings, None where it has none of the name."""
        found = self.check.findings if self.check else ()
        return next((each for each in found if each.name == name), None)

    def figures(self, name: str) -> Mapping[str, Any]:
        """Return a finding's figures, empty where there is none."""
        found = self.finding(name)
        return found.figures if found else {}


def read_facts(directory: Path, *, texts: bool) -> DatasetFacts:
    """Read a dataset folder and its check. Raises BadInput where a file is missing or altered, or
    the check is of another dataset. The hold-out is not opened: with ``texts`` its fingerprints are
    compared with the messages to be shown, so that none of these tells what it holds."""
    dataset = open_dataset(directory)
    found = read_check_of(dataset)
    facts = DatasetFacts(dataset, found, list_openings(dataset))
    return replace(facts, texts=_texts(facts)) if texts else facts


def read_check_of(dataset: Dataset) -> CheckRecord | None:
    """Read what the check of a dataset found, None where it was not checked. Raises BadInput where
    the file is of another dataset."""
    found = CHECK.read_if_present(dataset.directory)
    if found is not None and found.dataset.digest != dataset.digest:
        raise BadInput(
            f"{dataset.directory / CHECK.name}: of another dataset "
            f"({numbers.short(found.dataset.digest)}, this one is "
            f"{numbers.short(dataset.digest)}): run {CHECK.command} on this one"
        )
    return found


def suspects(facts: DatasetFacts) -> list[Mapping[str, Any]]:
    """Return the doubted labels that the page names, the surest first."""
    return list(facts.figures(SUSPECTS).get("surest", ()))[:MOST_SUSPECTS]


def conflicts(facts: DatasetFacts) -> list[Mapping[str, Any]]:
    """Return the pairs of copies and near-copies with different labels that the page names."""
    return list(facts.figures(CONFLICTS).get("pairs", ()))[:MOST_CONFLICTS]


def _texts(facts: DatasetFacts) -> dict[str, str]:
    """Return the texts of the messages that the page names: of training and validation alone, and
    not of those that say what a held-out message says."""
    wanted = set(_named(facts))
    examples = [
        example
        for example in (*facts.dataset.train, *facts.dataset.validation)
        if example.id in wanted
    ]
    mine = [fingerprint(example.key) for example in examples]
    held = holdout_fingerprints(facts.dataset)
    near = near_pairs(
        [one.shingles for one in mine],
        [one.shingles for one in held],
        SIMILARITY,
        skip=lambda _mine, _held: False,
        most=1,
    )
    keys = {one.key for one in held}
    hidden = {place for place, _, _ in near} | {
        place for place, one in enumerate(mine) if one.key in keys
    }
    return {
        example.id: HIDDEN if place in hidden else example.message
        for place, example in enumerate(examples)
    }


def _named(facts: DatasetFacts) -> Iterator[str]:
    for suspect in suspects(facts):
        yield suspect["id"]
        yield from _ids(suspect.get("similar"))
    for pair in conflicts(facts):
        yield from _ids(pair.get("ids"))


def _ids(value: Iterable[str] | None) -> Iterable[str]:
    return value or ()
