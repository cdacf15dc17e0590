"""What the hold-out will be able to tell: how exact an accuracy, how small a difference."""

from __future__ import annotations

from collections.abc import Mapping

from trainer import numbers
from trainer.dataset.folder import HOLDOUT
from trainer.facts import Table
from trainer.report.dataset.facts import DatasetFacts
from trainer.report.lines import Line, Mark, line_chart
from trainer.report.points import BAD, GOOD, WARN, Point
from trainer.report.records import Section, Titled, small
from trainer.report.svg import Chart
from trainer.statistics.metrics import (
    ALPHA,
    lowest_share,
    minimum_detectable_difference,
    share_interval,
)
from trainer.statistics.noninferiority import power, required_messages, smallest_margin
from trainer.statistics.promise import fewest_rows
from trainer.store.gate_rules import GateRules

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
    duel_margin, gate_margin = _points(DUEL_MARGIN), _points(margin)
    accuracies = [
        (numbers.percent(share, 0), numbers.interval(share_interval(share, total)))
        for share in _ACCURACIES
    ]
    differences = [
        (
            numbers.percent(share, 0),
            _points(minimum_detectable_difference(share, total)),
            _points(smallest_margin(total, share)),
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
                "Label by label", Table(labels, _labels(facts.per_label(HOLDOUT), facts.labels))
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
    return _points(smallest_margin(total, 0.05))


def _points(share: float) -> str:
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
        write_y=_points,
        percent=True,
        logarithmic=True,
        x_range=(float(told[0]), float(told[-1])),
        marks=[Mark(float(total), f"this one: {numbers.count(total)}")],
    )


def _around(total: int) -> list[int]:
    """Return sizes from a quarter of a hold-out's to eight times it."""
    return [max(1, round(total * factor)) for factor in (0.25, 0.5, 1, 2, 4, 8)]


def _labels(sizes: Mapping[str, int], names: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
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
