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
from trainer.dataset.decisions import Applied, apply_decisions, read_decisions
from trainer.dataset.dedupe import (
    Conflict,
    Deduped,
    count_duplicates,
    dedupe_exact,
    find_near_conflicts,
    name_examples,
)
from trainer.dataset.fill import fill_splits
from trainer.dataset.folder import HOLDOUT, Example, Row, complete_ids
from trainer.dataset.label_sources import EXPORT, LabelOrigin
from trainer.dataset.labels import (
    map_labels,
    read_label_map,
    refuse_absent,
    refuse_small,
    refuse_unknown,
)
from trainer.dataset.near_duplicates import near_clusters
from trainer.dataset.readers import Source, read_source
from trainer.dataset.settings import PrepareSettings, SplitBy
from trainer.dataset.split import check_shares, check_split, split_rows
from trainer.dataset.split_record import describe_split
from trainer.dataset.together import unite_copies
from worker.contract import Taxonomy
from worker.contract.digest import sha256_file
from worker.contract.text import NORMALIZATION, normalize

OnProgress = Callable[[str, int], Callable[[int], None]]
"""Called with a stage's name and its size; returns what to call with the amount done."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What will be written. ``counts`` says what became of every row (JSON); ``near_conflicts``
    are clusters of near-duplicates that hold several labels, ``examples`` some of all that by id;
    ``split_of`` tells a key's split, ``split`` (JSON) how a split that is not plainly random was
    made, ``units`` (of keys) what had to stay together because of groups, None without them;
    ``origins`` says where labels come from, by id; ``traffic`` how often what is held out came."""

    taxonomy: Taxonomy
    splits: dict[str, tuple[Example, ...]]
    surplus: tuple[Example, ...]
    conflicts: tuple[Conflict, ...]
    near_conflicts: tuple[tuple[Row, ...], ...]
    split_of: dict[str, str]
    split: dict[str, Any] | None
    units: Sequence[Sequence[str]] | None
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
    rows, sources = _read(settings, taxonomy, on_progress)
    cleaner = make_cleaner(settings)
    usable, cleaning = _clean(rows, settings, cleaner, on_progress)
    applied, deciding = _decide(rows, usable, settings, taxonomy)

    given_keys = {row.key for row in usable if row.given}
    own = [row for row in applied.rows if not row.given]
    fresh = [row for row in own if row.key not in given_keys]
    held = dedupe_exact(
        [row for row in applied.rows if row.given], settings.conflicts, applied.decided
    )
    deduped = dedupe_exact(fresh, settings.conflicts, applied.decided)
    refuse_small(deduped.rows, taxonomy, settings.minimum_per_label)

    clusters = unite_copies(
        _cluster(usable, settings, on_progress), ((row.key, row.message) for row in usable)
    )
    split = split_rows(usable, clusters, given_keys, settings)
    filled = fill_splits(deduped.rows, held.rows, split, clusters, settings)
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
        units=split.units if settings.columns.group else None,
        sources=tuple(sources[: len(settings.inputs)]),
        holdout_source=sources[-1] if settings.holdout else None,
        applied=applied,
        origins={
            row.id: LabelOrigin(*row.origin) if row.origin else EXPORT
            for rows_ in filled.rows.values()
            for row in rows_
        },
        cleaner=cleaner,
        traffic=traffic,
        counts={
            "rows_read": len(rows),
            **cleaning,
            **deciding,
            **count_duplicates(deduped, held, clusters, near_conflicts),
            "holdout_copies_removed": _count_copies(own, fresh, held, filled.near_holdout),
            **filled.counts,
            **traffic.describe(),
        },
        examples=name_examples(conflicts, near_conflicts, clusters, usable),
        files=_describe_files(settings),
    )


def _read(
    settings: PrepareSettings, taxonomy: Taxonomy, on_progress: OnProgress
) -> tuple[list[Row], list[Source]]:
    """Return all rows, each with an id and a mapped label, and the files they are from, a
    hold-out of the user's own last."""
    paths = [*settings.inputs, *([settings.holdout] if settings.holdout else [])]
    tick = on_progress("read", len(paths))
    rows: list[Row] = []
    sources = []
    for path in paths:
        some, source = read_source(
            path,
            settings.columns,
            encoding=settings.encoding,
            delimiter=settings.delimiter,
            sheet=settings.sheet,
        )
        if path is settings.holdout:
            rows += [replace(row, given=True) for row in some]
        else:
            usual = (settings.label_source, None)
            rows += [replace(row, origin=row.origin or usual) for row in some]
        sources.append(source)
        tick(1)
    rows = complete_ids(rows)
    if settings.label_map:
        table = read_label_map(settings.label_map, taxonomy.names, settings.encoding)
        rows = map_labels(rows, table)
    if settings.split is SplitBy.TIME:
        refuse_mixed(rows)
        rows = latest_first(rows)
    return rows, sources


def _clean(
    rows: Sequence[Row], settings: PrepareSettings, cleaner: Cleaner, on_progress: OnProgress
) -> tuple[list[Row], dict[str, Any]]:
    cleaned = clean(rows, cleaner, tick=on_progress("clean", len(rows)))
    usable, refused = refuse_bad(cleaned.rows, rows, settings)
    return usable, {
        **refused,
        "cleaned": {
            "rules": NORMALIZATION,
            **cleaned.changed,
            "left_whole": cleaned.left_whole,
        },
        "redacted": cleaned.redacted,
    }


def _decide(
    rows: Sequence[Row], usable: Sequence[Row], settings: PrepareSettings, taxonomy: Taxonomy
) -> tuple[Applied, dict[str, Any]]:
    decisions = []
    undecided = 0
    for path in settings.decisions:
        some, still_open = read_decisions(path, taxonomy.names, settings.encoding)
        decisions += some
        undecided += still_open
    originals = {row.id: normalize(row.message) for row in rows}
    applied = apply_decisions(usable, originals, decisions)
    refuse_unknown(applied.rows, taxonomy.names)
    return applied, {
        "decisions": {
            **Counter(made.decision for made in applied.made),
            "undecided": undecided,
            "rows_dropped": len(usable) - len(applied.rows),
        }
    }


def _cluster(
    rows: Sequence[Row], settings: PrepareSettings, on_progress: OnProgress
) -> list[list[str]]:
    keys = sorted({row.key for row in rows})
    tick = on_progress("compare", len(keys))
    groups = near_clusters(keys, similarity=settings.similarity, tick=tick)
    return [[keys[place] for place in group] for group in groups]


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
