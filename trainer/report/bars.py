"""Bars, and a confusion matrix as a heat map, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from trainer import numbers
from trainer.report import svg
from trainer.report.svg import Axis, Chart, Frame
from trainer.statistics.lengths import LengthBin

STYLE_OF_SPLIT = ("s1", "s3", "s5")
"""How training, validation and hold-out are drawn."""

_CELLS_WIDTH = 600
_CHARACTER = 6.6  # pixels of a character of the tick font, on average
_DARK, _MIDDLE = 0.72, 0.55  # shades from which on a theme writes in the other ink
_LEAST_GAP = 30.0  # pixels between two numbers under the bars


def bar(*shares: tuple[float, str]) -> Markup:
    """Return shares side by side, each in its style, 100 units wide, to stretch over a cell."""
    parts, start = [svg.rect("trough", 0, 0, 100, 6)], 0.0
    for share, style in shares:
        width = 100 * min(1.0, max(0.0, share))
        parts.append(svg.rect(f"fill {style}", start, 0, width, 6))
        start += width
    return _cell_drawing(*parts)


def span(low: float, high: float, value: float, style: str = "s1") -> Markup:
    """Return an interval of shares with its value, 100 units wide, to stretch over a cell."""
    return _cell_drawing(
        svg.rect("trough", 0, 2, 100, 2),
        svg.rect(f"fill {style} reach", 100 * low, 1, 100 * (high - low), 4),
        svg.rect(f"fill {style}", min(98.5, 100 * value), 0, 1.5, 6),
    )


def _cell_drawing(*parts: Markup) -> Markup:
    return svg.element(
        "svg",
        *parts,
        class_="bar",
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def confidence_chart(right: Sequence[float], wrong: Sequence[float], *, bins: int = 20) -> Chart:
    """Draw how many messages were right and wrong by confidence."""
    low = min(0.9, max(0.0, min((*right, *wrong)) - 0.001) // 0.1 * 0.1)
    step = (1.0 - low) / bins
    counted = [[0] * bins, [0] * bins]
    for part, values in zip(counted, (right, wrong), strict=True):
        for value in values:
            part[min(bins - 1, int((value - low) / step + 1e-9))] += 1
    ticks = svg.nice_ticks(low, 1.0)
    frame = Frame()
    return _histogram(
        [
            (
                f"{numbers.percent(low + at * step)} to {numbers.percent(low + (at + 1) * step)}",
                *pair,
            )
            for at, pair in enumerate(zip(*counted, strict=True))
        ],
        ("right", "wrong"),
        Axis(low, 1.0, frame.left, frame.end, "confidence", ticks, svg.percent_writer(ticks)),
        title="How sure it was",
        caption="Messages by confidence. The height is a square-root scale, so that few are seen.",
        root=True,
    )


def length_chart(bins: Sequence[LengthBin], *, unit: str, title: str, caption: str) -> Chart:
    """Draw at least one bin, all side by side and equally wide, with what is shortened below."""
    frame = Frame()
    width = (frame.end - frame.left) / len(bins)
    apart = math.ceil(_LEAST_GAP / width)  # bins between two numbers that do not overlap
    return _histogram(
        [(_range(each), each.count - each.cut, each.cut) for each in bins],
        ("as they are", "shortened") if any(each.cut for each in bins) else ("messages",),
        Axis(
            *(0, len(bins), frame.left, frame.end, unit),
            ticks=tuple(range(1, len(bins) + 1, apart)),
            write=lambda at: numbers.count(bins[int(at) - 1].upto),
        ),
        title=title,
        caption=caption,
    )


def _range(each: LengthBin) -> str:
    low, high = numbers.count(each.above + 1), numbers.count(each.upto)
    return high if low == high else f"{low} to {high}"


def _histogram(
    bins: Sequence[tuple[str, int, int]],
    kinds: tuple[str, ...],
    x: Axis,
    *,
    title: str,
    caption: str,
    root: bool = False,
) -> Chart:
    """Draw bars of equal width along ``x``, each of two kinds of messages: (name, upper, lower).
    With ``root`` heights are square roots, for bars of very different sizes."""
    frame = Frame()
    power = 0.5 if root else 1.0
    most = max(upper + lower for _, upper, lower in bins) or 1
    ticks = _root_ticks(most) if root else svg.nice_ticks(0.0, most * 1.05)
    y = Axis(
        *(0.0, most**power * 1.05, frame.floor, frame.top, "messages"),
        ticks=tuple(tick**power for tick in ticks if tick == int(tick)),
        write=lambda height: numbers.count(height ** (1 / power)),
    )
    parts = [svg.axes(frame, x, y)]
    width = (frame.end - frame.left) / len(bins)
    for at, (name, upper, lower) in enumerate(bins):
        left, top, middle = (
            frame.left + at * width + 1,
            y((upper + lower) ** power),
            y(lower**power),
        )
        told = ", ".join(
            f"{numbers.count(count)} {kind}"
            for count, kind in zip((upper, lower), kinds, strict=False)
        )
        parts.append(
            svg.element(
                "g",
                svg.tooltip(f"{name} ({x.title}): {told}"),
                svg.rect("fill s1", left, top, width - 2, middle - top),
                svg.rect("fill s2", left, middle, width - 2, frame.floor - middle),
            )
        )
    return Chart(
        title=title,
        caption=caption,
        svg=svg.drawing(frame, f"{title}: histogram of {len(bins)} bars", *parts),
        columns=(x.title, *kinds),
        rows=tuple(
            (name, *map(numbers.count, (upper, lower)[: len(kinds)]))
            for name, upper, lower in bins
            if upper + lower
        ),
        legend=tuple(zip(("fill s1", "fill s2"), kinds, strict=False)) if len(kinds) > 1 else (),
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


def _names(name: str, left: float, top: float, middle: float) -> tuple[Markup, Markup]:
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
) -> Markup:
    parts = [
        svg.tooltip(text),
        svg.rect("cell", x, y, cell, cell),
    ]
    if number:
        parts.extend(
            (
                svg.rect(f"heat {'right' if right else 'wrong'}", x + 1, y + 1, cell - 2, cell - 2,
                         rx=3, fill_opacity=shade),
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
