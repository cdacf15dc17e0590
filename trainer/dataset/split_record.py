"""How a dataset was split, for its manifest and in words. No group is named, and no text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.dataset.by_time import moment
from trainer.dataset.folder import SPLITS, TRAIN, Row
from trainer.dataset.settings import PrepareSettings, SplitBy
from trainer.dataset.split import Split
from trainer.errors import BadInput
from worker.contract.timestamps import rfc3339

_MOST_LANGUAGES = 60


def describe_split(
    settings: PrepareSettings,
    split: Split,
    rows: Sequence[Row],
    placed: Mapping[str, Sequence[Row]],
) -> dict[str, Any] | None:
    """Return the manifest's ``split`` (JSON), None for one that is plainly random.

    ``rows`` are all that were split, ``placed`` those that ended in each of ``SPLITS``. Raises
    BadInput for more languages than any desk has: then the column is another.
    """
    columns = settings.columns
    if settings.split is SplitBy.RANDOM and not columns.language:
        return None
    record: dict[str, Any] = {"by": settings.split.value}
    if split.cuts is not None:
        record["time"] = {side: _span(placed[side]) for side in SPLITS}
    if columns.group:
        record["groups"] = {
            "groups": len({row.group for row in rows if row.group}),
            "rows_without_a_group": sum(not row.group for row in rows),
            "units": len(split.units),
            "largest_unit": max(map(len, split.units)),
        }
    if columns.language:
        counts = {side: Counter(row.language for row in placed[side]) for side in SPLITS}
        names = sorted({row.language for row in rows})
        if len(names) > _MOST_LANGUAGES:
            raise BadInput(
                f"--language-column {columns.language}: holds {len(names)} different values: is it "
                "the language?"
            )
        record["languages"] = {
            name: {side: counts[side][name] for side in SPLITS} for name in names
        }
    return record


def missing_languages(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return each language that a part has no message of, with those parts."""
    return [
        (name, [side for side, messages in counts.items() if not messages])
        for name, counts in record.get("languages", {}).items()
        if not all(counts.values())
    ]


def tell_split(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Say in sentences how a dataset was split, from its manifest of any version."""
    record = manifest.get("split") or {"by": SplitBy.RANDOM.value}
    counts = manifest["counts"]
    if record["by"] == SplitBy.TIME.value:
        spans = (f"{side} {first} to {last}" for side, (first, last) in record["time"].items())
        yield f"Split by time, the last part held out: {'; '.join(spans)}."
        yield (
            f"Left out, for the same message or nearly came in a later part, or another of its "
            f"group: {counts['holdout_copies_removed']['near']:,} because of the hold-out, "
            f"{counts['near_validation_removed']:,} because of validation; "
            f"{counts['out_of_time_removed']:,} because their label is from an earlier part."
        )
    elif record["by"] == SplitBy.GROUP.value:
        yield "Split by group: all messages of one are in one part."
    else:
        yield "Split at random, each label by its share."
    if groups := record.get("groups"):
        yield (
            f"{groups['groups']:,} groups; with near-duplicates they make {groups['units']:,} "
            f"units, each in one part, the largest of {groups['largest_unit']:,} messages; "
            f"{groups['rows_without_a_group']:,} rows have no group and count as their own."
        )
    for name, counted in record.get("languages", {}).items():
        yield f"Language {name}: " + ", ".join(f"{n:,} {side}" for side, n in counted.items()) + "."
    if added := record.get("added"):
        yield (
            f"{added:,} messages were added by decisions since then: times and languages are those "
            "of the others."
        )
    for name, sides in missing_languages(record):
        total = sum(record["languages"][name].values())
        consequence = "cannot be learnt" if TRAIN in sides else "is not judged there"
        yield (
            f"Warning: {name} has {total:,} messages and none in {' and '.join(sides)}: it "
            f"{consequence}. Add messages of it."
        )


def _span(rows: Sequence[Row]) -> list[str | None]:
    times = [moment(row) for row in rows]
    return [rfc3339(min(times)), rfc3339(max(times))] if times else [None, None]
