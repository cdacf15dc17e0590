"""Sections about a dataset's rows: sources, labels, splits, copies, and probably wrong labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from trainer import numbers
from trainer.check.findings import (
    BALANCE,
    CONFLICTS,
    COUNTS,
    FLOOR,
    HARD_FLOOR,
    LEAKAGE,
    NAMES,
    SUBLABELS,
    SUSPECTS,
)
from trainer.dataset.folder import SPLITS, TRAIN
from trainer.dataset.report import count_removed, language_sentence, split_sentences
from trainer.facts import Table
from trainer.numbers import flatten
from trainer.report.charts import STYLE_OF_SPLIT, bar
from trainer.report.dataset_facts import DatasetFacts, conflicts, suspects
from trainer.report.page import (
    Block,
    Content,
    Drawn,
    Titled,
    openings_table,
    readable,
    show_text,
    small,
)
from trainer.report.run import Input, lacks
from trainer.similarity import SIMILARITY


def rows_section(facts: DatasetFacts) -> Content:
    """Return the exports, what happened to their rows, and what cleaning changed."""
    counts = facts.counts
    if not counts.get("rows_read"):
        made = Input.DATASET
        return f"{made.path} has no row counts: {made.command} did not make this dataset."
    summary = f"{numbers.count(counts['rows_read'])} rows were read. Bars are shares of them."
    removed = _ladder(counts, count_removed(counts).items(), "s2")
    blocks: list[Block] = [
        summary,
        Titled("In use", _ladder(counts, ((name, facts.size(name)) for name in SPLITS), "s1")),
        Titled("Left out", removed if removed.rows else "None."),
    ]
    if sources := [_source(source) for source in _sources(facts.record)]:
        table = Table(("file", "columns", "SHA-256", "rows"), sources, words=3)
        blocks.append(Titled("The exports", table))
    if cleaned := list(_cleaned(facts)):
        blocks.append(Titled("What cleaning changed", cleaned))
    if settings := list(flatten(facts.record.get("settings") or {})):
        blocks.append(Titled("Settings", settings))
    return blocks


def duplicates_section(facts: DatasetFacts) -> Content:
    """Return the clusters of near-duplicates and the messages with several labels."""
    near = facts.counts.get("near_clusters")
    if near is None:
        return f"{Input.DATASET.path} has no duplicate counts: prepare the dataset again."
    found = facts.counts["conflicts"]
    sizes = [(int(size), count) for size, count in (near.get("sizes") or {}).items()]
    most = max((count for _, count in sizes), default=1)
    checked = facts.figures(CONFLICTS)
    summary = (
        f"{numbers.counted(near['messages'], 'message')} have a near-copy (similarity "
        f"{numbers.written(SIMILARITY)} or more). They form "
        f"{numbers.counted(near['clusters'], 'cluster')}; each cluster is in one part only. "
        f"Clusters with several labels: {numbers.count(near['with_several_labels'])}. Some of "
        "these labels are mistakes, some mark a real difference. Identical messages with several "
        f"labels: {numbers.count(found['messages'])}."
    )
    blocks: list[Block] = [summary]
    if (templates := facts.counts.get("templates") or {}).get("templates"):
        blocks.append(
            f"{numbers.counted(templates['messages'], 'message')} follow "
            f"{numbers.counted(templates['templates'], 'template')}: forms and automatic mails "
            "that differ only in numbers and redacted data. The largest has "
            f"{numbers.counted(templates['largest'], 'message')}. Each template is in one part "
            "only."
        )
    if sizes:
        rows = [
            (f"{size} messages", bar((count / most, "s5")), numbers.count(count))
            for size, count in sorted(sizes)
        ]
        blocks.append(Titled("Clusters by size", Table(("", "", "clusters"), rows, words=2)))
    if resolved := [(why, numbers.count(n)) for why, n in (found.get("resolved") or {}).items()]:
        blocks.append(Titled("How messages with several labels were resolved", resolved))
    if checked:
        left = [
            ("copies with another label", numbers.count(checked.get("exact_messages", 0))),
            ("near-copies with another label", numbers.count(checked.get("near_messages", 0))),
        ]
        blocks.append(Titled("Remaining in training and validation", left))
        blocks.append(Drawn("duplicates", {"pairs": [_pair(facts, p) for p in conflicts(facts)]}))
    return blocks


def _ladder(counts: Mapping[str, Any], rows: Iterable[tuple[str, int]], style: str) -> Table:
    read = counts["rows_read"]
    shown = [
        (name, bar((count / read, style)), numbers.count(count), numbers.percent(count / read))
        for name, count in rows
        if count
    ]
    return Table(("", "", "rows", "share"), shown, words=2)


def _sources(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from record.get("sources") or ()
    if held := record.get("holdout_source"):
        yield {**held, "name": f"{held['name']} (the hold-out)"}


def _source(source: Mapping[str, Any]) -> tuple[str, str, str, str]:
    columns = source.get("columns") or {}
    guessed = set(source.get("guessed_columns") or ())
    used = (
        f"{field} from {name}{' (guessed)' if field in guessed else ''}"
        for field, name in columns.items()
        if name
    )
    return (
        f"{source.get('name')} ({found})"
        if (found := source.get("found"))
        else str(source.get("name")),
        ", ".join(used) or numbers.NONE,
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
            yield f"decided by a reviewer: {name}", numbers.counted(decided[name], "row")


def _pair(facts: DatasetFacts, pair: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "messages": [
            (id_, label, show_text(facts.texts, id_))
            for id_, label in zip(pair["ids"], pair["labels"], strict=True)
        ],
        "similarity": numbers.decimal(pair.get("similarity"), 2),
    }


# Labels.


def labels_section(facts: DatasetFacts) -> Content:
    """Return the counts of each label, the largest first, and the imbalance."""
    names = sorted(facts.labels, key=lambda name: (-facts.per_label(TRAIN).get(name, 0), name))
    sizes = {name: [facts.per_label(split).get(name, 0) for split in SPLITS] for name in names}
    learnt = {name: counts[0] for name, counts in sizes.items()}
    surplus = facts.counts.get("surplus") or {}
    largest = max(map(sum, sizes.values())) or 1
    rows = [
        (
            name,
            bar(*((count / largest, s) for count, s in zip(counts, STYLE_OF_SPLIT, strict=True))),
            *map(numbers.count, counts),
            *((numbers.count(surplus.get(name, 0)),) if surplus else ()),
            numbers.percent(learnt[name] / max(1, sum(learnt.values()))),
        )
        for name, counts in sizes.items()
    ]
    columns = ("label", "", *SPLITS, *(("unused",) if surplus else ()), "of training")
    blocks: list[Block] = [" ".join(_sentences(facts, learnt)), Table(columns, rows, words=2)]
    if alike := facts.figures(NAMES).get("alike"):
        pairs = [tuple(pair) for pair in alike]
        table = Table(("label", "and", "because"), pairs, words=3)
        blocks.append(Titled("Names that reviewers may confuse", table))
    if silent := facts.figures(NAMES).get("without_description"):
        blocks.append(small(f"No description in the taxonomy: {', '.join(silent)}."))
    return blocks


def _sentences(facts: DatasetFacts, learnt: dict[str, int]) -> Iterator[str]:
    largest, *_, smallest = learnt if len(learnt) > 1 else (*learnt, *learnt)
    ratio = learnt[largest] / max(1, learnt[smallest])
    entropy = facts.figures(BALANCE).get("entropy")
    even = ""
    if entropy is not None:
        even = f" Evenness: {numbers.decimal(entropy, 2)} (1 means equal sizes)."
    yield (
        f"The largest label, {largest}, has {ratio:.1f} times the messages of the smallest, "
        f"{smallest}.{even}"
    )
    floor = int(facts.figures(COUNTS).get("floor", FLOOR))
    if too_few := [name for name, count in learnt.items() if count < HARD_FLOOR]:
        few = ", ".join(too_few)
        yield f"Fewer than {HARD_FLOOR} messages, too few to learn from: {few}."
    if few := ", ".join(name for name, count in learnt.items() if count < floor):
        yield f"Fewer than {floor} training messages: {few}."
    if sublabels := {example.sublabel for example in facts.dataset.train} - {None}:
        yield f"There are {numbers.count(len(sublabels))} finer labels."


# Splits, and messages in two of them.

_SIDES = (
    ("train_holdout", "training and hold-out"),
    ("validation_holdout", "validation and hold-out"),
    ("train_validation", "training and validation"),
)


def splits_section(facts: DatasetFacts) -> Content:
    """Return how the splits were drawn, their languages and times, and copies across splits."""
    record = facts.record
    split: Mapping[str, Any] = record.get("split") or {}
    languages: Mapping[str, Mapping[str, int]] = split.get("languages") or {}
    blocks: list[Block] = [
        sentence
        for sentence in split_sentences(_with_counts(record))
        if not sentence.startswith("Language ")  # there is a table of languages below
    ]
    blocks.append(language_sentence(record))
    if "time" in split:
        times = [(side, *map(numbers.moment, split["time"][side])) for side in SPLITS]
        blocks.append(Titled("Times", Table(("part", "first", "last"), times, words=3)))
    if languages:
        rows = [
            (name, *(numbers.count(counts.get(side, 0)) for side in SPLITS))
            for name, counts in languages.items()
        ]
        blocks.append(Titled("Languages", Table(("language", *SPLITS), rows)))
    sources = _label_sources(record)
    blocks.append(
        Titled(
            "Where labels come from",
            Table(("source", *SPLITS), sources) if sources else "Every label is from the export.",
        )
    )
    blocks.extend(_leaks(facts.figures(LEAKAGE)))
    seed = numbers.written((record.get("settings") or {}).get("seed"))
    digest = record["files"]["holdout.jsonl"]["sha256"]
    opened = f"Opened {numbers.times(facts.openings)}:" if facts.opened else "Never opened."
    blocks.append(Titled("Hold-out", f"SHA-256 {digest}, seed {seed}. {opened}"))
    if facts.opened:
        blocks.append(openings_table(facts.opened))
    return blocks


def _leaks(leaks: Mapping[str, Any]) -> Iterator[Block]:
    rows = [
        (name, numbers.count(leaks[key]["exact"]), numbers.count(leaks[key]["near"]))
        for key, name in _SIDES
        if key in leaks
    ]
    if not rows:
        yield (
            "Not checked for copies across splits yet. `clerk-trainer prepare` keeps near-copies "
            "in one split."
        )
        return
    yield Titled("Copies in two splits", Table(("between", "copies", "near-copies"), rows))
    similarity = numbers.written(leaks["similarity"])
    ids = sorted({id_ for key, _ in _SIDES for id_ in leaks.get(key, {}).get("ids", ())})
    named = f" Rows of the first split in each pair: {', '.join(ids)}." if ids else ""
    yield small(
        f"Compared by fingerprint. Near-copies have a similarity of {similarity} or more.{named}"
    )


def _label_sources(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each source of labels, with its messages in each split."""
    counted: Mapping[str, Mapping[str, int]] = record.get("label_sources") or {}
    origins = sorted({origin for side in SPLITS for origin in counted.get(side, ())})
    return [
        (origin, *(numbers.count(counted[side].get(origin, 0)) for side in SPLITS))
        for origin in origins
    ]


def _with_counts(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a manifest with the counts that ``split_sentences`` needs, zero if ``prepare`` did not
    make the dataset."""
    nothing = {
        "holdout_copies_removed": {"near": 0},
        "near_validation_removed": 0,
        "out_of_time_removed": 0,
    }
    return {**record, "counts": nothing | dict(record.get("counts") or {})}


# Labels that are probably wrong.

MOST_MOVES = 12
AT_ONCE = 12


def doubtful_section(facts: DatasetFacts) -> Content:
    """Return the doubtful labels: number, expected share, by label, by pair, and one by one."""
    if facts.check is None:
        return lacks(Input.CHECK, "the dataset folder")
    found = facts.finding(SUSPECTS)
    if found is None or found.verdict == "skipped":
        return f"{found.found if found else 'Not checked'}."
    figures = found.figures
    queued, kept = numbers.counted(facts.check.suspects, "row"), facts.check.decisions_kept
    decided = f" {numbers.count(kept)} rows of an earlier queue are decided." if kept else ""
    blocks: list[Block] = [
        f"{found.found}. The review queue {facts.check.queue} has {queued}.{decided}"
    ]
    if expected := figures.get("expected_wrong"):
        blocks.append(
            f"{numbers.percent(expected['slips'])} "
            f"({numbers.interval(expected['slips_interval_95'])}) of the labels in training and "
            "validation are probably slips: labels that have nothing to do with the text. At most "
            f"{numbers.percent(expected['at_most'])} are wrong in any way, mistakes between "
            "similar labels included; on so many the models predict another label. The queue "
            "contains both kinds, and messages that are only hard."
        )
    blocks.append(small(_judges(figures)))
    if labels := _by_label(figures.get("per_label") or {}):
        table = Table(("label", "", "doubtful", "share of label"), labels, words=2)
        blocks.append(Titled("By label", table))
    if pairs := _pairs(figures.get("moves") or ()):
        drawn = Drawn("doubtful", {"pairs": pairs})
        blocks.append(Titled("Which labels look like which", drawn))
    if rows := [_suspect(facts, suspect) for suspect in suspects(facts)]:
        left_out = "" if facts.texts is not None else " Message texts are not shown."
        blocks.append(Titled("The most certain", f"In the order of the queue.{left_out}"))
        blocks.append(Drawn("mistakes", {"rows": rows, "at_once": AT_ONCE}))
    if misplaced := facts.figures(SUBLABELS).get("misplaced"):
        blocks.append(Titled("Finer labels that read like another label", _misplaced(misplaced)))
    return blocks


def _judges(figures: Mapping[str, Any]) -> str:
    """Describe the models that doubt labels, and which labels they did not judge."""
    text = (
        "Each message was judged by models trained without it and its near-copies: "
        f"{figures.get('detector', '')}. They agree with "
        f"{numbers.percent(figures.get('agreement'))} of the labels."
    )
    if decided := figures.get("decided"):
        text += f" {decided} labels confirmed by a reviewer are not doubted again."
    if not_judged := figures.get("not_judged"):
        text += f" {not_judged} were not judged: their label has no other messages."
    return text


def _misplaced(found: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        ("finer label", "under", "reads like", "messages", "probability"),
        [
            (
                each["sublabel"],
                each["label"],
                each["reads_like"],
                numbers.count(each["examples"]),
                numbers.percent(each["other"], 0),
            )
            for each in found
        ],
        words=3,
    )


def _by_label(per_label: Mapping[str, Mapping[str, float]]) -> list[tuple[Any, ...]]:
    """Return the labels with doubtful rows, the largest share first."""
    ranked = sorted(per_label.items(), key=lambda item: (-item[1]["share"], item[0]))
    most = max((found["share"] for _, found in ranked), default=0) or 1
    return [
        (
            label,
            bar((found["share"] / most, "s2")),
            numbers.count(found["suspects"]),
            numbers.percent(found["share"]),
        )
        for label, found in ranked
        if found["suspects"]
    ]


def _pairs(moves: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the pairs of labels with the doubtful rows in both directions, the largest first."""
    counts = {(label, suggested): int(count) for label, suggested, count in moves}
    totals: Counter[tuple[str, str]] = Counter()
    for (label, suggested), count in counts.items():
        first, second = sorted((label, suggested))
        totals[first, second] += count
    found = []
    for (first, second), _ in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        forth, back = counts.get((first, second), 0), counts.get((second, first), 0)
        label, other = (first, second) if forth >= back else (second, first)
        found.append(
            {
                "label": label,
                "other": other,
                "forth": numbers.count(max(forth, back)),
                "back": numbers.count(min(forth, back)),
                # The rarer direction has a third, as for the confusions of a run.
                "both": 3 * min(forth, back) >= forth + back,
            }
        )
    return found[:MOST_MOVES]


def _suspect(facts: DatasetFacts, suspect: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": readable(str(suspect["id"])),
        "label": suspect["label"],
        "predicted": suspect["suggested_label"],
        "confidence": numbers.sureness(suspect["confidence"]),
        "bar": bar((suspect["confidence"], "s2")),
        "review": False,
        "text": show_text(facts.texts, suspect["id"]),
    }
