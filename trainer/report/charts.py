"""Charts as SVG text: lines, a confusion matrix, and bars for table cells.

Every attribute and text is escaped. Colours are classes of the page's style sheet, so a chart
follows the reader's light or dark theme. Each chart has its numbers as a table too.
"""

# Drawn by hand. Matplotlib's SVG was tried: 75 MB in eight packages, drawings six times as large,
# no tooltips, labels that overlap on a logarithmic axis, and text measured in another font than the
# page's. Charts that decide nothing went; their figures are in the text and the tables.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from trainer import numbers


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its legend as (style, words) and its numbers as a table.

    Below ``least_width`` pixels the drawing scrolls inside its box.
    """

    title: str
    caption: str
    svg: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[tuple[str, str], ...] = ()
    least_width: int = 0


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic map from values to pixels, with ticks, their format, and a title."""

    low: float
    high: float
    start: float
    end: float
    title: str
    ticks: tuple[float, ...] = ()
    write: Callable[[float], str] = str
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of ``value``."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Frame:
    """A drawing's size and margins, in pixels."""

    width: float = 460
    height: float = 290
    left: float = 56
    right: float = 26
    top: float = 14
    bottom: float = 48

    @property
    def end(self) -> float:
        """The pixel where the right margin begins."""
        return self.width - self.right

    @property
    def floor(self) -> float:
        """The pixel where the lower margin begins."""
        return self.height - self.bottom


def element(name: str, *children: Markup, **attributes: object) -> Markup:
    """Return an SVG element. In attribute names a trailing underscore is dropped and others become
    hyphens; None leaves an attribute out."""
    parts = [name]
    for key, value in attributes.items():
        if value is None:
            continue
        written = _number(value) if isinstance(value, float) else str(value)
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(written)}"')
    opening = " ".join(parts)
    if not children:
        return Markup(f"<{opening}/>")  # noqa: S704 - every attribute is escaped above
    return Markup(f"<{opening}>{''.join(children)}</{name}>")  # noqa: S704 - children are markup


def _label(x: float, y: float, text: str, **attributes: object) -> Markup:
    return element("text", escape(text), x=float(x), y=float(y), **attributes)


def _tooltip(text: str) -> Markup:
    return element("title", escape(text))


def _rect(style: str, x: float, y: float, width: float, height: float, **more: object) -> Markup:
    return element("rect", class_=style, x=x, y=y, width=width, height=height, **more)


def _stroke(style: str, start: tuple[float, float], end: tuple[float, float]) -> Markup:
    (x1, y1), (x2, y2) = start, end
    return element("line", class_=style, x1=x1, x2=x2, y1=y1, y2=y2)


def drawing(frame: Frame, describe: str, *children: Markup) -> Markup:
    """Return the whole drawing; ``describe`` is its description for screen readers."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {_number(frame.width)} {_number(frame.height)}",
        role="img",
        aria_label=describe,
        preserveAspectRatio="xMidYMid meet",
        style=f"max-width:{_number(frame.width * 1.15)}px",
    )


def axes(frame: Frame, x: Axis, y: Axis) -> Markup:
    """Return grid lines, tick labels and the two titles."""
    parts: list[Markup] = []
    floor = frame.floor
    for tick in y.ticks:
        at = y(tick)
        parts.append(_stroke("grid", (frame.left, at), (frame.end, at)))
        parts.append(
            _label(frame.left - 8, at + 4, y.write(tick), class_="tick", text_anchor="end")
        )
    parts.append(_stroke("axis", (frame.left, floor), (frame.end, floor)))
    for tick in x.ticks:
        at = x(tick)
        parts.append(_stroke("axis", (at, floor), (at, floor + 4)))
        parts.append(_label(at, floor + 18, x.write(tick), class_="tick", text_anchor="middle"))
    middle = (frame.left + frame.end) / 2
    parts.append(_label(middle, frame.height - 8, x.title, class_="title", text_anchor="middle"))
    place = f"translate(13 {_number((frame.top + floor) / 2)}) rotate(-90)"
    parts.append(_label(0, 0, y.title, class_="title", text_anchor="middle", transform=place))
    return element("g", *parts)


def path(points: Sequence[tuple[float, float]], style: str) -> Markup:
    """Return a line through points in pixels."""
    steps = "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
    return element("path", d=f"M{steps}", class_=style)


_MOST_TICKS = 5


def nice_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return round values (steps of 1, 2, 2.5 or 5 times a power of ten) inside the range."""
    span = high - low
    if span <= 0:
        return (low,)
    power = 10 ** math.floor(math.log10(span / _MOST_TICKS))
    step = next(
        (n * power for n in (1, 2, 2.5, 5) if span / (n * power) <= _MOST_TICKS), 10 * power
    )
    # With a margin for rounding, which must not drop a tick at either end of the range.
    first = math.ceil(low / step - 1e-9)
    ticks = []
    while (at := first * step) <= high + step * 1e-9:
        ticks.append(round(at, 12))
        first += 1
    return tuple(ticks)


def _padded(values: Sequence[float], ceiling: float) -> tuple[float, float]:
    """Return a range a little larger than that of the values, within 0 and the ceiling."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
    return max(low - margin, 0.0), min(high + margin, ceiling)


def tick_writer(ticks: Sequence[float]) -> Callable[[float], str]:
    """Return a function that writes ticks with as many decimals as distinguish them."""
    gap = min((b - a for a, b in pairwise(ticks)), default=1.0)
    if gap < 1e-3:
        return lambda value: f"{value:.1e}".replace("e-0", "e-") if value else "0"
    digits = max(0, -math.floor(math.log10(gap) + 1e-9))
    # Steps of 2.5 need a decimal more than their size says.
    if any(abs(round(tick, digits) - tick) > gap * 1e-6 for tick in ticks):
        digits += 1
    return lambda value: f"{value:,.{digits}f}"


def percent_writer(ticks: Sequence[float]) -> Callable[[float], str]:
    """Return the same as ``tick_writer`` for shares, written as percentages."""
    write = tick_writer([100 * tick for tick in ticks])
    return lambda value: f"{write(100 * value)}%"


def _number(value: float) -> str:
    # A hundredth of a pixel cannot be seen, and every further digit makes the page larger.
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


STYLES = ("s1", "s2", "s3", "s4", "s5", "s6")
"""Colours that colour-blind readers can distinguish (Okabe & Ito 2008), each with its own dash."""

MOST_POINTS = 400
"""Longer lines are averaged down: a chart has no more pixels than that."""

_MOST_ROWS = 12

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line. ``marked`` draws a dot with a tooltip at each point, ``spans`` an interval at each
    point; ``faint`` lines are background."""

    name: str
    points: Points
    style: str
    marked: bool = True
    faint: bool = False
    spans: Points = ()


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
    marks: Sequence[tuple[float, str]] = (),
    table: tuple[tuple[str, ...], tuple[tuple[str, ...], ...]] | None = None,
) -> Chart:
    """Draw lines over one pair of axes.

    x values are shares with ``percent_x``, else whole numbers; y values are shares with
    ``percent``. ``marks`` are vertical lines at a value of x, each with a label. ``table`` is
    (columns, rows), by default the values of the marked lines, or twelve values if no line is
    marked.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = y_range or _padded(ys, 1.0 if percent else math.inf)
    y_ticks = nice_ticks(low, high)
    y_written = (percent_writer if percent else tick_writer)(y_ticks)
    # SVG cannot measure text before it is drawn: 8 pixels a character are enough.
    frame = Frame(left=max(56, 30 + 8 * max(len(y_written(tick)) for tick in y_ticks)))
    first, last = x_range or (min(xs), max(xs))
    if first == last:
        first, last = first - 0.5, last + 0.5
    bare = Axis(first, last, frame.left, frame.end, x_title, logarithmic=logarithmic)
    ticks = nice_ticks(first, last) if percent_x else _whole_ticks(xs, bare)
    write_x = percent_writer(ticks) if percent_x else numbers.count
    x = Axis(first, last, frame.left, frame.end, x_title, ticks, write_x, logarithmic)
    y = Axis(low, high, frame.floor, frame.top, y_title, y_ticks, y_written)
    parts = [axes(frame, x, y), *(_mark(frame, x(at), text) for at, text in marks)]
    parts.extend(_draw(line, x, y, write_y) for line in lines)
    described = "; ".join(_describe(line, write_y) for line in lines if not line.faint)
    legend = [(f"{line.style} line{' faint' * line.faint}", line.name) for line in lines]
    columns, rows = table or _tabled(lines, x, write_y)
    return Chart(
        title=title,
        caption=caption,
        svg=drawing(frame, f"{title}. {described}", *parts),
        columns=columns,
        rows=rows,
        legend=tuple(legend) if len(legend) > 1 else (),
    )


def averaged(points: Sequence[tuple[float, float]]) -> Points:
    """Return at most ``MOST_POINTS`` points, neighbours replaced by their mean."""
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
        # Equally far to both sides at the ends too, or the mean would be pulled into the curve's
        # inside.
        reach = min(half, at, len(points) - 1 - at)
        low, high = at - reach, at + reach + 1
        result.append((x, (sums[high] - sums[low]) / (high - low)))
    return result


def _draw(line: Line, x: Axis, y: Axis, write_y: Callable[[float], str]) -> Markup:
    at = [(x(px), y(py)) for px, py in line.points]
    parts: list[Markup] = []
    if len(at) > 1:
        parts.append(path(at, f"line {line.style}{' faint' * line.faint}"))
    for (px, _), (low, high) in zip(at, line.spans, strict=False):
        parts.append(_stroke(f"whisker {line.style}", (px, y(low)), (px, y(high))))
    for (px, py), (vx, vy) in zip(at, line.points, strict=True):
        if not line.marked:
            break
        # The larger circle is transparent: a dot of 4 pixels is hard to hit with a finger.
        parts.append(
            element(
                "g",
                _tooltip(f"{line.name}: {write_y(vy)} at {x.write(vx)}"),
                element("circle", cx=px, cy=py, r=11, class_="hit-area"),
                element("circle", cx=px, cy=py, r=4, class_=f"dot {line.style}"),
            )
        )
    return element("g", *parts)


def _mark(frame: Frame, at: float, text: str) -> Markup:
    # A label to the right of a mark near the right edge would leave the drawing.
    late = at > frame.width * 0.6
    anchor = "end" if late else "start"
    place = at + (-5 if late else 5)
    return element(
        "g",
        _stroke("mark", (at, frame.top), (at, frame.floor)),
        _label(place, frame.top + 11, text, class_="note", text_anchor=anchor),
    )


def _whole_ticks(xs: Sequence[float], scale: Axis) -> tuple[float, ...]:
    wanted = sorted(set(xs))
    if not scale.logarithmic and len(wanted) > 8:
        ticks = nice_ticks(scale.low, scale.high)
        return tuple(tick for tick in ticks if tick == int(tick))
    kept = wanted[:1]
    for value in wanted[1:]:
        # Labels of ticks that are closer than 40 pixels overlap.
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


STYLE_OF_SPLIT = ("s1", "s3", "s5")
"""The styles of training, validation and hold-out."""

_CELLS_WIDTH = 600
_CHARACTER = 6.6  # pixels of a character of the tick font, on average
_DARK, _MIDDLE = 0.72, 0.55  # from these shades on a cell needs a contrasting text colour


def bar(*shares: tuple[float, str]) -> Markup:
    """Return a stacked bar of (share, style) pairs that stretches over a table cell."""
    parts, start = [_rect("trough", 0, 0, 100, 6)], 0.0
    for share, style in shares:
        width = 100 * min(1.0, max(0.0, share))
        parts.append(_rect(f"fill {style}", start, 0, width, 6))
        start += width
    return _cell_drawing(*parts)


def span(low: float, high: float, value: float, style: str = "s1") -> Markup:
    """Return an interval of shares with its value that stretches over a table cell."""
    return _cell_drawing(
        _rect("trough", 0, 2, 100, 2),
        _rect(f"fill {style} reach", 100 * low, 1, 100 * (high - low), 4),
        _rect(f"fill {style}", min(98.5, 100 * value), 0, 1.5, 6),
    )


def _cell_drawing(*parts: Markup) -> Markup:
    return element(
        "svg",
        *parts,
        class_="bar",
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def confusion_chart(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> Chart:
    """Draw messages by true label (rows) and given label (columns)."""
    # Right answers and mistakes have separate hues and scales; on one scale the diagonal would hide
    # every mistake. A mistake's shade is the square root of its count over the largest count, so a
    # cell of 2 is still visible next to a cell of 20.
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
        _label(left + side / 2, 14, "the adapter answered", class_="title",
                  text_anchor="middle"),
        _label(0, 0, "the label is", class_="title", text_anchor="middle",
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
            "the row. Orange: wrong, shaded by the count, on a separate scale."
        ),
        svg=drawing(
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
    """Return a label's name next to its row and its name above its column."""
    place = f"translate({left + middle:.1f} {top - 8:.1f}) rotate(-38)"
    return (
        _label(left - 8, top + middle + 4, name, class_="tick", text_anchor="end"),
        _label(0, 0, name, class_="tick", transform=place),
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
        _tooltip(text),
        _rect("cell", x, y, cell, cell),
    ]
    if number:
        parts.extend(
            (
                _rect(f"heat {'right' if right else 'wrong'}", x + 1, y + 1, cell - 2, cell - 2,
                         rx=3, fill_opacity=shade),
                _label(x + cell / 2, y + cell / 2 + 4, str(number), text_anchor="middle",
                          class_=f"in-cell {_ink(shade)}".strip()),
            )
        )  # fmt: skip
    return element("g", *parts)


def _explain(labels: Sequence[str], i: int, j: int, number: int, total: int) -> str:
    share = numbers.percent(number / total) if total else numbers.NONE
    if i == j:
        return f"{labels[i]}: {number} of {total} right ({share})"
    return f"{labels[i]} answered as {labels[j]}: {number} of {total} ({share})"
