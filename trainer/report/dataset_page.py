"""The page about a dataset: its sections in order, the summary, message lengths, and how small a
difference its hold-out can show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer import numbers
from trainer.check.findings import COUNTS, FLOOR, LEAKAGE, LENGTHS, SUSPECTS
from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION
from trainer.facts import Table
from trainer.report.charts import STYLE_OF_SPLIT, bar
from trainer.report.dataset_facts import DatasetFacts, read_facts
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
    Drawn,
    Head,
    Point,
    Report,
    Section,
    Titled,
    check_point,
    describe_openings,
    small,
    write_page,
)
from trainer.report.run import Input, lacking
from trainer.statistics.metrics import (
    ALPHA,
    lowest_share,
    share_interval,
)
from trainer.statistics.paired import smallest_margin
from trainer.statistics.thresholds import fewest_rows
from trainer.store.rules import GateRules

# The summary.


def overview_section(facts: DatasetFacts) -> Section:
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
    return Section("found", "Summary", [Drawn("card", card)])


def _points(facts: DatasetFacts) -> Iterator[Point]:
    yield _checked(facts)
    yield from _used(facts)
    yield _labels(facts)
    yield from _wrong(facts)
    yield from _leaks(facts)
    yield _lengths(facts)
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


def _labels(facts: DatasetFacts) -> Point:
    sizes = facts.per_label(TRAIN)
    floor = int(facts.figures(COUNTS).get("floor", FLOOR))
    least = min(facts.labels, key=lambda name: (sizes.get(name, 0), name))
    most = max(facts.labels, key=lambda name: (sizes.get(name, 0), name))
    few = sum(sizes.get(name, 0) < floor for name in facts.labels)
    ratio = sizes.get(most, 0) / max(1, sizes.get(least, 0))
    claim = (
        f"{few} of {len(facts.labels)} labels have fewer than {floor} training messages"
        if few
        else f"Every label has at least {floor} training messages"
    )
    detail = (
        f"The smallest label, {least}, has {numbers.count(sizes.get(least, 0))}. The largest has "
        f"{ratio:.1f} times as many."
    )
    return Point(WARN if few else GOOD, claim, detail)


def _wrong(facts: DatasetFacts) -> Iterator[Point]:
    found = facts.finding(SUSPECTS)
    if found is None or found.verdict == "skipped":
        return
    expected = found.figures.get("expected_wrong")
    if expected is None:
        detail = f"{found.found}. They are in the review queue."
        yield Point(TONES[found.verdict], "Some labels are doubtful", detail)
        return
    slips, most = numbers.percent(expected["slips"]), numbers.percent(expected["at_most"])
    queued = numbers.counted(found.figures["suspects"], "label")
    detail = (
        f"Slips: {numbers.interval(expected['slips_interval_95'])} (95%). {queued} in the review "
        "queue."
    )
    claim = f"{slips} of the labels are probably slips; at most {most} are wrong"
    yield Point(TONES[found.verdict], claim, detail)


def _leaks(facts: DatasetFacts) -> Iterator[Point]:
    found = facts.finding(LEAKAGE)
    if found is None:
        return
    if found.verdict == "ok":
        yield Point(GOOD, "No copy or near-copy is in two parts", f"{found.found}.")
    else:
        yield Point(TONES[found.verdict], "Some messages are in two parts", f"{found.found}.")


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


def lengths_section(facts: DatasetFacts) -> Section:
    """Return the lengths in characters, and in tokens if the check was given a base."""
    # Lengths of hold-out messages would need an opening; those of the other splits are as typical.
    examples = (*facts.dataset.train, *facts.dataset.validation)
    characters = [len(example.message) for example in examples]
    title = "How long the messages are"
    if not characters:
        return Section("lengths", title, missing="There are no training messages.")
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
    return Section("lengths", title, blocks)


def _lengths(facts: DatasetFacts) -> Point:
    found = facts.finding(LENGTHS)
    if found is None or "p99" not in found.figures:
        hint = "clerk-trainer check --base counts the tokens of each message."
        return Point(UNKNOWN, "Not known how many messages a token budget shortens", hint)
    figures = found.figures
    detail = (
        f"Half of the messages have at most {numbers.count(figures['p50'])} tokens, 99 of 100 at "
        f"most {numbers.count(figures['p99'])}."
    )
    budget = numbers.count(figures["budget"])
    if not figures["shortened"]:
        return Point(GOOD, f"Every message fits into {budget} tokens", detail)
    share = numbers.percent(figures["share_shortened"])
    tone = TONES.get(found.verdict, WARN)
    return Point(tone, f"{share} are shortened to {budget} tokens", detail)


def _quantile_rows(
    characters: Sequence[int], figures: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
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


def power_section(facts: DatasetFacts) -> Section:
    """Return what a hold-out of this size can show, in all and label by label."""
    total = facts.size(HOLDOUT)
    title = "What the hold-out can show"
    if not total:
        return Section("power", title, missing="There are no held-out messages.")
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
    by_label = (
        f"The gate requires proof of a recall of {numbers.percent(GateRules().label_recall, 0)} "
        "for every label (exact test, one-sided at 5%). List labels without proof in the gate's "
        "label_unproven. Messages that belong together, such as a thread, count as fewer than "
        "shown here."
    )
    labels = ("label", "held out", "95% interval of a recall of 90%", "the gate passes it with")
    return Section(
        "power",
        title,
        [
            summary,
            Table(("measured accuracy", "95% interval"), accuracies),
            Titled(
                "Label by label",
                Table(labels, _power_by_label(facts.per_label(HOLDOUT), facts.labels)),
            ),
            small(by_label),
        ],
    )


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


def _power_by_label(
    sizes: Mapping[str, int], names: tuple[str, ...]
) -> list[tuple[str, str, str, str]]:
    """Return for each label its size, the interval of a recall of 90 %, and how many messages must
    be found for the gate to pass it."""
    floor = GateRules().label_recall
    rows = []
    for name in sorted(names, key=lambda label: (sizes.get(label, 0), label)):
        size = sizes.get(name, 0)
        enough = (hits for hits in range(size + 1) if lowest_share(hits, size, ALPHA) >= floor)
        least = next(enough, None)
        rows.append(
            (
                name,
                numbers.count(size),
                numbers.interval(share_interval(0.9, size)) if size else numbers.NONE,
                f"too few: it takes {fewest_rows(floor)}"
                if least is None
                else f"{numbers.count(least)} or more found",
            )
        )
    return rows


_SECTIONS = (
    overview_section,
    steps_section,
    rows_section,
    labels_section,
    lengths_section,
    duplicates_section,
    doubtful_section,
    splits_section,
    power_section,
)


def write_dataset_report(directory: Path, out: Path, *, texts: bool = False) -> Report:
    """Write the page about a dataset folder.

    With ``texts`` the page shows doubtful and conflicting messages of training and validation, but
    no hold-out message and none that repeats one. The hold-out stays sealed.

    Raises BadInput, before anything is written, if a file is missing, altered, or of another
    dataset.
    """
    facts = read_facts(directory, texts=texts)
    sections = [*(make(facts) for make in _SECTIONS), _check_section(facts)]
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


def _check_section(facts: DatasetFacts) -> Section:
    title = "All findings of the check"
    if facts.check is None:
        return lacking("check", title, Input.CHECK, "the dataset folder")
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
    return Section("check", title, [Drawn("points", {"points": points}), details])
