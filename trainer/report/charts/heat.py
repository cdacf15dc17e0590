"""The confusion matrix as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.report import numbers
from trainer.report.charts import svg
from trainer.report.charts.svg import Chart, Frame, Svg

_CELLS_WIDTH = 600
_CHARACTER = 6.6  # pixels of a character of the tick font, on average
_DARK, _MIDDLE = 0.72, 0.55  # shades from which on a theme writes in the other ink


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
