"""The page about a dataset: its sections in order, the summary, message lengths, and how small a
difference its hold-out can show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer import numbers
from trainer.check.findings import LENGTHS
from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION
from trainer.facts import Table
from trainer.report.charts import STYLE_OF_SPLIT, bar
from trainer.report.dataset_facts import DatasetFacts, read_facts, what_dataset_can_show
from trainer.report.dataset_rows import (
    doubtful_section,
    duplicates_section,
    labels_section,
    rows_section,
    splits_section,
)
from trainer.report.dataset_steps import steps_section
from trainer.report.page import (
    BAD,
    GOOD,
    MANY_OPENINGS,
    TONES,
    UNKNOWN,
    WARN,
    Block,
    Content,
    Drawn,
    Head,
    Point,
    Report,
    Section,
    Titled,
    check_point,
    describe_openings,
    write_page,
)
from trainer.report.run import Input, lacks
from trainer.statistics.metrics import share_interval
from trainer.statistics.paired import smallest_margin
from trainer.store.rules import GateRules

# The summary.


def overview_section(facts: DatasetFacts) -> Content:
    """Return the headline figures and the points."""
    sizes = [(name, facts.size(name)) for name in (TRAIN, VALIDATION, HOLDOUT)]
    whole = sum(size for _, size in sizes) or 1
    card = {
        "big": numbers.count(facts.size(TRAIN)),
        "under": f"training messages for {len(facts.labels)} labels",
        "interval": f"of {numbers.count(whole)} in all",
        "ladder": [
            {
                "name": name,
                "value": numbers.count(size),
                "about": numbers.percent(size / whole),
                "bar": bar((size / whole, style)),
            }
            for (name, size), style in zip(sizes, STYLE_OF_SPLIT, strict=True)
        ],
        "points": list(_points(facts)),
    }
    return [Drawn("card", card)]


def _points(facts: DatasetFacts) -> Iterator[Point]:
    # What the check found stands once: named here, with a step each below, and in its sections.
    yield _checked(facts)
    yield from _used(facts)
    yield _holdout(facts)
    yield _opened(facts)
    yield _redacted(facts)


def _checked(facts: DatasetFacts) -> Point:
    if facts.check is None:
        hint = "clerk-trainer check finds wrong labels and messages in two parts."
        return Point(UNKNOWN, "Not checked yet", hint)
    return check_point(facts.check)


def _used(facts: DatasetFacts) -> Iterator[Point]:
    read = facts.counts.get("rows_read")
    if not read:
        return
    used = sum(facts.size(name) for name in (TRAIN, VALIDATION, HOLDOUT))
    left = read - used
    claim = f"{numbers.count(used)} of {numbers.count(read)} rows are in use"
    detail = (
        f"{numbers.counted(left, 'row')} ({numbers.percent(left / read)}) left out; the reasons "
        "are listed below."
        if left
        else "None was left out."
    )
    yield Point(WARN if left > 0.2 * read else GOOD, claim, detail)


def _opened(facts: DatasetFacts) -> Point:
    detail = "This page uses only the hold-out's counts. Making it did not open the hold-out."
    tone = WARN if facts.openings > MANY_OPENINGS else GOOD
    return Point(tone, describe_openings(facts.openings), detail)


def _redacted(facts: DatasetFacts) -> Point:
    rules = facts.dataset.redaction
    if rules is None:
        return Point(
            UNKNOWN,
            "Personal data is not redacted",
            "The dataset contains the names, addresses and numbers that customers wrote.",
        )
    kinds = facts.counts.get("redacted") or {}
    listed = ", ".join(f"{numbers.count(n)} {kind}" for kind, n in kinds.items())
    return Point(GOOD, f"Personal data is redacted by {rules}", f"{listed or 'None found'}.")


# Message lengths, and what a token budget shortens.


def lengths_section(facts: DatasetFacts) -> Content:
    """Return the lengths in characters, and in tokens if the check was given a base."""
    # Lengths of hold-out messages would need an opening; those of the other splits are as typical.
    examples = (*facts.dataset.train, *facts.dataset.validation)
    characters = [len(example.message) for example in examples]
    if not characters:
        return "There are no training messages."
    figures = facts.figures(LENGTHS)
    summary = "Tokens are not counted yet: `clerk-trainer check --base` counts them."
    if "p50" in figures:
        budget, cut = numbers.count(figures["budget"]), figures.get("shortened", 0)
        share = numbers.percent(figures.get("share_shortened"))
        summary = f"Every message fits into the budget of {budget} tokens."
        if cut:
            summary = (
                f"With a budget of {budget} tokens {numbers.counted(cut, 'message')} ({share}) "
                f"{'is' if cut == 1 else 'are'} shortened in the middle."
            )
    blocks: list[Block] = [
        f"{summary} Hold-out messages are not counted: the hold-out stays sealed.",
        Table(("", "characters", "tokens"), _quantile_rows(characters, figures)),
    ]
    shortened = figures.get("shortened_per_label") or {}
    ranked = sorted(shortened.items(), key=lambda item: (-item[1], item[0]))
    if ranked:
        rows = [(label, numbers.count(number)) for label, number in ranked]
        blocks.append(Titled("Shortened, by label", Table(("label", "messages"), rows)))
    return blocks


def _quantile_rows(
    characters: Sequence[int], figures: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    # Quantiles, and no histogram: what decides is how many messages the budget shortens.
    ranked = sorted(characters)
    rows = []
    for name, share, key in (
        ("half of the messages, at most", 0.5, "p50"),
        ("95 of 100, at most", 0.95, "p95"),
        ("99 of 100, at most", 0.99, "p99"),
        ("the longest", 1.0, "max"),
    ):
        at = min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)
        rows.append((name, numbers.count(ranked[at]), numbers.count(figures.get(key))))
    return rows


# What the hold-out can show: how exact an accuracy, how small a difference.


_USUAL = 0.05
_ACCURACIES = (0.8, 0.9, 0.95, 0.98)


def power_section(facts: DatasetFacts) -> Content:
    """Return what the split can show, in the sentences of ``prepare``, and how exactly."""
    total = facts.size(HOLDOUT)
    if not total:
        return "There are no held-out messages."
    accuracies = [
        (numbers.percent(share, 0), numbers.interval(share_interval(share, total)))
        for share in _ACCURACIES
    ]
    smallest = numbers.unsigned(smallest_margin(total, _USUAL))
    summary = (
        f"{numbers.counted(total, 'message')} can show a difference of {smallest}: two equally "
        "good models that differ in being right on 5% of the messages are shown to be within that "
        "margin four times in five. How often two models differ is known only after both have "
        "answered."
    )
    table = Table(("measured accuracy", "95% interval"), accuracies)
    return [summary, table, *what_dataset_can_show(facts.record)]


def _holdout(facts: DatasetFacts) -> Point:
    total = facts.size(HOLDOUT)
    if not total:
        return Point(BAD, "Nothing is held out", "No accuracy can be measured on this dataset.")
    smallest = smallest_margin(total, _USUAL)
    shown = f"{numbers.counted(total, 'held-out message')} can show a difference of"
    detail = (
        "Between two models that differ on 5% of the messages, four times in five. An accuracy of "
        f"90% would have the 95% interval {numbers.interval(share_interval(0.9, total))}. Messages "
        "that belong together count as fewer."
    )
    tone = GOOD if smallest <= GateRules().non_inferiority_margin else WARN
    return Point(tone, f"{shown} {numbers.unsigned(smallest)}", detail)


def check_section(facts: DatasetFacts) -> Content:
    """Return every finding of the check, with its settings and figures."""
    if facts.check is None:
        return lacks(Input.CHECK, "the dataset folder")
    points = [
        Point(TONES.get(found.verdict, UNKNOWN), found.name, found.found, found.advice)
        for found in facts.check.findings
    ]
    figures = [
        row
        for name, value in facts.check.to_json().items()
        if name not in {"findings", "verdict", "verdicts", "schema"}
        for row in numbers.flatten(value, name)
    ]
    details = Titled("The check's settings and figures", figures, folded=True)
    return [Drawn("points", {"points": points}), details]


_SECTIONS = (
    ("found", "Summary", overview_section),
    ("next", "What to do next", steps_section),
    ("rows", "Rows: read, used, left out", rows_section),
    ("sizes", "The labels", labels_section),
    ("lengths", "How long the messages are", lengths_section),
    ("duplicates", "Copies and conflicting labels", duplicates_section),
    ("doubtful", "Doubtful labels", doubtful_section),
    ("splits", "How it was split", splits_section),
    ("power", "What the split can show", power_section),
    ("check", "All findings of the check", check_section),
)


def write_dataset_report(directory: Path, out: Path, *, texts: bool = False) -> Report:
    """Write the page about a dataset folder.

    With ``texts`` the page shows doubtful and conflicting messages of training and validation, but
    no hold-out message and none that repeats one. The hold-out stays sealed.

    Raises BadInput, before anything is written, if a file is missing, altered, or of another
    dataset.
    """
    facts = read_facts(directory, texts=texts)
    sections = [Section(key, title, make(facts)) for key, title, make in _SECTIONS]
    return write_page(out, _head(facts), sections)


def _head(facts: DatasetFacts) -> Head:
    record = facts.record
    checked = "checked" if facts.check else "not checked yet"
    return Head(
        kind="dataset report",
        name=facts.dataset.name,
        facts=(
            ("dataset", "", numbers.short(facts.dataset.digest)),
            ("prepared", numbers.moment(record.get("created_at")), ""),
            (checked, "", ""),
        ),
        private="They are from training and validation, none from the hold-out."
        if facts.texts is not None
        else "",
    )
