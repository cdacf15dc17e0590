"""From exports to the splits of a dataset: the recipe, top to bottom, writing nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.dataset.by_time import latest_first, refuse_mixed
from trainer.dataset.clean import Cleaner, clean, make_cleaner, refuse_bad
from trainer.dataset.copies import Traffic, count_traffic
from trainer.dataset.decisions import Applied, Decision, apply_decisions, read_decisions
from trainer.dataset.dedupe import (
    Conflict,
    Deduped,
    count_duplicates,
    dedupe_exact,
    find_near_conflicts,
    name_examples,
)
from trainer.dataset.fill import FilledSplits, fill_splits
from trainer.dataset.folder import HOLDOUT, Example, Row, complete_ids, number_copies
from trainer.dataset.label_sources import EXPORT, LabelOrigin
from trainer.dataset.labels import (
    map_labels,
    read_label_map,
    refuse_absent,
    refuse_small,
    refuse_unknown,
)
from trainer.dataset.near_duplicates import NearGroups, group_near
from trainer.dataset.readers import Source, read_source
from trainer.dataset.settings import PrepareSettings, SplitBy
from trainer.dataset.split import Split, check_shares, check_split, split_rows
from trainer.dataset.split_record import describe_split
from trainer.dataset.together import unite_copies
from trainer.similarity import SIMILARITY
from worker.contract import Taxonomy
from worker.contract.digest import sha256_file
from worker.contract.text import NORMALIZATION, normalize

_ROWS_AT_ONCE = 4096

OnProgress = Callable[[str, int], Callable[[int], None]]
"""Called with a stage's name and its size; returns what to call with the amount done."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What will be written. ``counts`` says what became of every row (JSON); ``near_conflicts``
    are clusters of near-duplicates that hold several labels, ``examples`` some of all that by id;
    ``split_of`` tells a key's split, ``split`` (JSON) how a split that is not plainly random was
    made, ``unit_of`` (by id) what had to stay together because of groups, None without them;
    ``origins`` says where labels come from, by id, where it is not the export; ``traffic``
    how often what is held out came."""

    taxonomy: Taxonomy
    splits: dict[str, tuple[Example, ...]]
    surplus: tuple[Example, ...]
    conflicts: tuple[Conflict, ...]
    near_conflicts: tuple[tuple[Row, ...], ...]
    split_of: dict[int, str]
    split: dict[str, Any] | None
    unit_of: dict[str, int] | None
    sources: tuple[Source, ...]
    holdout_source: Source | None
    applied: Applied
    origins: dict[str, LabelOrigin]
    cleaner: Cleaner
    traffic: Traffic
    counts: dict[str, Any]
    examples: dict[str, Any]
    files: dict[str, Any]


def _unreported(_stage: str, _size: int) -> Callable[[int], None]:
    return lambda _done: None


def build(settings: PrepareSettings, on_progress: OnProgress = _unreported) -> Prepared:
    """Make the splits. Raises BadInput in one line for whatever cannot be used; the quick checks
    of the whole input come before the slow search."""
    taxonomy = Taxonomy.from_toml(settings.taxonomy)
    check_shares(settings.validation_share, settings.holdout_share)
    check_split(settings)
    decisions, undecided = _read_decisions(settings, taxonomy)
    rows, sources = _read(settings, taxonomy, on_progress)
    cleaner = make_cleaner(settings)
    rows_read = len(rows)
    originals = _originals(rows, decisions)
    cleaning = _clean(rows, settings, cleaner, on_progress)
    firsts = number_copies(rows)
    usable, applied = rows, apply_decisions(rows, originals, decisions)
    refuse_unknown(applied.rows, taxonomy.names)

    given_keys = {row.key for row in usable if row.given}
    own = [row for row in applied.rows if not row.given]
    fresh = [row for row in own if row.key not in given_keys]
    held = dedupe_exact(
        [row for row in applied.rows if row.given], settings.conflicts, applied.decided
    )
    deduped = dedupe_exact(fresh, settings.conflicts, applied.decided)
    refuse_small(deduped.rows, taxonomy, settings.minimum_per_label)

    near = _group_near(firsts, on_progress)
    clusters = unite_copies(near.clusters, ((row.key, row.message) for row in usable))
    split = split_rows(usable, clusters, given_keys, settings)
    filled = fill_splits(deduped.rows, held.rows, split, settings)
    refuse_absent(
        filled.splits,
        taxonomy,
        own_holdout=settings.holdout is not None,
        by_time=split.cuts is not None,
    )
    near_conflicts = find_near_conflicts([*deduped.rows, *held.rows], clusters)
    conflicts = deduped.conflicts + held.conflicts
    traffic = count_traffic(applied.rows, filled.rows[HOLDOUT], split.of)
    return Prepared(
        taxonomy=taxonomy,
        splits=filled.splits,
        surplus=filled.surplus,
        conflicts=conflicts,
        near_conflicts=near_conflicts,
        split_of=split.of,
        split=describe_split(settings, split, usable, filled.rows),
        unit_of=_unit_of(split, filled) if settings.columns.group else None,
        sources=tuple(sources[: len(settings.inputs)]),
        holdout_source=sources[-1] if settings.holdout else None,
        applied=applied,
        origins={
            row.id: LabelOrigin(*row.origin)
            for rows_ in filled.rows.values()
            for row in rows_
            if row.origin and LabelOrigin(*row.origin) != EXPORT
        },
        cleaner=cleaner,
        traffic=traffic,
        counts={
            "rows_read": rows_read,
            **cleaning,
            "decisions": {
                **Counter(made.decision for made in applied.made),
                "undecided": undecided,
                "rows_dropped": len(usable) - len(applied.rows),
            },
            **count_duplicates(deduped, held, near, near_conflicts),
            "holdout_copies_removed": _count_copies(own, fresh, held, filled.near_holdout),
            **filled.counts,
            **traffic.describe(),
        },
        examples=name_examples(conflicts, near_conflicts, near, usable),
        files=_describe_files(settings),
    )


def _read(
    settings: PrepareSettings, taxonomy: Taxonomy, on_progress: OnProgress
) -> tuple[list[Row], list[Source]]:
    """Return all rows, each with an id and a mapped label, and the files they are from, a
    hold-out of the user's own last. The rows are in the order of their ids, or by time: nothing
    that follows depends on the order of lines and files."""
    paths = [*settings.inputs, *([settings.holdout] if settings.holdout else [])]
    tick = on_progress("read", len(paths))
    rows: list[Row] = []
    sources = []
    for path in paths:
        some, source = read_source(
            path, settings.columns, encoding=settings.encoding, sheet=settings.sheet
        )
        if path is settings.holdout:
            some = [replace(row, given=True) for row in some]
        elif settings.label_source != EXPORT.source:
            usual = (settings.label_source, None)
            some = [replace(row, origin=row.origin or usual) for row in some]
        rows += some
        sources.append(source)
        tick(1)
    rows = sorted(complete_ids(rows), key=lambda row: row.id)
    if settings.label_map:
        table = read_label_map(settings.label_map, taxonomy.names, settings.encoding)
        rows = map_labels(rows, table)
    if settings.split is SplitBy.TIME:
        refuse_mixed(rows)
        rows = latest_first(rows)
    return rows, sources


def _clean(
    rows: list[Row], settings: PrepareSettings, cleaner: Cleaner, on_progress: OnProgress
) -> dict[str, Any]:
    """Clean the rows in place, some at a time: an export and its clean copy are never there at
    once. Return the counts."""
    tick = on_progress("clean", len(rows))
    counts: dict[str, Counter[str]] = {"changed": Counter(), "redacted": Counter()}
    refused: Counter[str] = Counter()
    left_whole = kept = 0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        raw = rows[start : start + _ROWS_AT_ONCE]
        cleaned = clean(raw, cleaner, tick=tick)
        usable, some = refuse_bad(cleaned.rows, raw, settings)
        rows[kept : kept + len(usable)] = usable
        kept += len(usable)
        counts["changed"].update(cleaned.changed)
        counts["redacted"].update(cleaned.redacted)
        refused.update(some)
        left_whole += cleaned.left_whole
    del rows[kept:]
    return {
        **refused,
        "cleaned": {
            "rules": NORMALIZATION,
            **counts["changed"],
            "left_whole": left_whole,
        },
        "redacted": dict(counts["redacted"]),
    }


def _read_decisions(settings: PrepareSettings, taxonomy: Taxonomy) -> tuple[list[Decision], int]:
    """Return the decisions, and how many rows of their files are undecided."""
    decisions = []
    undecided = 0
    for path in settings.decisions:
        some, still_open = read_decisions(path, taxonomy.names, settings.encoding)
        decisions += some
        undecided += still_open
    return decisions, undecided


def _originals(rows: Sequence[Row], decisions: Sequence[Decision]) -> dict[str, str]:
    """Return id -> text as it came, of the rows that are decided on."""
    decided = {decision.id for decision in decisions}
    return {row.id: normalize(row.message) for row in rows if row.id in decided}


def _group_near(firsts: Sequence[Row], on_progress: OnProgress) -> NearGroups:
    """Group keys; ``firsts`` holds a row of each."""
    tick = on_progress("compare", len(firsts))
    return group_near(len(firsts), lambda key: firsts[key].folded, similarity=SIMILARITY, tick=tick)


def _unit_of(split: Split, filled: FilledSplits) -> dict[str, int]:
    """Return id -> number of its unit, of the rows that ended in a split."""
    unit_of = {key: at for at, unit in enumerate(split.units) for key in unit}
    return {row.id: unit_of[row.key] for rows in filled.rows.values() for row in rows}


def _count_copies(
    own: Sequence[Row], fresh: Sequence[Row], held: Deduped, near: int
) -> dict[str, int]:
    """Count the user's rows that are copies, or nearly, of their own hold-out's messages."""
    held_label = {row.key: row.label for row in held.rows}
    return {
        "exact": len(own) - len(fresh),
        "exact_with_another_label": sum(
            held_label.get(row.key, row.label) != row.label for row in own
        ),
        "near": near,
    }


def _describe_files(settings: PrepareSettings) -> dict[str, Any]:
    files: dict[str, Any] = {"decisions": [_describe_file(path) for path in settings.decisions]}
    if settings.label_map:
        files["label_map"] = _describe_file(settings.label_map)
    return files


def _describe_file(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": sha256_file(path)}
