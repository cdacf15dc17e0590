"""``report.md``: the dataset's content, what ``prepare`` did, and why it matters. It contains no
message and no group name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.dataset.folder import SPLITS, TRAIN, Row
from trainer.dataset.people import people_sentences
from trainer.dataset.settings import PrepareSettings, SplitBy
from trainer.dataset.split import Split, moment
from trainer.errors import BadInput
from trainer.similarity import SIMILARITY
from worker.contract.timestamps import rfc3339


def render_report(record: Mapping[str, Any], digest: str) -> str:
    """Return ``report.md`` for a manifest."""
    return "\n\n".join(_blocks(record, digest)) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    rule = "|" + "|".join(["---"] + ["---:"] * (len(header) - 1)) + "|"
    lines = (f"| {' | '.join(map(_cell, row))} |" for row in rows)
    return "\n".join([f"| {' | '.join(header)} |", rule, *lines])


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return text.replace("\n", " ")


def _blocks(record: Mapping[str, Any], digest: str) -> Iterator[str]:
    """Yield the headings, paragraphs, lists and tables."""
    counts = record["counts"]
    yield f"# Dataset {record['name']}"
    yield f"Digest `{digest}`, made {record['created_at']}."
    yield from _what_is_in_it(record)
    yield "## Where the rows came from"
    yield _table(
        ("file", "rows", "columns", "read as", "sha256"),
        [
            (
                source["name"],
                source["rows"],
                ", ".join(f"{field} = {name}" for field, name in source["columns"].items() if name),
                source["found"],
                source["sha256"][:16],
            )
            for source in (*record["sources"], record["holdout_source"])
            if source
        ],
    )
    if notes := record.get("notes"):
        yield "## What was found in the files"
        yield "\n".join(f"- {_line(note)}" for note in notes)
    yield "## What became of them"
    yield _table(
        ("", "rows"),
        [
            ("read", counts["rows_read"]),
            *count_removed(counts).items(),
            *((f"**{name}**", count) for name, count in counts["splits"].items()),
        ],
    )
    yield "## Cleaning"
    yield "\n".join(_cleaning(record))
    yield "## Duplicates and disagreement"
    yield "\n".join(_duplicates(record))
    yield from _decisions(record)
    if sources := record.get("label_sources"):
        origins = sorted({origin for side in SPLITS for origin in sources[side]})
        rows = [(origin, *(sources[side].get(origin, 0) for side in SPLITS)) for origin in origins]
        yield "## Where labels come from"
        yield _table(("source", *SPLITS), rows)
        yield from people_sentences(record)
    yield "## How it was split"
    yield "\n".join(f"- {sentence}" for sentence in split_sentences(record))
    yield (
        "Each cluster of near-duplicates is in one split, because a hold-out message whose "
        "rewording is in training measures memory, not skill. The splits depend on the seed "
        f"({record['settings']['seed']}), the messages, and the labels and other columns as "
        "exported, not on the order of lines. Decisions do not move messages between splits, so "
        "figures before and after a correction can be compared."
    )
    yield (
        "The hold-out is sealed: only an evaluation opens it, and `dataset.json` counts every "
        f"opening. Its file's SHA-256 is `{record['files']['holdout.jsonl']['sha256']}`."
    )
    yield "## Settings"
    yield "\n".join(f"- {name}: {value}" for name, value in record["settings"].items())


def _what_is_in_it(record: Mapping[str, Any]) -> Iterator[str]:
    per_label = [record["files"][f"{split}.jsonl"]["per_label"] for split in SPLITS]
    surplus = record["counts"]["surplus"]
    names = [label["name"] for label in record["taxonomy"]["labels"]]
    rows: list[tuple[object, ...]] = [
        (name, *(counts[name] for counts in per_label), surplus.get(name, 0)) for name in names
    ]
    rows.append(("all", *(sum(counts.values()) for counts in per_label), sum(surplus.values())))
    yield _table(("label", *SPLITS, "surplus"), rows)
    if surplus:
        yield (
            f"At most {record['settings']['per_label']} training examples a label; the surplus is "
            "in `surplus.jsonl`, unused."
        )


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


def _cleaning(record: Mapping[str, Any]) -> Iterator[str]:
    counts, settings = record["counts"], record["settings"]
    cleaned = counts["cleaned"]
    yield (
        f"- Normalized by `{cleaned['rules']}`, as serving does with every message: "
        f"{cleaned.get('normalized', 0):,} changed."
    )
    stripped = [name for name in ("quotes", "signatures") if settings[f"strip_{name}"]]
    for name, key in (("quotes", "quotes stripped"), ("signatures", "signature stripped")):
        if name in stripped:
            yield f"- {key.capitalize()} from {cleaned.get(key, 0):,} messages."
    if stripped:
        yield (
            f"- **Serving does not strip {' or '.join(stripped)}**, so the worker sees messages "
            "with them. Strip them before the topic too, or prepare without stripping. "
            f"{cleaned['left_whole']:,} messages contained nothing else and were kept whole."
        )
    if record["redaction"]:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in counts["redacted"].items()) or "none found"
        yield f"- Personal data redacted by `{record['redaction']}`, as in serving: {kinds}."
    else:
        yield "- Personal data was not redacted (`--redact`)."
    if names := record.get("names_redaction"):
        yield f"- {names_sentence(names)}"


def names_sentence(names: Mapping[str, Any]) -> str:
    """Describe the redaction of names, in Markdown, with the warning that serving does none."""
    models = ", ".join(names["models"]) or "rules only"
    share = names["marked"] / max(1, names["messages"])
    return (
        f"Names redacted by {names['by']} ({models}), as `{names['mark']}` in "
        f"{names['marked']:,} of {names['messages']:,} messages ({share:.1%}). **Serving does not "
        "redact names**, so the worker sees them, while evaluations on this dataset do not. To "
        "avoid the difference, redact them before the topic too."
    )


def _duplicates(record: Mapping[str, Any]) -> Iterator[str]:
    counts, examples = record["counts"], record["examples"]
    near, conflicts = counts["near_clusters"], counts["conflicts"]
    yield (
        f"- {near['messages']:,} messages are near-duplicates of another (similarity "
        f"{SIMILARITY} or more, or equal without signature, quotation and personal data), in "
        f"{near['clusters']:,} clusters; the largest has "
        f"{max(map(int, near['sizes']), default=0):,}."
    )
    yield from _named(examples["largest_clusters"])
    if (templates := counts["templates"])["templates"]:
        yield (
            f"- {templates['messages']:,} of them follow {templates['templates']:,} templates: "
            "forms and automatic mails, equal except for numbers and redacted data. The largest "
            f"has {templates['largest']:,} messages. Each template is in one split, so the "
            "hold-out does not measure how well known forms are labelled; a rule before the model "
            "may do better for those."
        )
        yield from _named(examples["largest_templates"])
    resolved = "; ".join(f"{count:,} {why}" for why, count in conflicts["resolved"].items())
    yield f"- {conflicts['messages']:,} messages occurred under several labels" + (
        f": {resolved}." if resolved else "."
    )
    yield from _named(examples["conflicts"])
    yield (
        f"- {near['with_several_labels']:,} clusters of near-duplicates have several labels. They "
        "are kept: some are mistakes, and some differ in the one word that decides."
    )
    yield from _named(examples["near_conflicts"])
    held = counts["holdout_copies_removed"]
    if held["exact"] or held["near"]:
        yield (
            f"- {held['exact']:,} copies and {held['near']:,} near-copies of hold-out messages "
            f"were removed; {held['exact_with_another_label']:,} of the copies had another label."
        )
    if "conflicts.csv" in record["extra_files"]:
        yield (
            "- Messages with several labels are in `conflicts.csv`. Fill in its column `decision` "
            "(accept, relabel or drop; `new_label` for relabel) and prepare again with "
            "`--decisions conflicts.csv`."
        )


def _named(groups: Sequence[Sequence[str]]) -> Iterator[str]:
    for group in groups:
        yield f"  - {', '.join(group)}"


def _decisions(record: Mapping[str, Any]) -> Iterator[str]:
    made = record["decisions"]["made"]
    if not record["decisions"]["files"]:
        return
    yield "## Reviewers' decisions"
    yield f"{len(made):,} made, {record['counts']['decisions']['undecided']:,} still undecided."
    if made:
        yield _table(
            ("id", "decision", "from", "to", "by", "note"),
            [(d["id"], d["decision"], d["from"], d["to"] or "", d["by"], d["note"]) for d in made],
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
    for name, sides in missing_languages(record):
        total = sum(record["languages"][name].values())
        consequence = "cannot be learnt" if TRAIN in sides else "is not measured there"
        yield (
            f"Warning: {name} has {total:,} messages and none in {' and '.join(sides)}: it "
            f"{consequence}. Add messages in this language."
        )


def _span(rows: Sequence[Row]) -> list[str | None]:
    times = [moment(row) for row in rows]
    return [rfc3339(min(times)), rfc3339(max(times))] if times else [None, None]
