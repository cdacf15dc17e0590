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


def _row(estimate: Estimate, scale: svg.Scale, y: float) -> Svg:
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
