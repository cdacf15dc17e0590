"""``clerk-trainer check``: run all checks of a dataset, and write the review queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.artifacts.files import PRIVATE
from trainer.check.duplicates import (
    check_conflicts,
    check_leakage,
    find_conflicts,
    fingerprint,
    holdout_fingerprints,
    number_clusters,
)
from trainer.check.findings import (
    FLOOR,
    SUSPECTS,
    CheckedDataset,
    CheckRecord,
    Finding,
    check_balance,
    check_base,
    check_counts,
    check_holdout_size,
    check_languages,
    check_names,
    worst,
)
from trainer.check.suspects import (
    LEAST_EXAMPLES,
    SIMILAR,
    Suspect,
    check_sublabels,
    check_suspects,
    find_suspects,
    predict_out_of_fold,
)
from trainer.dataset.extra_files import read_groups
from trainer.dataset.folder import Dataset
from trainer.dataset.labels import BY_HAND, IDENTITY
from trainer.errors import BadInput
from trainer.progress import track
from trainer.similarity import SIMILARITY
from worker.common.review_files import read_review, write_review
from worker.contract.digest import write_atomically
from worker.contract.errors import RecordRefused
from worker.contract.text import message_sha256

COLUMNS = (
    "rank",
    *IDENTITY,
    "message",
    "label",
    "suggested_label",
    "confidence",
    "reason",
    *(f"similar_{number}" for number in range(1, SIMILAR + 1)),
    *BY_HAND,
)


def write_queue(path: Path, suspects: Sequence[Suspect], *, update: bool) -> int:
    """Write the queue; return the number of earlier decisions that it keeps.

    A queue with decisions is never overwritten: this raises BadInput, or with ``update`` keeps them
    at the rows with the same id and text. Decided rows that are no longer suspected move to the
    end.
    """
    kept = refuse_overwriting(path, update=update)
    rows = [_row(rank, suspect) for rank, suspect in enumerate(suspects, start=1)]
    for row in rows:
        # By id and text: a message that was edited under its id needs a new decision.
        if old := kept.pop((row["id"], row["message_sha256"]), None):
            row |= {name: old[name] for name in BY_HAND}
    decided = sum(any(row[name] for name in BY_HAND) for row in rows) + len(kept)
    for rank, old in enumerate(kept.values(), start=len(rows) + 1):
        rows.append({**old, "rank": str(rank), "reason": "decided earlier; no longer suspected"})
    write_atomically(path, write_review(COLUMNS, rows), mode=PRIVATE)
    return decided


def refuse_overwriting(path: Path, *, update: bool) -> dict[tuple[str, str], Mapping[str, str]]:
    """Return the rows of an existing queue in which a reviewer wrote something, by id and text
    digest. Raises BadInput if there are some and ``update`` is false."""
    kept: dict[tuple[str, str], Mapping[str, str]] = {}
    if path.exists():
        try:
            file = read_review(path, (*IDENTITY, *BY_HAND))
            file.check()
        except RecordRefused as error:
            raise BadInput(f"{error}; or name another --queue") from error
        kept = {
            (cells["id"], cells["message_sha256"]): {name: cells.get(name, "") for name in COLUMNS}
            for _, cells in file.rows
            if any(cells[name].strip() for name in BY_HAND)
        }
    if kept and not update:
        raise BadInput(
            f"{path}: has {len(kept)} rows with decisions: apply them first (clerk-trainer prepare "
            "--decisions), name another --queue, or give --update to keep them"
        )
    return kept


def _row(rank: int, suspect: Suspect) -> dict[str, str]:
    row = {
        "rank": str(rank),
        "id": suspect.example.id,
        "message_sha256": message_sha256(suspect.example.message),
        "message": suspect.example.message,
        "label": suspect.example.label,
        "suggested_label": suspect.suggested,
        "confidence": f"{suspect.confidence:.4f}",
        "reason": suspect.reason,
    }
    for number, example in enumerate(suspect.similar, start=1):
        row[f"similar_{number}"] = f"{example.id} [{example.label}] {example.message}"
    return row | dict.fromkeys(BY_HAND, "")


_MOST_SUSPECTS = 0.2
"""Share of suspected labels above which the check fails."""

_SEED = 1


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """``base`` and ``embeddings`` are directories; checks that need a missing one are skipped."""

    base: Path | None = None
    embeddings: Path | None = None
    floor: int = FLOOR
    max_message_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Checked:
    """The findings and the suspected labels."""

    dataset: Dataset
    findings: tuple[Finding, ...]
    suspects: tuple[Suspect, ...]
    settings: CheckSettings

    def record(self, queue: str, decisions_kept: int, options: Sequence[str] = ()) -> CheckRecord:
        """Return ``check.json``; ``queue`` is the review queue's name, ``options`` the command's
        own, as given."""
        settings = self.settings
        return CheckRecord(
            dataset=CheckedDataset(name=self.dataset.name, digest=self.dataset.digest),
            verdict=worst(self.findings),
            verdicts={finding.name: finding.verdict for finding in self.findings},
            suspects=len(self.suspects),
            findings=self.findings,
            settings={
                "base": settings.base.name if settings.base else None,
                "embeddings": settings.embeddings is not None,
                "floor": settings.floor,
                "max_message_tokens": settings.max_message_tokens,
                "similarity": SIMILARITY,
                "seed": _SEED,
            },
            queue=queue,
            decisions_kept=decisions_kept,
            options=tuple(options),
        )


def check_dataset(dataset: Dataset, settings: CheckSettings) -> Checked:
    """Run every check on training and validation; of the sealed hold-out, only the fingerprints and
    the manifest's counts are used.

    Deterministic. Raises BadInput if the base or the embedding model cannot be loaded.
    """
    examples = (*dataset.train, *dataset.validation)
    base = check_base(
        examples,
        dataset.taxonomy,
        settings.base,
        max_message_tokens=settings.max_message_tokens,
        redaction=dataset.redaction,
    )
    prints = [fingerprint(each.message, dataset.passages) for each in track("comparing", examples)]
    conflicts = find_conflicts(examples, prints)
    cut = len(dataset.train)
    leakage = check_leakage(
        (("train", dataset.train, prints[:cut]), ("validation", dataset.validation, prints[cut:])),
        holdout_fingerprints(dataset),
    )
    suspects, labels = _judge_labels(dataset, settings)
    findings = (
        check_counts(examples, dataset.taxonomy, settings.floor),
        check_balance(examples, dataset.taxonomy),
        check_holdout_size(dataset.record["files"]["holdout.jsonl"]["per_label"]),
        check_names(dataset.taxonomy),
        check_languages(dataset.languages, settings.base or settings.embeddings),
        *base,
        check_conflicts(conflicts, len(examples)),
        leakage,
        *labels,
    )
    return Checked(dataset, findings, suspects, settings)


def _judge_labels(
    dataset: Dataset, settings: CheckSettings
) -> tuple[tuple[Suspect, ...], list[Finding]]:
    examples = (*dataset.train, *dataset.validation)
    if len(examples) < LEAST_EXAMPLES or len({example.label for example in examples}) < 2:
        found = f"{len(examples)} examples are too few to judge labels by ({LEAST_EXAMPLES})"
        return (), [Finding(SUSPECTS, "skipped", found)]
    out_of_fold = predict_out_of_fold(
        examples,
        dataset.taxonomy.names,
        clusters=number_clusters(examples, read_groups(dataset)),
        embeddings=settings.embeddings,
        seed=_SEED,
    )
    made = (dataset.record.get("decisions") or {}).get("made", ())
    decided = {decision["id"] for decision in made if decision["decision"] != "drop"}
    suspects = find_suspects(examples, out_of_fold, decided)
    finding = check_suspects(
        suspects,
        out_of_fold,
        decided=np.array([example.id in decided for example in examples], dtype=np.bool_),
        most=_MOST_SUSPECTS,
    )
    return suspects, [finding, check_sublabels(examples, out_of_fold)]
