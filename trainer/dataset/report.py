"""What ``prepare`` did, as counts and sentences for its output and the dataset's page. They contain
no message and no group name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.dataset.folder import SPLITS, TRAIN, Row
from trainer.dataset.settings import PrepareSettings, SplitBy
from trainer.dataset.split import Split, moment
from trainer.errors import BadInput
from trainer.languages import language_shares
from worker.contract.timestamps import rfc3339

_REMOVED = (
    ("cannot be read or used", ("broken_dropped",)),
    ("repeated exactly", ("repeated_dropped",)),
    ("empty", ("empty_dropped",)),
    ("too long", ("too_long_dropped",)),
    ("label unknown or missing", ("unlabelled",)),
    ("dropped by a decision", ("decisions", "rows_dropped")),
    ("exact duplicates of another row", ("exact_duplicates_removed",)),
    ("in a label conflict", ("conflicts", "rows_left_out")),
    ("copies of hold-out messages", ("holdout_copies_removed", "exact")),
    ("near-copies of hold-out messages", ("holdout_copies_removed", "near")),
    ("near-copies of validation messages", ("near_validation_removed",)),
    ("by a teacher, where people labelled the same text", ("replaced_by_people",)),
    ("by a teacher, set aside", ("teacher_pool",)),
    ("by a teacher, in a period that people judge", ("teacher_too_late",)),
    ("labelled in an earlier period", ("out_of_time_removed",)),
    ("over the cap for their label", ("surplus",)),
)


def count_removed(counts: Mapping[str, Any]) -> dict[str, int]:
    """Return reason -> rows left out for it, from the manifest's counts; a dataset that was not
    split by time has no reasons that concern time."""
    found: dict[str, int] = {}
    for reason, path in _REMOVED:
        value: Any = counts
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            found[reason] = sum(value.values()) if isinstance(value, Mapping) else value
    return found


def language_sentence(manifest: Mapping[str, Any]) -> str:
    """Return the shares of the languages that were found in the messages."""
    shares = language_shares(manifest.get("languages", {}))
    return f"Languages of the messages: {shares or 'not looked for'}."


def cleaning_sentences(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Describe in sentences what was done to messages that serving does not do."""
    cleaned = manifest["counts"]["cleaned"]
    stripped = [
        name
        for name, key in (("quotations", "quotes stripped"), ("signatures", "signature stripped"))
        if cleaned.get(key)
    ]
    if stripped:
        yield (
            f"Serving does not strip {' or '.join(stripped)}, so the worker sees messages with "
            "them. Strip them before the topic too, or prepare without stripping. "
            f"{cleaned['left_whole']:,} messages contained nothing else and were kept whole."
        )
    if names := manifest.get("names_redaction"):
        models = ", ".join(names["models"]) or "rules only"
        share = names["marked"] / max(1, names["messages"])
        yield (
            f"Names redacted by {names['by']} ({models}), as {names['mark']} in "
            f"{names['marked']:,} of {names['messages']:,} messages ({share:.1%}). Serving does "
            "not redact names, so the worker sees them, while evaluations on this dataset do not. "
            "To avoid the difference, redact them before the topic too."
        )


_MOST_LANGUAGES = 60


def describe_split(
    settings: PrepareSettings,
    split: Split,
    rows: Sequence[Row],
    placed: Mapping[str, Sequence[Row]],
) -> dict[str, Any] | None:
    """Return the manifest's ``split`` (JSON), None for one that is plainly random.

    ``rows`` are all rows before the split, ``placed`` the rows of each split. Raises BadInput for
    more than 60 languages: the column is then something else.
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
                f"--language-column {columns.language}: has {len(names)} different values: is it "
                "the language?"
            )
        record["languages"] = {
            name: {side: counts[side][name] for side in SPLITS} for name in names
        }
    return record


def missing_languages(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the languages that some splits have no message of, with those splits."""
    return [
        (name, [side for side, messages in counts.items() if not messages])
        for name, counts in record.get("languages", {}).items()
        if not all(counts.values())
    ]


def split_sentences(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Describe in sentences how a dataset was split, from its manifest."""
    record = manifest.get("split") or {"by": SplitBy.RANDOM.value}
    counts = manifest["counts"]
    if record["by"] == SplitBy.TIME.value:
        spans = (f"{side} {first} to {last}" for side, (first, last) in record["time"].items())
        yield f"Split by time, the last period held out: {'; '.join(spans)}."
        yield (
            "Left out because a copy, near-copy or message of the same group is in a later period: "
            f"{counts['holdout_copies_removed']['near']:,} because of the hold-out, "
            f"{counts['near_validation_removed']:,} because of validation. Left out because their "
            f"label is from an earlier period: {counts['out_of_time_removed']:,}."
        )
    elif record["by"] == SplitBy.GROUP.value:
        yield "Split by group: all messages of a group are in one split."
    else:
        yield "Split at random, each label by its share."
    if groups := record.get("groups"):
        yield (
            f"{groups['groups']:,} groups, which near-duplicates unite to {groups['units']:,} "
            f"units, each in one split; the largest has {groups['largest_unit']:,} messages. "
            f"{groups['rows_without_a_group']:,} rows have no group."
        )
    for name, counted in record.get("languages", {}).items():
        yield f"Language {name}: " + ", ".join(f"{n:,} {side}" for side, n in counted.items()) + "."
    if added := record.get("added"):
        yield (
            f"{added:,} messages were added by decisions since then; the times and languages above "
            "are without them."
        )
    yield from _near_sentences(counts, manifest.get("examples") or {})
    for name, sides in missing_languages(record):
        total = sum(record["languages"][name].values())
        consequence = "cannot be learnt" if TRAIN in sides else "is not measured there"
        yield (
            f"Warning: {name} has {total:,} messages and none in {' and '.join(sides)}: it "
            f"{consequence}. Add messages in this language."
        )


_LARGE_CLUSTER = 0.05


def _near_sentences(counts: Mapping[str, Any], examples: Mapping[str, Any]) -> Iterator[str]:
    if footed := counts.get("passages", {}).get("messages"):
        [first] = examples["passages"][0]
        yield (
            f"{footed:,} messages have a passage that recurs in many (first: {first}), such as a "
            "form's footer. It counts for nothing when near-duplicates are found, but the model "
            "reads it: remove it before the topic too if it says nothing, or quotations and "
            "signatures with --strip-quotes and --strip-signatures."
        )
    largest = max(map(int, counts.get("near_clusters", {}).get("sizes", ())), default=0)
    if largest > _LARGE_CLUSTER * counts.get("rows_read", 0):
        yield (
            f"Warning: {largest:,} messages are linked as near-duplicates, all in one split "
            f"({', '.join(examples.get('largest_clusters', [['?']])[0][:2])}). If they are "
            "different messages, remove what they share."
        )


def _span(rows: Sequence[Row]) -> list[str | None]:
    times = [moment(row) for row in rows]
    return [rfc3339(min(times)), rfc3339(max(times))] if times else [None, None]
