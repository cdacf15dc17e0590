"""Lines over an axis, and intervals side by side, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.report import numbers, svg
from trainer.report.svg import Axis, Chart, Frame, Svg

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


@dataclass(frozen=True, slots=True)
class ForestRow:
    """A share with its 95 % interval; ``ours`` marks the adapter."""

    name: str
    value: float
    low: float
    high: float
    ours: bool = False


def forest_chart(
    estimates: Sequence[ForestRow], *, title: str, caption: str, x_title: str
) -> Chart:
    """Draw a row per estimate, the best on top, with a line down from the adapter's value."""
    ordered = sorted(estimates, key=lambda estimate: (-estimate.value, estimate.name))
    row = 46.0
    frame = Frame(460, 14 + row * len(ordered) + 48, 16, 24, 14, 48)
    low, high = svg.padded(
        [x for estimate in ordered for x in (estimate.low, estimate.high)], floor=0.0
    )
    ticks = tuple(t for t in svg.nice_ticks(low, high) if t <= 1)
    scale = frame.across(low, high)
    floor = frame.height - frame.bottom
    write = svg.percent_writer(ticks)
    parts = [
        svg.group(
            svg.element("line", class_="grid", x1=scale(t), x2=scale(t), y1=frame.top, y2=floor),
            svg.label(scale(t), floor + 18, write(t), class_="tick", text_anchor="middle"),
        )
        for t in ticks
    ]
    for estimate in ordered:
        if estimate.ours:
            at = scale(estimate.value)
            parts.append(svg.element("line", class_="mark", x1=at, x2=at, y1=frame.top, y2=floor))
    for at, estimate in enumerate(ordered):
        parts.append(_row(estimate, scale, frame.top + row * at + 16))
    parts.append(
        svg.label(frame.width / 2, frame.height - 8, x_title, class_="title", text_anchor="middle")
    )
    described = "; ".join(
        f"{estimate.name} {numbers.percent(estimate.value)}" for estimate in ordered
    )
    return Chart(
        title=title,
        caption=caption,
        svg=svg.drawing(frame, f"{title}. {described}", *parts),
        columns=("candidate", "accuracy", "95% interval"),
        rows=tuple(
            (
                estimate.name,
                numbers.percent(estimate.value),
                numbers.interval((estimate.low, estimate.high)),
            )
            for estimate in ordered
        ),
    )


def _row(estimate: ForestRow, scale: svg.Scale, y: float) -> Svg:
    style = "s1" if estimate.ours else "s5"
    low, high, value = scale(estimate.low), scale(estimate.high), scale(estimate.value)
    bounds = numbers.interval((estimate.low, estimate.high))
    line = y + 12
    return svg.element(
        "g",
        svg.tooltip(f"{estimate.name}: {numbers.percent(estimate.value)} (95% interval {bounds})"),
        svg.label(
            scale.start, y, estimate.name, class_="row-name ours" if estimate.ours else "row-name"
        ),
        svg.label(
            scale.end, y, numbers.percent(estimate.value), class_="row-name", text_anchor="end"
        ),
        svg.element("line", class_=f"whisker {style}", x1=low, x2=high, y1=line, y2=line),
        *(
            svg.element("line", class_=f"whisker {style}", x1=x, x2=x, y1=line - 4, y2=line + 4)
            for x in (low, high)
        ),
        svg.element(
            "circle", class_=f"dot {style}", cx=value, cy=line, r=5 if estimate.ours else 4
        ),
    )


@dataclass(frozen=True, slots=True)
class Bin:
    """Messages of like confidence: the mean of it, what share was right, its interval."""

    confidence: float
    accuracy: float
    low: float
    high: float
    count: int


def reliability_chart(bins: Sequence[Bin], *, caption: str) -> Chart:
    """Draw accuracy over confidence, with the line on which both agree."""
    frame = Frame()
    lowest = min(min(group.confidence, group.low) for group in bins)
    low = max(0.0, min(lowest - 0.02, 0.9))
    x_scale, y_scale = frame.across(low, 1.0), frame.up(low, 1.0)
    ticks = svg.nice_ticks(low, 1.0)
    write = svg.percent_writer(ticks)
    parts = [
        svg.axes(frame, Axis(x_scale, ticks, write, "confidence"),
                 Axis(y_scale, ticks, write, "share that was right")),
        svg.path([(x_scale(low), y_scale(low)), (x_scale(1.0), y_scale(1.0))], class_="ideal"),
    ]  # fmt: skip
    ordered = sorted(bins, key=lambda group: group.confidence)
    if len(ordered) > 1:
        parts.append(
            svg.path([(x_scale(group.confidence), y_scale(group.accuracy)) for group in ordered],
                     class_="line s1 faint")
        )  # fmt: skip
    for group in ordered:
        x = x_scale(group.confidence)
        text = (
            f"{numbers.counted(group.count, 'message')}, mean confidence "
            f"{numbers.percent(group.confidence)}: {numbers.percent(group.accuracy)} right "
            f"(95% interval {numbers.interval((group.low, group.high))})"
        )
        parts.extend(
            (
                svg.element("line", class_="whisker s1", x1=x, x2=x, y1=y_scale(group.low),
                            y2=y_scale(group.high)),
                svg.marker(x, y_scale(group.accuracy), "s1", text),
            )
        )  # fmt: skip
    return Chart(
        title="Reliability",
        caption=caption,
        svg=svg.drawing(
            frame, f"Reliability diagram of {len(bins)} bins of messages, by confidence", *parts
        ),
        columns=("mean confidence", "right", "95% interval", "messages"),
        rows=tuple(
            (
                numbers.percent(group.confidence),
                numbers.percent(group.accuracy),
                numbers.interval((group.low, group.high)),
                numbers.count(group.count),
            )
            for group in ordered
        ),
        legend=(("s1 line", "the adapter"), ("ideal line", "confidence that is exactly right")),
    )
