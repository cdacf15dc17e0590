"""Where the rows came from and where they went; what was cleaned; copies and disagreement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trainer import numbers
from trainer.check.finding import CONFLICTS
from trainer.dataset.folder import SPLITS
from trainer.facts import Table
from trainer.numbers import flatten
from trainer.report.bars import bar
from trainer.report.dataset.facts import DatasetFacts, conflicts
from trainer.report.records import Block, Drawn, Input, Section, Titled
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
    told = f"{numbers.count(counts['rows_read'])} rows were read. Bars are shares of them."
    removed = _ladder(counts, count_removed(counts).items(), "s2")
    blocks: list[Block] = [
        told,
        Titled("In use", _ladder(counts, ((name, facts.size(name)) for name in SPLITS), "s1")),
        Titled("Left out", removed if removed.rows else "None."),
    ]
    if sources := [_source(source) for source in _sources(facts.record)]:
        table = Table(("file", "columns", "SHA-256", "rows"), sources, words=3)
        blocks.append(Titled("The exports", table))
    if cleaned := list(_cleaned(facts)):
        blocks.append(Titled("What was changed in them", cleaned))
    if settings := list(flatten(facts.record.get("settings") or {})):
        blocks.append(Titled("Settings", settings))
    return Section("rows", title, blocks)


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
    similarity = numbers.written(SIMILARITY)
    told = (
        f"Messages that are nearly the same as another (similarity {similarity} or more): "
        f"{numbers.count(near['messages'])}, in {numbers.counted(near['clusters'], 'cluster')}, "
        f"each in one part alone. Clusters with several labels: "
        f"{numbers.count(near['with_several_labels'])}; some are mistakes, some the very "
        f"difference that matters. Messages that occurred under several labels, letter for "
        f"letter: {numbers.count(found['messages'])}."
    )
    blocks: list[Block] = [told]
    if (templates := facts.counts.get("templates") or {}).get("templates"):
        blocks.append(
            f"{numbers.counted(templates['messages'], 'message')} follow "
            f"{numbers.counted(templates['templates'], 'template')}: forms and automatic mails, "
            "equal but for numbers and redacted data, the largest of "
            f"{numbers.counted(templates['largest'], 'message')}. Each is in one part alone."
        )
    if sizes:
        rows = [
            (f"{size} messages", bar((count / most, "s5")), numbers.count(count))
            for size, count in sorted(sizes)
        ]
        blocks.append(Titled("Clusters by size", Table(("", "", "clusters"), rows, words=2)))
    if resolved := [(why, numbers.count(n)) for why, n in (found.get("resolved") or {}).items()]:
        blocks.append(Titled("What became of messages with several labels", resolved))
    if checked:
        left = [
            ("copies under another label", numbers.count(checked.get("exact_messages", 0))),
            ("near-copies under another label", numbers.count(checked.get("near_messages", 0))),
        ]
        blocks.append(Titled("Left in training and validation", left))
        blocks.append(Drawn("duplicates", {"pairs": [_pair(facts, p) for p in conflicts(facts)]}))
    return Section("duplicates", title, blocks)


def _ladder(counts: Mapping[str, Any], rows: Iterable[tuple[str, int]], style: str) -> Table:
    read = counts["rows_read"]
    shown = [
        (name, bar((count / read, style)), numbers.count(count), numbers.percent(count / read))
        for name, count in rows
        if count
    ]
    return Table(("", "", "rows", "share"), shown, words=2)


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
        ", ".join(told) or numbers.NONE,
        numbers.short(source.get("sha256")),
        numbers.count(source.get("rows")),
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
