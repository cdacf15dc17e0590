"""Lines over time or over size: loss, scores by epoch, accuracy by number of examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.report.charts import svg
from trainer.report.charts.svg import Axis, Chart, Frame, Svg

STYLES = ("s1", "s2", "s3", "s4", "s5", "s6")
"""Colours that stay apart for colour-blind eyes (Okabe & Ito 2008), each with its own dash."""

MOST_POINTS = 400
"""A line of more points is averaged down: a page has no more pixels to show them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. ``marked`` draws a dot with a tooltip at each point; ``faint`` is background."""

    name: str
    points: tuple[tuple[float, float], ...]
    style: str
    marked: bool = True
    faint: bool = False


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
    table: tuple[tuple[str, ...], tuple[tuple[str, ...], ...]],
    write_y: Callable[[float], str],
    percent: bool = False,
    percent_x: bool = False,
    whole_x: bool = False,
    logarithmic: bool = False,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
    legend: Sequence[tuple[str, str]] = (),
    extra: Callable[[Frame, Axis, Axis], Svg] | None = None,
) -> Chart:
    """Draw lines over one pair of axes; ``table`` holds the same numbers in words."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = y_range or svg.padded(ys, floor=0.0, ceiling=1.0 if percent else None)
    y_ticks = svg.nice_ticks(low, high)
    y_written = (svg.percent_writer if percent else svg.tick_writer)(y_ticks)
    frame = Frame(left=max(56, 30 + 8 * max(len(y_written(tick)) for tick in y_ticks)))
    across = frame.across(*(x_range or _x_range(xs)), logarithmic=logarithmic)
    up = frame.up(low, high)
    ticks = _x_ticks(xs, across, whole=whole_x, logarithmic=logarithmic)
    if percent_x:
        write_x = svg.percent_writer(ticks)
    else:
        write_x = "{:,.0f}".format if logarithmic else svg.tick_writer(ticks)
    x = Axis(across, ticks, write_x, x_title)
    y = Axis(up, y_ticks, y_written, y_title)
    parts = [svg.axes(frame, x, y), *(_mark(frame, across, mark) for mark in marks)]
    parts.extend(_draw(line, x, y, write_y) for line in lines)
    if extra is not None:
        parts.append(extra(frame, x, y))
    described = "; ".join(_describe(line, write_y) for line in lines if not line.faint)
    return Chart(
        title=title,
        caption=caption,
        svg=svg.drawing(frame, f"{title}. {described}", *parts),
        columns=table[0],
        rows=table[1],
        legend=(*_legend(lines), *legend),
    )


def averaged(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
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


def _legend(lines: Sequence[Line]) -> tuple[tuple[str, str], ...]:
    if len(lines) == 1:
        return ()
    return tuple((f"{line.style} line{' faint' * line.faint}", line.name) for line in lines)


def _draw(line: Line, x: Axis, y: Axis, write_y: Callable[[float], str]) -> Svg:
    at = [(x.scale(px), y.scale(py)) for px, py in line.points]
    parts: list[Svg] = []
    if len(at) > 1:
        parts.append(svg.path(at, class_=f"line {line.style}{' faint' * line.faint}"))
    if line.marked:
        for (px, py), (vx, vy) in zip(at, line.points, strict=True):
            text = f"{line.name}: {write_y(vy)} at {x.write(vx)}"
            parts.append(svg.marker(px, py, line.style, text))
    return svg.group(*parts)


def _mark(frame: Frame, across: Callable[[float], float], mark: Mark) -> Svg:
    at = across(mark.x)
    late = at > frame.width * 0.6
    return svg.element(
        "g",
        svg.element("line", class_="mark", x1=at, x2=at, y1=frame.top,
                    y2=frame.height - frame.bottom),
        svg.label(at + (-5 if late else 5), frame.top + 11, mark.text, class_="note",
                  text_anchor="end" if late else "start"),
    )  # fmt: skip


def _x_range(xs: Sequence[float]) -> tuple[float, float]:
    low, high = min(xs), max(xs)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _x_ticks(
    xs: Sequence[float], scale: svg.Scale, *, whole: bool, logarithmic: bool
) -> tuple[float, ...]:
    if logarithmic or (whole and len(set(xs)) <= 8):
        wanted = sorted(set(xs))
        kept = wanted[:1]
        for value in wanted[1:]:
            if scale(value) - scale(kept[-1]) >= 40:
                kept.append(value)
        return tuple(kept)
    ticks = svg.nice_ticks(scale.low, scale.high)
    return tuple(tick for tick in ticks if not whole or tick == int(tick))


def _describe(line: Line, write_y: Callable[[float], str]) -> str:
    first, last = line.points[0][1], line.points[-1][1]
    if len(line.points) == 1:
        return f"{line.name}: {write_y(last)}"
    trend = "falls" if last < first else "rises" if last > first else "stays"
    return f"{line.name} {trend} from {write_y(first)} to {write_y(last)}"
