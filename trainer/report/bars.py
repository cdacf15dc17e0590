"""Bars, and a confusion matrix as a heat map, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.report import numbers, svg
from trainer.report.svg import Axis, Chart, Frame, Svg

_CELLS_WIDTH = 600
_CHARACTER = 6.6  # pixels of a character of the tick font, on average
_DARK, _MIDDLE = 0.72, 0.55  # shades from which on a theme writes in the other ink


def bar(share: float, style: str = "s1") -> Svg:
    """Return the bar of a share, 100 units wide, to stretch over a table cell."""
    width = 100 * min(1.0, max(0.0, share))
    return svg.element(
        "svg",
        svg.element("rect", class_="trough", x=0, y=0, width=100, height=6),
        svg.element("rect", class_=f"fill {style}", x=0, y=0, width=width, height=6),
        class_="bar",
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def span(low: float, high: float, value: float, style: str = "s1") -> Svg:
    """Return an interval of shares with its value, 100 units wide, to stretch over a cell."""
    start, end, at = 100 * low, 100 * high, min(98.5, 100 * value)
    style = f"fill {style}"
    return svg.element(
        "svg",
        svg.element("rect", class_="trough", x=0, y=2, width=100, height=2),
        svg.element("rect", class_=f"{style} reach", x=start, y=1, width=end - start, height=4),
        svg.element("rect", class_=style, x=at, y=0, width=1.5, height=6),
        class_="bar",
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        aria_hidden="true",
    )  # fmt: skip


def confidence_chart(right: Sequence[float], wrong: Sequence[float], *, bins: int = 20) -> Chart:
    """Draw how many messages were right and wrong by confidence; the counts' scale is square
    root, since most messages crowd at the sure end."""
    frame = Frame()
    everything = [*right, *wrong]
    low = min(0.9, max(0.0, min(everything) - 0.001) // 0.1 * 0.1)
    step = (1.0 - low) / bins
    counted = [[0] * bins, [0] * bins]
    for part, values in enumerate((right, wrong)):
        for value in values:
            counted[part][min(bins - 1, int((value - low) / step + 1e-9))] += 1
    most = max(a + b for a, b in zip(*counted, strict=True))
    across, up = frame.across(low, 1.0), frame.up(0.0, most**0.5 * 1.05)
    ticks = svg.nice_ticks(low, 1.0)
    y_ticks = _root_ticks(most)
    x = Axis(across, ticks, svg.percent_writer(ticks), "confidence")
    y = Axis(up, tuple(t**0.5 for t in y_ticks), lambda root: numbers.count(root**2), "messages")
    parts = [svg.axes(frame, x, y)]
    rows = []
    floor = up(0.0)
    for at in range(bins):
        good, bad = counted[0][at], counted[1][at]
        start, end = low + at * step, low + (at + 1) * step
        name = f"{numbers.percent(start)} to {numbers.percent(end)}"
        if good + bad:
            rows.append((name, numbers.count(good), numbers.count(bad)))
            top, middle = up((good + bad) ** 0.5), up(bad**0.5)
            left, width = across(start) + 0.75, across(end) - across(start) - 1.5
            parts.append(
                svg.element(
                    "g",
                    svg.tooltip(f"confidence {name}: {good} right, {bad} wrong"),
                    svg.element("rect", class_="fill s1", x=left, y=top, width=width,
                                height=middle - top),
                    svg.element("rect", class_="fill s2", x=left, y=middle, width=width,
                                height=floor - middle),
                )
            )  # fmt: skip
    return Chart(
        title="How sure it was",
        caption="Messages by confidence. The height is a square-root scale, so that few are seen.",
        svg=svg.drawing(
            frame,
            f"Histogram of the confidence of {len(right)} right and {len(wrong)} wrong answers",
            *parts,
        ),
        columns=("confidence", "right", "wrong"),
        rows=tuple(rows),
        legend=(("fill s1", "right"), ("fill s2", "wrong")),
    )


def splits_chart(labels: Sequence[str], splits: Sequence[tuple[str, Sequence[int]]]) -> Chart:
    """Draw messages per label, a colour per split of the dataset."""
    row = 34.0
    styles = [("s1", "s3", "s5")[number % 3] for number in range(len(splits))]
    frame = Frame(460, 10 + row * len(labels) + 6, 16, 16, 10, 6)
    totals = [sum(values[at] for _, values in splits) for at in range(len(labels))]
    scale = svg.Scale(0, max(*totals, 1), frame.left, frame.width - frame.right)
    drawn: list[Svg] = []
    for at, name in enumerate(labels):
        y = frame.top + row * at
        drawn.extend(
            (
                svg.label(frame.left, y + 12, name, class_="row-name"),
                svg.label(scale.end, y + 12, numbers.count(totals[at]), class_="row-name",
                          text_anchor="end"),
            )
        )  # fmt: skip
        start = 0
        for style, (split, values) in zip(styles, splits, strict=True):
            left, right = scale(start), scale(start + values[at])
            start += values[at]
            drawn.append(
                svg.element(
                    "g",
                    svg.tooltip(f"{name}, {split}: {numbers.counted(values[at], 'message')}"),
                    svg.element("rect", class_=f"fill {style}", x=left, y=y + 18,
                                width=max(0.0, right - left - 1), height=8),
                )
            )  # fmt: skip
    return Chart(
        title="Messages per label",
        caption="How the dataset was split.",
        svg=svg.drawing(frame, f"Messages per label, {len(labels)} labels", *drawn),
        columns=("label", *(split for split, _ in splits)),
        rows=tuple(
            (name, *(numbers.count(values[at]) for _, values in splits))
            for at, name in enumerate(labels)
        ),
        legend=tuple(
            (f"fill {style}", split) for style, (split, _) in zip(styles, splits, strict=True)
        ),
    )


def _root_ticks(most: int) -> tuple[int, ...]:
    power = 10 ** (len(str(most)) - 1)
    top = most // power * power
    wanted = sorted({0, top // 25, top // 4, top} if top >= 25 else {0, top // 4, top})
    kept = [0]
    for value in wanted[1:]:
        if value > kept[-1]:
            kept.append(value)
    return tuple(kept)


def confusion_chart(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> Chart:
    """Draw messages by true label (rows) and given label (columns).

    Right answers and mistakes have a hue and a scale each: on one scale the diagonal would drown
    every mistake. A right answer's shade is its share of the row; a mistake's is the square root of
    its count over the largest mistake's, so that a cell of 2 is still seen beside one of 20.
    """
    most = max(
        (n for i, row in enumerate(confusion) for j, n in enumerate(row) if i != j), default=0
    )
    cell = min(48.0, max(24.0, _CELLS_WIDTH / len(labels)))
    longest = max(map(len, labels)) * _CHARACTER
    slant = math.radians(38)
    left, top = longest + 30.0, longest * math.sin(slant) + 40.0
    right = max(16.0, longest * math.cos(slant) - cell / 2 + 8)
    side = cell * len(labels)
    frame = Frame(left + side + right, top + side + 12, left, right, top, 12)
    parts = [
        svg.label(left + side / 2, 14, "the adapter answered", class_="title",
                  text_anchor="middle"),
        svg.label(0, 0, "the label is", class_="title", text_anchor="middle",
                  transform=f"translate(12 {top + side / 2:.0f}) rotate(-90)"),
    ]  # fmt: skip
    for at, name in enumerate(labels):
        parts.extend(_names(name, left, top, (at + 0.5) * cell))
    for i, row in enumerate(confusion):
        total = sum(row)
        for j, number in enumerate(row):
            x, y = left + j * cell, top + i * cell
            text = _explain(labels, i, j, number, total)
            shade = _shade(number, total if i == j else most, right=i == j)
            parts.append(_cell(x, y, cell, number, shade, text, right=i == j))
    wrong = sum(n for i, row in enumerate(confusion) for j, n in enumerate(row) if i != j)
    whole = sum(map(sum, confusion))
    return Chart(
        title="Confusion matrix",
        caption=(
            "Rows are the true labels, columns the answers. Blue: right, shaded by the share of "
            "the row. Orange: wrong, shaded by the count on its own scale."
        ),
        svg=svg.drawing(
            frame,
            f"Confusion matrix of {len(labels)} labels: {numbers.count(whole - wrong)} of "
            f"{numbers.count(whole)} messages on the diagonal",
            *parts,
        ),
        columns=("true label", *labels),
        rows=tuple(
            (name, *(numbers.count(n) for n in row))
            for name, row in zip(labels, confusion, strict=True)
        ),
        legend=(("heat right", "right"), ("heat wrong", "wrong")),
        least_width=min(round(frame.width), 640),
    )


def _names(name: str, left: float, top: float, middle: float) -> tuple[Svg, Svg]:
    """Return a label's name beside its row and above its column."""
    place = f"translate({left + middle:.1f} {top - 8:.1f}) rotate(-38)"
    return (
        svg.label(left - 8, top + middle + 4, name, class_="tick", text_anchor="end"),
        svg.label(0, 0, name, class_="tick", transform=place),
    )


def _shade(number: int, most: int, *, right: bool) -> float:
    if not number or not most:
        return 0.0
    share = number / most
    return 0.12 + 0.83 * share**2 if right else 0.18 + 0.77 * math.sqrt(share)


def _ink(shade: float) -> str:
    return "over" if shade > _DARK else "middle" if shade > _MIDDLE else ""


def _cell(
    x: float, y: float, cell: float, number: int, shade: float, text: str, *, right: bool
) -> Svg:
    parts = [
        svg.tooltip(text),
        svg.element("rect", x=x, y=y, width=cell, height=cell, class_="cell"),
    ]
    if number:
        parts.extend(
            (
                svg.element("rect", x=x + 1, y=y + 1, width=cell - 2, height=cell - 2, rx=3,
                            class_=f"heat {'right' if right else 'wrong'}", fill_opacity=shade),
                svg.label(x + cell / 2, y + cell / 2 + 4, str(number), text_anchor="middle",
                          class_=f"in-cell {_ink(shade)}".strip()),
            )
        )  # fmt: skip
    return svg.element("g", *parts)


def _explain(labels: Sequence[str], i: int, j: int, number: int, total: int) -> str:
    share = numbers.percent(number / total) if total else numbers.NONE
    if i == j:
        return f"{labels[i]}: {number} of {total} right ({share})"
    return f"{labels[i]} answered as {labels[j]}: {number} of {total} ({share})"
