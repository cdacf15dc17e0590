"""Values with their intervals: a forest plot, and reliability by confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.report import numbers
from trainer.report.charts import svg
from trainer.report.charts.svg import Axis, Chart, Frame, Svg


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95 % interval; ``ours`` marks the adapter."""

    name: str
    value: float
    low: float
    high: float
    ours: bool = False


def forest_chart(estimates: Sequence[Estimate], *, title: str, caption: str, x_title: str) -> Chart:
    """Draw a row per estimate, the best on top, with a line down from the adapter's value."""
    ordered = sorted(estimates, key=lambda one: (-one.value, one.name))
    row = 46.0
    frame = Frame(460, 14 + row * len(ordered) + 48, 16, 24, 14, 48)
    low, high = svg.padded([x for one in ordered for x in (one.low, one.high)], floor=0.0)
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
    for one in ordered:
        if one.ours:
            at = scale(one.value)
            parts.append(svg.element("line", class_="mark", x1=at, x2=at, y1=frame.top, y2=floor))
    for at, one in enumerate(ordered):
        parts.append(_row(one, scale, frame.top + row * at + 16))
    parts.append(
        svg.label(frame.width / 2, frame.height - 8, x_title, class_="title", text_anchor="middle")
    )
    described = "; ".join(f"{one.name} {numbers.percent(one.value)}" for one in ordered)
    return Chart(
        title=title,
        caption=caption,
        svg=svg.drawing(frame, f"{title}. {described}", *parts),
        columns=("candidate", "accuracy", "95% interval"),
        rows=tuple(
            (o.name, numbers.percent(o.value), numbers.interval((o.low, o.high))) for o in ordered
        ),
    )


def _row(one: Estimate, scale: svg.Scale, y: float) -> Svg:
    style = "s1" if one.ours else "s5"
    low, high, value = scale(one.low), scale(one.high), scale(one.value)
    bounds = numbers.interval((one.low, one.high))
    line = y + 12
    return svg.element(
        "g",
        svg.tooltip(f"{one.name}: {numbers.percent(one.value)} (95% interval {bounds})"),
        svg.label(scale.start, y, one.name, class_="row-name ours" if one.ours else "row-name"),
        svg.label(scale.end, y, numbers.percent(one.value), class_="row-name", text_anchor="end"),
        svg.element("line", class_=f"whisker {style}", x1=low, x2=high, y1=line, y2=line),
        *(
            svg.element("line", class_=f"whisker {style}", x1=x, x2=x, y1=line - 4, y2=line + 4)
            for x in (low, high)
        ),
        svg.element("circle", class_=f"dot {style}", cx=value, cy=line, r=5 if one.ours else 4),
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
    lowest = min(min(one.confidence, one.low) for one in bins)
    low = max(0.0, min(lowest - 0.02, 0.9))
    x_scale, y_scale = frame.across(low, 1.0), frame.up(low, 1.0)
    ticks = svg.nice_ticks(low, 1.0)
    write = svg.percent_writer(ticks)
    parts = [
        svg.axes(frame, Axis(x_scale, ticks, write, "confidence"),
                 Axis(y_scale, ticks, write, "share that was right")),
        svg.path([(x_scale(low), y_scale(low)), (x_scale(1.0), y_scale(1.0))], class_="ideal"),
    ]  # fmt: skip
    ordered = sorted(bins, key=lambda one: one.confidence)
    if len(ordered) > 1:
        parts.append(
            svg.path([(x_scale(o.confidence), y_scale(o.accuracy)) for o in ordered],
                     class_="line s1 faint")
        )  # fmt: skip
    for one in ordered:
        x = x_scale(one.confidence)
        text = (
            f"{numbers.counted(one.count, 'message')}, mean confidence "
            f"{numbers.percent(one.confidence)}: {numbers.percent(one.accuracy)} right "
            f"(95% interval {numbers.interval((one.low, one.high))})"
        )
        parts.extend(
            (
                svg.element("line", class_="whisker s1", x1=x, x2=x, y1=y_scale(one.low),
                            y2=y_scale(one.high)),
                svg.marker(x, y_scale(one.accuracy), "s1", text),
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
                numbers.percent(o.confidence),
                numbers.percent(o.accuracy),
                numbers.interval((o.low, o.high)),
                numbers.count(o.count),
            )
            for o in ordered
        ),
        legend=(("s1 line", "the adapter"), ("ideal line", "confidence that is exactly right")),
    )
