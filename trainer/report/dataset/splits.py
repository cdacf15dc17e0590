"""How the dataset was split, and whether anything is in two parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.check.finding import LEAKAGE
from trainer.dataset.folder import SPLITS
from trainer.dataset.report import tell_split
from trainer.report import numbers
from trainer.report.dataset.facts import DatasetFacts
from trainer.report.records import Section

_SIDES = (
    ("train_holdout", "training and hold-out"),
    ("validation_holdout", "validation and hold-out"),
    ("train_validation", "training and validation"),
)


def splits_section(facts: DatasetFacts) -> Section:
    """Return how the parts were drawn, their languages and times, and what is in two of them."""
    record = facts.record
    split: Mapping[str, Any] = record.get("split") or {}
    languages: Mapping[str, Mapping[str, int]] = split.get("languages") or {}
    told = list(tell_split(_with_counts(record)))
    leaks = facts.figures(LEAKAGE)
    return Section(
        "splits",
        "How it was split",
        {
            "told": [sentence for sentence in told if not sentence.startswith("Language ")],
            "times": [
                (side, *(numbers.moment(at) for at in split["time"][side]))
                for side in SPLITS
                if "time" in split
            ],
            "languages": [
                (name, *(numbers.count(counts.get(side, 0)) for side in SPLITS))
                for name, counts in languages.items()
            ],
            "leaks": [
                (name, numbers.count(leaks[key]["exact"]), numbers.count(leaks[key]["near"]))
                for key, name in _SIDES
                if key in leaks
            ],
            "sources": _sources(record),
            "ids": sorted({id_ for key, _ in _SIDES for id_ in leaks.get(key, {}).get("ids", ())}),
            "similarity": numbers.written(leaks.get("similarity")),
            "digest": record["files"]["holdout.jsonl"]["sha256"],
            "seed": numbers.written((record.get("settings") or {}).get("seed")),
            "openings": [
                (
                    numbers.moment(opening.get("at")),
                    str(opening.get("purpose", "")),
                    numbers.short(opening.get("subject")),
                )
                for opening in facts.opened
            ],
        },
    )


def _sources(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each origin of labels: its words, and its messages in each part."""
    counted: Mapping[str, Mapping[str, int]] = record.get("label_sources") or {}
    origins = sorted({origin for side in SPLITS for origin in counted.get(side, ())})
    return [
        (origin, *(numbers.count(counted[side].get(origin, 0)) for side in SPLITS))
        for origin in origins
    ]


def _with_counts(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a manifest that has counts, also of a dataset that ``prepare`` did not make."""
    nothing = {
        "holdout_copies_removed": {"near": 0},
        "near_validation_removed": 0,
        "out_of_time_removed": 0,
    }
    return {**record, "counts": nothing | dict(record.get("counts") or {})}
