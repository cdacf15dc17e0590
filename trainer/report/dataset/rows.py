"""Where the rows came from and where they went; what was cleaned; copies and disagreement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.check.finding import CONFLICTS
from trainer.dataset.folder import SPLITS
from trainer.report import numbers
from trainer.report.bars import bar
from trainer.report.dataset.facts import DatasetFacts, conflicts
from trainer.report.numbers import flatten
from trainer.report.records import Input, Section
from trainer.report.texts import Shown, show_text
from trainer.similarity import SIMILARITY

REMOVED = (
    ("empty", ("empty_dropped",)),
    ("too long", ("too_long_dropped",)),
    ("dropped by a person's decision", ("decisions", "rows_dropped")),
    ("exact duplicates of another row", ("exact_duplicates_removed",)),
    ("one text under several labels", ("conflicts", "rows_left_out")),
    ("copies of hold-out messages", ("holdout_copies_removed", "exact")),
    ("near-copies of hold-out messages", ("holdout_copies_removed", "near")),
    ("near-copies of validation messages", ("near_validation_removed",)),
    ("labelled in an earlier part of the time", ("out_of_time_removed",)),
    ("more than asked for of a label", ("surplus",)),
)
"""Why a row may be left out, and where the dataset's counts hold how often it was."""


def rows_section(facts: DatasetFacts) -> Section:
    """Return the exports, what became of their rows, and what cleaning changed."""
    title = "Where the rows came from, and where they went"
    counts = facts.counts
    if not counts.get("rows_read"):
        missing = f"{Input.DATASET.path} does not count rows: {Input.DATASET.command} did not "
        return Section("rows", title, missing=missing + "make this dataset.")
    return Section(
        "rows",
        title,
        {
            "read": numbers.count(counts["rows_read"]),
            "removed": list(_removed(counts)),
            "used": list(_used(facts)),
            "sources": [_source(source) for source in _sources(facts.record)],
            "cleaned": list(_cleaned(facts)),
            "settings": list(flatten(facts.record.get("settings") or {})),
        },
    )


def count_removed(counts: Mapping[str, Any]) -> dict[str, int]:
    """Return how many rows were left out for each reason, those of none included."""
    return {name: _count(counts, path) for name, path in REMOVED}


def duplicates_section(facts: DatasetFacts) -> Section:
    """Return the clusters of near-duplicates and what has several labels."""
    title = "Copies and disagreement"
    near = facts.counts.get("near_clusters")
    if near is None:
        missing = f"{Input.DATASET.path} does not count duplicates: prepare the dataset again."
        return Section("duplicates", title, missing=missing)
    found = facts.counts["conflicts"]
    sizes = [(int(size), count) for size, count in (near.get("sizes") or {}).items()]
    most = max((count for _, count in sizes), default=1)
    checked = facts.figures(CONFLICTS)
    return Section(
        "duplicates",
        title,
        {
            "messages": numbers.counted(near["messages"], "message"),
            "clusters": numbers.counted(near["clusters"], "cluster"),
            "templates": _templates(facts.counts.get("templates") or {}),
            "similarity": numbers.written(SIMILARITY),
            "sizes": [
                {"size": size, "count": numbers.count(count), "bar": bar(count / most, "s5")}
                for size, count in sorted(sizes)
            ],
            "with_several_labels": numbers.counted(near["with_several_labels"], "cluster"),
            "any_several": bool(near["with_several_labels"]),
            "conflicts": numbers.counted(found["messages"], "message"),
            "resolved": [
                (why, numbers.count(n)) for why, n in (found.get("resolved") or {}).items()
            ],
            "checked": bool(checked),
            "exact": numbers.counted(checked.get("exact_messages", 0), "message"),
            "near": numbers.counted(checked.get("near_messages", 0), "message"),
            "pairs": [_pair(facts, pair) for pair in conflicts(facts)],
            "with_texts": facts.texts is not None,
        },
    )


def _templates(found: Mapping[str, int]) -> dict[str, str] | None:
    if not found.get("templates"):
        return None
    return {
        "templates": numbers.counted(found["templates"], "template"),
        "messages": numbers.counted(found["messages"], "message"),
        "largest": numbers.counted(found["largest"], "message"),
    }


def _removed(counts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    read = counts["rows_read"]
    for name, number in count_removed(counts).items():
        if number:
            yield {
                "name": name,
                "number": numbers.count(number),
                "share": numbers.percent(number / read),
                "bar": bar(number / read, "s2"),
            }


def _used(facts: DatasetFacts) -> Iterator[dict[str, Any]]:
    read = facts.counts["rows_read"]
    for name, style in zip(SPLITS, ("s1", "s3", "s5"), strict=True):
        size = facts.size(name)
        yield {
            "name": name,
            "number": numbers.count(size),
            "share": numbers.percent(size / read),
            "bar": bar(size / read, style),
        }


def _count(counts: Mapping[str, Any], path: tuple[str, ...]) -> int:
    number: Any = counts
    for key in path:
        number = number.get(key) if isinstance(number, Mapping) else None
    if isinstance(number, Mapping):
        return int(sum(number.values()))
    return int(number or 0)


def _sources(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from record.get("sources") or ()
    if held := record.get("holdout_source"):
        yield {**held, "name": f"{held['name']} (the hold-out)"}


def _source(source: Mapping[str, Any]) -> tuple[str, str, str, str]:
    columns = source.get("columns") or {}
    guessed = set(source.get("guessed_columns") or ())
    told = (
        f"{field} from {name}{' (a guess)' if field in guessed else ''}"
        for field, name in columns.items()
        if name
    )
    return (
        str(source.get("name")),
        numbers.count(source.get("rows")),
        ", ".join(told) or numbers.NONE,
        numbers.short(source.get("sha256")),
    )


def _cleaned(facts: DatasetFacts) -> Iterator[tuple[str, str]]:
    counts = facts.counts
    cleaned = counts.get("cleaned") or {}
    for name, number in cleaned.items():
        if name != "rules" and not isinstance(number, str):
            yield name.replace("_", " "), numbers.counted(number, "message")
    for kind, number in (counts.get("redacted") or {}).items():
        yield f"redacted: {kind.replace('_', ' ')}", numbers.count(number)
    decided = counts.get("decisions") or {}
    for name in ("accept", "relabel", "drop", "undecided"):
        if decided.get(name):
            yield f"decided by a person: {name}", numbers.counted(decided[name], "row")


def _pair(facts: DatasetFacts, pair: Mapping[str, Any]) -> dict[str, Any]:
    messages: list[tuple[str, str, Shown | None]] = [
        (id_, label, show_text(facts.texts, id_))
        for id_, label in zip(pair["ids"], pair["labels"], strict=True)
    ]
    return {
        "messages": messages,
        "labels": " / ".join(pair["labels"]),
        "similarity": numbers.decimal(pair.get("similarity"), 2),
    }
