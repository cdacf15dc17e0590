"""Every check of a dataset, in order, and the record of what they found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.check.conflicts import check_conflicts, find_conflicts
from trainer.check.counts import FLOOR, check_balance, check_counts, check_holdout_size
from trainer.check.detect import LEAST_EXAMPLES, judge
from trainer.check.finding import Finding, worst
from trainer.check.leakage import check_leakage, holdout_fingerprints
from trainer.check.likeness import fingerprint
from trainer.check.misplaced import check_sublabels
from trainer.check.names import check_names
from trainer.check.suspects import NAME as SUSPECTS
from trainer.check.suspects import Suspect, check_suspects, find_suspects
from trainer.check.tokens import check_base
from trainer.dataset.folder import Dataset
from trainer.dataset.settings import SIMILARITY

SCHEMA = "check/1"
SIZE_OF_WORK = 100
"""``tick``'s parts add up to about so many."""

_WEIGHTS = {"near-duplicates": 10, "tokens": 5, "word pieces": 15, "embeddings": 35, "folds": 4}

Tick = Callable[[str, int], None]


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

    def describe(self) -> dict[str, Any]:
        """Return ``check.json``: figures and ids, no message texts."""
        return {
            "schema": SCHEMA,
            "dataset": {"name": self.dataset.name, "digest": self.dataset.digest},
            "verdict": worst(list(self.findings)),
            "verdicts": {one.name: one.verdict for one in self.findings},
            "suspects": len(self.suspects),
            "findings": [one.describe() for one in self.findings],
            "settings": {
                "base": self.settings.base.name if self.settings.base else None,
                "embeddings": self.settings.embeddings is not None,
                "floor": self.settings.floor,
                "max_message_tokens": self.settings.max_message_tokens,
                "similarity": self.settings.similarity,
                "most_suspects": self.settings.most_suspects,
                "seed": self.settings.seed,
            },
        }


def check_dataset(
    dataset: Dataset, settings: CheckSettings, tick: Tick = lambda _what, _done: None
) -> Checked:
    """Run every check on the training and validation parts. The hold-out stays sealed: only the
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
    prints = [fingerprint(one.key) for one in examples]
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
    dataset: Dataset, settings: CheckSettings, done: Tick
) -> tuple[tuple[Suspect, ...], list[Finding]]:
    examples = (*dataset.train, *dataset.validation)
    if len(examples) < LEAST_EXAMPLES or len({one.label for one in examples}) < 2:
        found = f"{len(examples)} examples are too few to judge labels by ({LEAST_EXAMPLES})"
        return (), [Finding(SUSPECTS, "skipped", found)]
    opinion = judge(
        examples,
        dataset.taxonomy.names,
        embeddings=settings.embeddings,
        seed=settings.seed,
        tick=done,
    )
    vouched = vouched_ids(dataset.record)
    suspects = find_suspects(examples, opinion, vouched)
    finding = check_suspects(
        suspects,
        opinion,
        vouched=sum(one.id in vouched for one in examples),
        most=settings.most_suspects,
    )
    return suspects, [finding, check_sublabels(examples, opinion, lambda n: done("folds", n))]


def vouched_ids(record: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids whose label a person decided on, as ``prepare`` wrote them down."""
    made = (record.get("decisions") or {}).get("made", ())
    return frozenset(one["id"] for one in made if one["decision"] != "drop")
