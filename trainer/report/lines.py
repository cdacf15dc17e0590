"""Lines over an axis as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from trainer import numbers
from trainer.report import svg
from trainer.report.svg import Axis, Chart, Frame

STYLES = ("s1", "s2", "s3", "s4", "s5", "s6")
"""Colours that stay apart for colour-blind eyes (Okabe & Ito 2008), each with its own dash."""

MOST_POINTS = 400
"""A line of more points is averaged down: a page has no more pixels to show them."""

_MOST_ROWS = 12

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line. ``marked`` draws a dot with a tooltip at each point, ``spans`` an interval through
    each; ``faint`` is background."""

    name: str
    points: Points
    style: str
    marked: bool = True
    faint: bool = False
    spans: Points = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at a value of x, with a word."""

    x: float
    text: str


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    caption: str,
    x_title: str,
    y_title: str,
    write_y: Callable[[float], str],
    percent: bool = False,
    percent_x: bool = False,
    logarithmic: bool = False,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
    table: tuple[tuple[str, ...], tuple[tuple[str, ...], ...]] | None = None,
) -> Chart:
    """Draw lines over one pair of axes. x is shares with ``percent_x``, else whole numbers; the
    axis of y is shares with ``percent``. ``table`` holds the same in words, by default the values
    of the marked lines, or a dozen of them where none is marked."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = y_range or svg.padded(ys, floor=0.0, ceiling=1.0 if percent else None)
    y_ticks = svg.nice_ticks(low, high)
    y_written = (svg.percent_writer if percent else svg.tick_writer)(y_ticks)
    frame = Frame(left=max(56, 30 + 8 * max(len(y_written(tick)) for tick in y_ticks)))
    first, last = x_range or (min(xs), max(xs))
    if first == last:
        first, last = first - 0.5, last + 0.5
    bare = Axis(first, last, frame.left, frame.end, x_title, logarithmic=logarithmic)
    ticks = svg.nice_ticks(first, last) if percent_x else _whole_ticks(xs, bare)
    write_x = svg.percent_writer(ticks) if percent_x else numbers.count
    x = Axis(first, last, frame.left, frame.end, x_title, ticks, write_x, logarithmic)
    y = Axis(low, high, frame.floor, frame.top, y_title, y_ticks, y_written)
    parts = [svg.axes(frame, x, y), *(_mark(frame, x(mark.x), mark.text) for mark in marks)]
    parts.extend(_draw(line, x, y, write_y) for line in lines)
    described = "; ".join(_describe(line, write_y) for line in lines if not line.faint)
    legend = [(f"{line.style} line{' faint' * line.faint}", line.name) for line in lines]
    columns, rows = table or _tabled(lines, x, write_y)
    return Chart(
        title=title,
        caption=caption,
        svg=svg.drawing(frame, f"{title}. {described}", *parts),
        columns=columns,
        rows=rows,
        legend=tuple(legend) if len(legend) > 1 else (),
    )


def averaged(points: Sequence[tuple[float, float]]) -> Points:
    """Return at most ``MOST_POINTS`` points: neighbours are replaced by their mean."""
    size = -(-len(points) // MOST_POINTS)
    chunks = [points[at : at + size] for at in range(0, len(points), size or 1)]
    return tuple(
        (sum(x for x, _ in chunk) / len(chunk), sum(y for _, y in chunk) / len(chunk))
        for chunk in chunks
    )


def smoothed(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Return the centred moving mean over ``window`` points, fewer at both ends."""
    half = window // 2
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    result = []
    for at, (x, _) in enumerate(points):
        reach = min(half, at, len(points) - 1 - at)
        low, high = at - reach, at + reach + 1
        result.append((x, (sums[high] - sums[low]) / (high - low)))
    return result


def _draw(line: Line, x: Axis, y: Axis, write_y: Callable[[float], str]) -> Markup:
    at = [(x(px), y(py)) for px, py in line.points]
    parts: list[Markup] = []
    if len(at) > 1:
        parts.append(svg.path(at, f"line {line.style}{' faint' * line.faint}"))
    for (px, _), (low, high) in zip(at, line.spans, strict=False):
        parts.append(svg.line(f"whisker {line.style}", (px, y(low)), (px, y(high))))
    for (px, py), (vx, vy) in zip(at, line.points, strict=True):
        if not line.marked:
            break
        # The larger circle is transparent: a dot of 4 pixels is hard to hit with a finger.
        parts.append(
            svg.element(
                "g",
                svg.tooltip(f"{line.name}: {write_y(vy)} at {x.write(vx)}"),
                svg.element("circle", cx=px, cy=py, r=11, class_="hit-area"),
                svg.element("circle", cx=px, cy=py, r=4, class_=f"dot {line.style}"),
            )
        )
    return svg.element("g", *parts)


def _mark(frame: Frame, at: float, text: str) -> Markup:
    late = at > frame.width * 0.6
    anchor = "end" if late else "start"
    place = at + (-5 if late else 5)
    return svg.element(
        "g",
        svg.line("mark", (at, frame.top), (at, frame.floor)),
        svg.label(place, frame.top + 11, text, class_="note", text_anchor=anchor),
    )


def _whole_ticks(xs: Sequence[float], scale: Axis) -> tuple[float, ...]:
    wanted = sorted(set(xs))
    if not scale.logarithmic and len(wanted) > 8:
        ticks = svg.nice_ticks(scale.low, scale.high)
        return tuple(tick for tick in ticks if tick == int(tick))
    kept = wanted[:1]
    for value in wanted[1:]:
        if scale(value) - scale(kept[-1]) >= 40:
            kept.append(value)
    return tuple(kept)


def _tabled(
    lines: Sequence[Line], x: Axis, write_y: Callable[[float], str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    marked = [line for line in lines if line.marked]
    xs = sorted({at for line in marked or lines for at, _ in line.points})
    if not marked:
        xs = xs[:: -(-len(xs) // _MOST_ROWS)]
    values = [dict(line.points) for line in marked or lines]
    rows = tuple(
        (x.write(at), *(write_y(each[at]) if at in each else numbers.NONE for each in values))
        for at in xs
    )
    return (x.title, *(line.name for line in marked or lines)), rows


def _describe(line: Line, write_y: Callable[[float], str]) -> str:
    first, last = line.points[0][1], line.points[-1][1]
    if len(line.points) == 1:
        return f"{line.name}: {write_y(last)}"
    trend = "falls" if last < first else "rises" if last > first else "stays"
    return f"{line.name} {trend} from {write_y(first)} to {write_y(last)}"
