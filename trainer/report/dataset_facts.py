"""What the page about a dataset reads: the manifest, the check, and optionally some texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer import numbers
from trainer.check.duplicates import fingerprint, holdout_fingerprints
from trainer.check.findings import CHECK, CONFLICTS, SUSPECTS, CheckRecord, Finding
from trainer.dataset.folder import (
    SPLITS,
    TRAIN,
    Dataset,
    Opening,
    list_openings,
    open_dataset,
)
from trainer.dataset.near_duplicates import near_pairs
from trainer.dataset.people import has_teacher, people_sentences
from trainer.errors import BadInput
from trainer.similarity import SIMILARITY
from trainer.store.promise import PRECISION, what_split_can_show

HIDDEN = "(not shown: this repeats a message of the sealed hold-out)"
"""Shown in place of a training message that copies a hold-out message."""

MOST_SUSPECTS = 50
MOST_CONFLICTS = 20


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """Everything the page may show of a dataset; of the hold-out only the manifest's counts.

    ``texts`` maps ids of training and validation messages to their texts; None if the page shows
    no texts.
    """

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
        """What happened to the rows; empty if ``prepare`` did not make the dataset."""
        counts: Mapping[str, Any] = self.record.get("counts") or {}
        return counts

    @property
    def labels(self) -> tuple[str, ...]:
        """The taxonomy's labels, in its order."""
        return self.dataset.taxonomy.names

    def per_label(self, split: str) -> Mapping[str, int]:
        """Return the messages of each label in a split, from the manifest."""
        found: Mapping[str, int] = self.record["files"][f"{split}.jsonl"]["per_label"]
        return found

    def size(self, split: str) -> int:
        """Return how many messages a split has, from the manifest."""
        return sum(self.per_label(split).values())

    def finding(self, name: str) -> Finding | None:
        """Return the check's finding of this name, or None."""
        found = self.check.findings if self.check else ()
        return next((each for each in found if each.name == name), None)

    def figures(self, name: str) -> Mapping[str, Any]:
        """Return the figures of a finding; empty if there is none."""
        found = self.finding(name)
        return found.figures if found else {}


def read_facts(directory: Path, *, texts: bool) -> DatasetFacts:
    """Read a dataset folder and its check, without opening the hold-out.

    Raises BadInput if a file is missing or altered, or the check is of another dataset.
    """
    dataset = open_dataset(directory)
    facts = DatasetFacts(dataset, read_check_of(dataset), list_openings(dataset))
    return replace(facts, texts=_texts(facts)) if texts else facts


def read_check_of(dataset: Dataset) -> CheckRecord | None:
    """Read the result of a dataset's check; None if it was not checked. Raises BadInput if the file
    is of another dataset."""
    found = CHECK.read_if_present(dataset.directory)
    if found is not None and found.dataset.digest != dataset.digest:
        raise BadInput(
            f"{dataset.directory / CHECK.name}: is of another dataset "
            f"({numbers.short(found.dataset.digest)}, this one is "
            f"{numbers.short(dataset.digest)}): run {CHECK.command} on this dataset"
        )
    return found


def suspects(facts: DatasetFacts) -> list[Mapping[str, Any]]:
    """Return the doubtful labels that the page lists, the most certain first."""
    return list(facts.figures(SUSPECTS).get("surest", ()))[:MOST_SUSPECTS]


def conflicts(facts: DatasetFacts) -> list[Mapping[str, Any]]:
    """Return the pairs of copies and near-copies with different labels that the page lists."""
    return list(facts.figures(CONFLICTS).get("pairs", ()))[:MOST_CONFLICTS]


def what_dataset_can_show(
    record: Mapping[str, Any], promised_precision: float = PRECISION, *, by_folds: bool = False
) -> list[str]:
    """Return in sentences what a dataset's split can show, by its manifest, and who labelled it.
    ``by_folds``: see ``SplitPower``."""
    train, validation, holdout = (record["files"][f"{name}.jsonl"]["per_label"] for name in SPLITS)
    # A teacher's labels prove no promise, so thresholds cannot be made on training by folds.
    learnt = {} if has_teacher(record, TRAIN) else train
    grouped = "groups" in (record.get("split") or {})
    power = what_split_can_show(
        learnt, validation, holdout, promised_precision, grouped=grouped, by_folds=by_folds
    )
    return [*power.sentences, *people_sentences(record, power.enough)]


def _texts(facts: DatasetFacts) -> dict[str, str]:
    """Return the texts of the messages that the page lists, from training and validation only.

    A training message can repeat a hold-out message. Showing it would disclose the hold-out, so
    each is compared with the hold-out's fingerprints, which are readable without opening it.
    """
    wanted = {id_ for pair in conflicts(facts) for id_ in pair.get("ids") or ()}
    for suspect in suspects(facts):
        wanted |= {suspect["id"], *(suspect.get("similar") or ())}
    examples = [
        example
        for example in (*facts.dataset.train, *facts.dataset.validation)
        if example.id in wanted
    ]
    mine = [fingerprint(example.message, facts.dataset.passages) for example in examples]
    held = holdout_fingerprints(facts.dataset)
    near = near_pairs(
        [one.shingles for one in mine],
        [one.shingles for one in held],
        SIMILARITY,
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
