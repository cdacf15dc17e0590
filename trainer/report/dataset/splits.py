"""How the dataset was split, and whether anything is in two parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer import numbers
from trainer.check.finding import LEAKAGE
from trainer.dataset.folder import SPLITS
from trainer.dataset.report import tell_split
from trainer.facts import Table
from trainer.report.dataset.facts import DatasetFacts
from trainer.report.records import Block, Section, Titled, small

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
    told = [
        sentence
        for sentence in tell_split(_with_counts(record))
        if not sentence.startswith("Language ")
    ]
    blocks: list[Block] = [*told]
    if "time" in split:
        times = [(side, *map(numbers.moment, split["time"][side])) for side in SPLITS]
        blocks.append(Titled("Times", Table(("part", "first", "last"), times, words=3)))
    if languages:
        rows = [
            (name, *(numbers.count(counts.get(side, 0)) for side in SPLITS))
            for name, counts in languages.items()
        ]
        blocks.append(Titled("Languages", Table(("language", *SPLITS), rows)))
    sources = _sources(record)
    blocks.append(
        Titled(
            "Where labels come from",
            Table(("source", *SPLITS), sources) if sources else "Every label is the export's.",
        )
    )
    blocks.extend(_leaks(facts.figures(LEAKAGE)))
    seed = numbers.written((record.get("settings") or {}).get("seed"))
    digest = record["files"]["holdout.jsonl"]["sha256"]
    openings = [
        (
            numbers.moment(opening.get("at")),
            str(opening.get("purpose", "")),
            numbers.short(opening.get("subject")),
        )
        for opening in facts.opened
    ]
    opened = f"Opened {numbers.counted(len(openings), 'time')}:" if openings else "Never opened."
    blocks.append(Titled("The hold-out's seal", f"SHA-256 {digest}, seed {seed}. {opened}"))
    if openings:
        blocks.append(Table(("at", "purpose", "subject"), openings, words=3))
    return Section("splits", "How it was split", blocks)


def _leaks(leaks: Mapping[str, Any]) -> Iterator[Block]:
    rows = [
        (name, numbers.count(leaks[key]["exact"]), numbers.count(leaks[key]["near"]))
        for key, name in _SIDES
        if key in leaks
    ]
    if not rows:
        yield (
            "Whether something is in two parts was not checked; clerk-trainer prepare keeps "
            "near-copies together."
        )
        return
    yield Titled("Copies in two parts", Table(("between", "copies", "near-copies"), rows))
    told = f"Compared by fingerprint; near: a similarity of {numbers.written(leaks['similarity'])}"
    ids = sorted({id_ for key, _ in _SIDES for id_ in leaks.get(key, {}).get("ids", ())})
    named = f" Rows of the first part of each: {', '.join(ids)}." if ids else ""
    yield small(f"{told} or more.{named}")


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
