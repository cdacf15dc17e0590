"""How many messages are how long, as bars over lengths that double."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.report import numbers, svg
from trainer.report.svg import Axis, Chart, Frame, Svg
from trainer.statistics.lengths import LengthBin

_LEAST_GAP = 30.0  # pixels between two numbers under the bars


def length_chart(bins: Sequence[LengthBin], *, unit: str, title: str, caption: str) -> Chart:
    """Draw at least one bin, all side by side and equally wide, with what is shortened on top."""
    frame = Frame()
    most = max(each.count for each in bins) or 1
    up = frame.up(0.0, most * 1.05)
    width = (frame.width - frame.left - frame.right) / len(bins)
    edges = frame.across(0.0, float(len(bins)))
    ticks = tuple(tick for tick in svg.nice_ticks(0.0, most * 1.05) if tick == int(tick))
    y = Axis(up, ticks, numbers.count, "messages")
    parts: list[Svg] = [svg.axes(frame, Axis(edges, (), str, unit), y)]
    floor = frame.height - frame.bottom
    last = -_LEAST_GAP
    for at, each in enumerate(bins):
        left = frame.left + at * width
        parts.append(_bar(each, left + 1, width - 2, up, unit))
        end = left + width
        if end - last >= _LEAST_GAP:
            written = numbers.count(each.upto)
            parts.append(svg.label(end, floor + 18, written, class_="tick", text_anchor="middle"))
            last = end
    cut = any(each.cut for each in bins)
    columns = (unit, "messages", *(("shortened",) if cut else ()))
    return Chart(
        title=title,
        caption=caption,
        svg=svg.drawing(frame, f"{title}: histogram over {len(bins)} lengths", *parts),
        columns=columns,
        rows=tuple(
            (
                _range(each),
                numbers.count(each.count),
                *((numbers.count(each.cut),) if cut else ()),
            )
            for each in bins
        ),
        legend=(("fill s1", "as they are"), ("fill s2", "shortened")) if cut else (),
    )


def _bar(each: LengthBin, left: float, width: float, up: svg.Scale, unit: str) -> Svg:
    floor, top, cut = up(0.0), up(each.count), up(each.cut)
    text = f"{_range(each)} {unit}: {numbers.counted(each.count, 'message')}"
    if each.cut:
        text += f", {numbers.count(each.cut)} of them shortened"
    return svg.element(
        "g",
        svg.tooltip(text),
        svg.element("rect", class_="fill s1", x=left, y=top, width=width,
                    height=max(0.0, cut - top)),
        svg.element("rect", class_="fill s2", x=left, y=cut, width=width, height=floor - cut),
    )  # fmt: skip


def _range(each: LengthBin) -> str:
    low, high = numbers.count(each.above + 1), numbers.count(each.upto)
    return high if low == high else f"{low} to {high}"
