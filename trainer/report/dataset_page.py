"""The page about a dataset: its sections in order, the short answer, lengths, and what a hold-
out of its size can tell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer import numbers
from trainer.check.findings import COUNTS, FLOOR, LEAKAGE, LENGTHS, SUSPECTS
from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION
from trainer.facts import Table
from trainer.report.charts import STYLE_OF_SPLIT, Chart, Line, Mark, bar, length_chart, line_chart
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
    small,
    tell_openings,
    write_page,
)
from trainer.report.run import Input, lacking
from trainer.statistics.figures import LengthBin, length_bins
from trainer.statistics.metrics import (
    ALPHA,
    lowest_share,
    minimum_detectable_difference,
    share_interval,
)
from trainer.statistics.paired import power, required_messages, smallest_margin
from trainer.statistics.thresholds import fewest_rows
from trainer.store.rules import GateRules

# The short answer: what is in it, and what to know before it is trained on.


def overview_section(facts: DatasetFacts) -> Section:
    """Return the headline and the points in plain words."""
    sizes = [(name, facts.size(name)) for name in (TRAIN, VALIDATION, HOLDOUT)]
    whole = sum(size for _, size in sizes) or 1
    card = {
        "big": numbers.count(facts.size(TRAIN)),
        "under": f"messages to learn {len(facts.labels)} labels from",
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
    return Section("found", "In short", [Drawn("card", card)])


def _points(facts: DatasetFacts) -> Iterator[Point]:
    yield _checked(facts)
    yield from _used(facts)
    yield _labels(facts)
    yield from _wrong(facts)
    yield from _apart(facts)
    yield tell_lengths(facts)
    yield tell_holdout(facts)
    yield _opened(facts)
    yield _redacted(facts)


def _checked(facts: DatasetFacts) -> Point:
    if facts.check is None:
        return Point(
            UNKNOWN, "Not checked yet", "clerk-trainer check looks for wrong labels and leaks."
        )
    concerns = [f.name for f in facts.check.findings if f.verdict in {"warn", "fail"}]
    if facts.check.verdict == "fail":
        failed = [f.name for f in facts.check.findings if f.verdict == "fail"]
        return Point(BAD, "It failed its check", f"{', '.join(failed)}: see what to do next.")
    if concerns:
        return Point(WARN, "Its check has concerns", f"{', '.join(concerns)}.")
    number = numbers.counted(len(facts.check.findings), "check")
    return Point(GOOD, "It passed its check", f"{number}, nothing to do.")


def _used(facts: DatasetFacts) -> Iterator[Point]:
    read = facts.counts.get("rows_read")
    if not read:
        return
    used = sum(facts.size(name) for name in (TRAIN, VALIDATION, HOLDOUT))
    left = read - used
    claim = f"{numbers.count(used)} of {numbers.count(read)} rows are in use"
    detail = (
        f"{numbers.counted(left, 'row')} ({numbers.percent(left / read)}) left out, each for a "
        "reason that is listed below."
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
        f"{few} of {len(facts.labels)} labels have fewer than {floor} messages to learn from"
        if few
        else f"Every label has {floor} messages to learn from, or more"
    )
    detail = (
        f"The fewest: {least}, {numbers.count(sizes.get(least, 0))}. The largest label has "
        f"{ratio:.1f} times as many."
    )
    return Point(WARN if few else GOOD, claim, detail)


def _wrong(facts: DatasetFacts) -> Iterator[Point]:
    found = facts.finding(SUSPECTS)
    if found is None or found.verdict == "skipped":
        return
    expected = found.figures.get("expected_wrong")
    detail = f"{found.found}, and wait in the review queue."
    if expected is None:
        yield Point(TONES[found.verdict], "Some labels are doubted", detail)
        return
    slips, most = numbers.percent(expected["slips"]), numbers.percent(expected["at_most"])
    waiting = numbers.counted(found.figures["suspects"], "label")
    detail = (
        f"Slips: {numbers.interval(expected['slips_interval_95'])} (95%). {waiting} wait in the "
        "review queue."
    )
    claim = f"{slips} of the labels are probably slips; at most {most} are wrong"
    yield Point(TONES[found.verdict], claim, detail)


def _apart(facts: DatasetFacts) -> Iterator[Point]:
    found = facts.finding(LEAKAGE)
    if found is None:
        return
    if found.verdict == "ok":
        yield Point(GOOD, "No message is, or is nearly, in two parts", f"{found.found}.")
    else:
        yield Point(TONES[found.verdict], "Some messages are in two parts", f"{found.found}.")


def _opened(facts: DatasetFacts) -> Point:
    detail = "Making this page opened nothing: it knows the hold-out's counts, and no text of it."
    tone = WARN if facts.openings > MANY_OPENINGS else GOOD
    return Point(tone, tell_openings(facts.openings), detail)


def _redacted(facts: DatasetFacts) -> Point:
    rules = facts.dataset.redaction
    if rules is None:
        return Point(
            UNKNOWN,
            "Personal data is not redacted",
            "Anyone who reads the dataset reads names, addresses and numbers that customers wrote.",
        )
    kinds = facts.counts.get("redacted") or {}
    listed = ", ".join(f"{numbers.count(n)} {kind}" for kind, n in kinds.items())
    return Point(GOOD, f"Personal data is redacted by {rules}", f"{listed or 'None found'}.")


# How long the messages are, and what a token budget cuts.


def lengths_section(facts: DatasetFacts) -> Section:
    """Return the lengths in characters, and in tokens where the check was given a base."""
    examples = (*facts.dataset.train, *facts.dataset.validation)
    characters = [len(example.message) for example in examples]
    title = "How long the messages are"
    if not characters:
        return Section("lengths", title, missing="There are no messages to learn from.")
    charts = [
        length_chart(
            length_bins(characters),
            unit="characters",
            title="Characters a message",
            caption="Training and validation; the lengths of the bars' ends double every two bars.",
        )
    ]
    figures = facts.figures(LENGTHS)
    tokens = [LengthBin(*row) for row in figures.get("histogram", ())]
    if tokens:
        charts.insert(0, _tokens_chart(tokens, figures["budget"]))
    told = (
        "How many tokens they have is not known: `clerk-trainer check --base` counts them as "
        "training will."
    )
    if "p50" in figures:
        budget, cut = numbers.count(figures["budget"]), figures.get("shortened", 0)
        share = numbers.percent(figures.get("share_shortened"))
        told = f"Every message fits into the budget of {budget} tokens."
        if cut:
            told = (
                f"With a budget of {budget} tokens {numbers.counted(cut, 'message')} ({share}) "
                f"{'is' if cut == 1 else 'are'} shortened in the middle."
            )
    blocks: list[Block] = [
        f"{told} The hold-out's are not counted: it stays sealed.",
        charts,
        Table(("", "characters", "tokens"), _quantile_rows(characters, figures)),
    ]
    if per_label := _per_label(facts):
        blocks.append(Titled("Shortened, by label", Table(("label", "messages"), per_label)))
    return Section("lengths", title, blocks)


def tell_lengths(facts: DatasetFacts) -> Point:
    """Return whether a token budget cuts messages, for the short answer."""
    found = facts.finding(LENGTHS)
    if found is None or "p99" not in found.figures:
        return Point(
            UNKNOWN,
            "Not known how many messages a token budget cuts",
            "clerk-trainer check --base counts in the tokens of the base.",
        )
    figures = found.figures
    detail = (
        f"Half of them have {numbers.count(figures['p50'])} tokens or fewer, 99 of 100 "
        f"{numbers.count(figures['p99'])} or fewer."
    )
    budget = numbers.count(figures["budget"])
    if not figures["shortened"]:
        return Point(GOOD, f"Every message fits into {budget} tokens", detail)
    share = numbers.percent(figures["share_shortened"])
    return Point(TONES.get(found.verdict, WARN), f"{share} are cut to {budget} tokens", detail)


def _tokens_chart(bins: Sequence[LengthBin], budget: int) -> Chart:
    return length_chart(
        bins,
        unit="tokens",
        title="Tokens a message",
        caption=(
            f"Training and validation, by the base's tokenizer. What is longer than "
            f"{numbers.count(budget)} tokens is shortened in the middle."
        ),
    )


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


def _per_label(facts: DatasetFacts) -> list[tuple[str, str]]:
    shortened = facts.figures(LENGTHS).get("shortened_per_label") or {}
    ranked = sorted(shortened.items(), key=lambda item: (-item[1], item[0]))
    return [(label, numbers.count(number)) for label, number in ranked]


# What the hold-out can tell: how exact an accuracy, how small a difference.

DUEL_MARGIN = 0.01
"""The duel's margin unless the user says otherwise (``trainer.duel.verdict.MARGIN``, which loads
far more than this page needs; a test holds them equal)."""

DISCORDANCES = (0.03, 0.05, 0.1)
"""Shares of the messages on which two models differ in being right: alike, usual, unlike."""

_ACCURACIES = (0.8, 0.9, 0.95, 0.98)
_STYLES = ("s1", "s2", "s3")


def power_section(facts: DatasetFacts) -> Section:
    """Return what so many held-out messages can tell, as a whole and of each label."""
    total = facts.size(HOLDOUT)
    title = "What the hold-out can tell"
    if not total:
        return Section("power", title, missing="There is no held-out message to measure on.")
    margin = GateRules().non_inferiority_margin
    duel_margin, gate_margin = _unsigned(DUEL_MARGIN), _unsigned(margin)
    accuracies = [
        (numbers.percent(share, 0), numbers.interval(share_interval(share, total)))
        for share in _ACCURACIES
    ]
    differences = [
        (
            numbers.percent(share, 0),
            _unsigned(minimum_detectable_difference(share, total)),
            _unsigned(smallest_margin(total, share)),
            numbers.percent(power(total, share, DUEL_MARGIN), 0),
            numbers.percent(power(total, share, margin), 0),
            numbers.count(required_messages(share, DUEL_MARGIN)),
            numbers.count(required_messages(share, margin)),
        )
        for share in DISCORDANCES
    ]
    told = (
        f"With {numbers.counted(total, 'message')} you can tell {_margin_told(total)}: two models "
        "that differ in being right on 5% of the messages, one exactly as good as the other, are "
        "shown to be within that four times in five. How often two models differ is known only "
        "afterwards."
    )
    tests = (
        "Found: McNemar's test, two-sided at 5%, four times in five. Shown, passes: Tango's test "
        f"for non-inferiority, one-sided at 5%; {duel_margin} is the duel's margin unless you "
        f"state another, {gate_margin} the gate's."
    )
    by_label = (
        f"The gate asks that a recall of {numbers.percent(GateRules().label_recall, 0)} is shown "
        "for every label (exact test, one-sided at 5%). Name the labels that may go without proof "
        "in the gate's label_unproven. Messages that belong together, as threads do, count as "
        "fewer than here."
    )
    columns = ("they differ on", "a difference is found from", "an equal is shown within",
               f"an equal passes {duel_margin}", f"an equal passes {gate_margin}",
               f"messages for {duel_margin}", f"messages for {gate_margin}")  # fmt: skip
    labels = ("label", "held out", "recall of 90% would lie within", "the gate passes it at")
    return Section(
        "power",
        title,
        [
            told,
            Table(("if this share is right", "known to lie within (95%)"), accuracies),
            _chart(total),
            Titled(
                "Differences between two models on the same messages", Table(columns, differences)
            ),
            small(tests),
            Titled(
                "Label by label",
                Table(labels, _power_by_label(facts.per_label(HOLDOUT), facts.labels)),
            ),
            small(by_label),
        ],
    )


def tell_holdout(facts: DatasetFacts) -> Point:
    """Return what the hold-out can tell, for the short answer."""
    total = facts.size(HOLDOUT)
    if not total:
        return Point(BAD, "Nothing is held out", "No accuracy can be measured on this dataset.")
    low, high = share_interval(0.9, total)
    smallest = smallest_margin(total, 0.05)
    claim = f"{numbers.counted(total, 'held-out message')} can tell {_margin_told(total)}"
    detail = (
        f"Between two models that differ on 5% of the messages, four times in five. An accuracy of "
        f"90% would be known to lie within {numbers.interval((low, high))}."
    )
    return Point(GOOD if smallest <= GateRules().non_inferiority_margin else WARN, claim, detail)


def _margin_told(total: int) -> str:
    return _unsigned(smallest_margin(total, 0.05))


def _unsigned(share: float) -> str:
    return numbers.points(share).removeprefix("+")


def _chart(total: int) -> Chart:
    """Draw the smallest difference that is told over the number of held-out messages."""
    sizes = sorted({*_around(total), total})
    lines = [
        Line(
            f"differ on {numbers.percent(share, 0)}",
            tuple((float(size), smallest_margin(size, share)) for size in sizes),
            style,
            marked=False,
        )
        for share, style in zip(DISCORDANCES, _STYLES, strict=True)
    ]
    told = _around(total)
    return line_chart(
        lines,
        title="More messages tell less of a difference",
        caption=(
            "The margin within which a model that is exactly as good is shown to be so four times "
            "in five (Tango's test), by the share of messages on which the two differ."
        ),
        x_title="held-out messages",
        y_title="smallest difference told",
        write_y=_unsigned,
        percent=True,
        logarithmic=True,
        x_range=(float(told[0]), float(told[-1])),
        marks=[Mark(float(total), f"this one: {numbers.count(total)}")],
    )


def _around(total: int) -> list[int]:
    """Return sizes from a quarter of a hold-out's to eight times it."""
    return [max(1, round(total * factor)) for factor in (0.25, 0.5, 1, 2, 4, 8)]


def _power_by_label(
    sizes: Mapping[str, int], names: tuple[str, ...]
) -> list[tuple[str, str, str, str]]:
    """Return for each label how exact its recall will be, and from which on the gate passes it."""
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
                f"too few to show it: {fewest_rows(floor)} could"
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
    """Write the page about a dataset folder that ``prepare`` made.

    With ``texts``, doubted and conflicting messages of training and validation are shown; of the
    hold-out nothing is, nor what says the same. The hold-out stays sealed.

    Raises BadInput where a file is missing, altered, or of another dataset; nothing is written
    then.
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
        private="It shows messages of training and validation, none of the hold-out."
        if facts.texts is not None
        else "",
    )


def _check_section(facts: DatasetFacts) -> Section:
    title = "Everything the check found"
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
    blocks: list[Block] = [Drawn("points", {"points": points})]
    blocks.append(Titled("the check's settings and figures", figures, folded=True))
    return Section("check", title, blocks)
