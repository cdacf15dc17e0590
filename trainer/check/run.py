"""Every check of a dataset, in order, and the record of what they found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.check.duplicates import (
    check_conflicts,
    check_leakage,
    find_conflicts,
    fingerprint,
    holdout_fingerprints,
)
from trainer.check.finding import CheckedDataset, CheckRecord, Finding, worst
from trainer.check.labels import (
    FLOOR,
    check_balance,
    check_counts,
    check_holdout_size,
    check_names,
)
from trainer.check.out_of_fold import LEAST_EXAMPLES, predict_out_of_fold
from trainer.check.sublabels import check_sublabels
from trainer.check.suspects import SUSPECTS, Suspect, check_suspects, find_suspects
from trainer.check.tokenization import check_base
from trainer.dataset.folder import Dataset
from trainer.dataset.settings import SIMILARITY

SIZE_OF_WORK = 100
"""What ``tick`` is told adds up to about this."""

_WEIGHTS = {"near-duplicates": 10, "tokens": 5, "TF-IDF": 15, "embeddings": 35, "folds": 4}

OnProgress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """``base`` and ``embeddings`` are directories; without them what needs them is left out.
    ``most_suspects`` is the share of doubted labels above which the check fails."""

    base: Path | None = None
    embeddings: Path | None = None
    floor: int = FLOOR
    max_message_tokens: int = 512
    similarity: float = SIMILARITY
    most_suspects: float = 0.2
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found, and whom to ask."""

    dataset: Dataset
    findings: tuple[Finding, ...]
    suspects: tuple[Suspect, ...]
    settings: CheckSettings

    def record(self, queue: str, decisions_kept: int) -> CheckRecord:
        """Return ``check.json``; ``queue`` is the review queue's name."""
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
                "similarity": settings.similarity,
                "most_suspects": settings.most_suspects,
                "seed": settings.seed,
            },
            queue=queue,
            decisions_kept=decisions_kept,
        )


def check_dataset(
    dataset: Dataset, settings: CheckSettings, tick: OnProgress = lambda _what, _done: None
) -> Checked:
    """Run every check on training and validation. The hold-out stays sealed: only the
    fingerprints of its messages are compared, and the manifest's counts are read.

    Deterministic for a seed. Raises BadInput when the base or the embedding model is none.
    """
    examples = (*dataset.train, *dataset.validation)

    def done(what: str, count: int) -> None:
        tick(what, count * _WEIGHTS[what])

    base = check_base(
        examples,
        dataset.taxonomy,
        settings.base,
        max_message_tokens=settings.max_message_tokens,
        redaction=dataset.redaction,
    )
    done("tokens", 1)
    prints = [fingerprint(example.key) for example in examples]
    conflicts = find_conflicts(examples, prints, settings.similarity)
    cut = len(dataset.train)
    leakage = check_leakage(
        (("train", dataset.train, prints[:cut]), ("validation", dataset.validation, prints[cut:])),
        holdout_fingerprints(dataset),
        settings.similarity,
    )
    done("near-duplicates", 1)
    suspects, labels = _judge_labels(dataset, settings, done)
    findings = (
        check_counts(examples, dataset.taxonomy, settings.floor),
        check_balance(examples, dataset.taxonomy),
        check_holdout_size(dataset.record["files"]["holdout.jsonl"]["per_label"]),
        check_names(dataset.taxonomy),
        *base,
        check_conflicts(conflicts, len(examples)),
        leakage,
        *labels,
    )
    return Checked(dataset, findings, suspects, settings)


def _judge_labels(
    dataset: Dataset, settings: CheckSettings, done: OnProgress
) -> tuple[tuple[Suspect, ...], list[Finding]]:
    examples = (*dataset.train, *dataset.validation)
    if len(examples) < LEAST_EXAMPLES or len({example.label for example in examples}) < 2:
        found = f"{len(examples)} examples are too few to judge labels by ({LEAST_EXAMPLES})"
        return (), [Finding(SUSPECTS, "skipped", found)]
    out_of_fold = predict_out_of_fold(
        examples,
        dataset.taxonomy.names,
        embeddings=settings.embeddings,
        seed=settings.seed,
        tick=done,
    )
    vouched = vouched_ids(dataset.record)
    suspects = find_suspects(examples, out_of_fold, vouched)
    finding = check_suspects(
        suspects,
        out_of_fold,
        vouched=sum(example.id in vouched for example in examples),
        most=settings.most_suspects,
    )
    return suspects, [finding, check_sublabels(examples, out_of_fold, lambda n: done("folds", n))]


def vouched_ids(record: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids whose label a person decided on, as ``prepare`` wrote them down."""
    made = (record.get("decisions") or {}).get("made", ())
    return frozenset(decision["id"] for decision in made if decision["decision"] != "drop")
