"""SVG as text: elements with every attribute and text escaped, scales, ticks and axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure: its drawing, its legend as (style, words), and the same numbers as a table.

    ``least_width`` is the width in pixels below which the figure scrolls inside its box.
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
    """A straight or logarithmic map from values to pixels, with its ticks, how they are written,
    and what is measured."""

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
    """Return one element. ``class_`` is class, an underscore in a name becomes a hyphen, numbers
    keep two decimals, and None leaves the attribute out."""
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


def label(x: float, y: float, text: str, **attributes: object) -> Markup:
    """Return a text element at a point."""
    return element("text", escape(text), x=float(x), y=float(y), **attributes)


def tooltip(text: str) -> Markup:
    """Return what a pointer that rests on the element reads."""
    return element("title", escape(text))


def rect(style: str, x: float, y: float, width: float, height: float, **more: object) -> Markup:
    """Return a filled rectangle."""
    return element("rect", class_=style, x=x, y=y, width=width, height=height, **more)


def line(style: str, start: tuple[float, float], end: tuple[float, float]) -> Markup:
    """Return a straight line."""
    (x1, y1), (x2, y2) = start, end
    return element("line", class_=style, x1=x1, x2=x2, y1=y1, y2=y2)


def drawing(frame: Frame, describe: str, *children: Markup) -> Markup:
    """Return the whole drawing, with a name for those who do not see it."""
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
        parts.append(line("grid", (frame.left, at), (frame.end, at)))
        parts.append(label(frame.left - 8, at + 4, y.write(tick), class_="tick", text_anchor="end"))
    parts.append(line("axis", (frame.left, floor), (frame.end, floor)))
    for tick in x.ticks:
        at = x(tick)
        parts.append(line("axis", (at, floor), (at, floor + 4)))
        parts.append(label(at, floor + 18, x.write(tick), class_="tick", text_anchor="middle"))
    middle = (frame.left + frame.end) / 2
    parts.append(label(middle, frame.height - 8, x.title, class_="title", text_anchor="middle"))
    place = f"translate(13 {_number((frame.top + floor) / 2)}) rotate(-90)"
    parts.append(label(0, 0, y.title, class_="title", text_anchor="middle", transform=place))
    return element("g", *parts)


def path(points: Sequence[tuple[float, float]], style: str) -> Markup:
    """Return a line through the points, which are in pixels."""
    steps = "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
    return element("path", d=f"M{steps}", class_=style)


def nice_ticks(low: float, high: float, wanted: int = 5) -> tuple[float, ...]:
    """Return round values (steps of 1, 2, 2.5 or 5 times a power of ten) inside the range."""
    span = high - low
    if span <= 0:
        return (low,)
    power = 10 ** math.floor(math.log10(span / wanted))
    step = next((n * power for n in (1, 2, 2.5, 5) if span / (n * power) <= wanted), 10 * power)
    first = math.ceil(low / step - 1e-9)
    ticks = []
    while (at := first * step) <= high + step * 1e-9:
        ticks.append(round(at, 12))
        first += 1
    return tuple(ticks)


def padded(values: Sequence[float], *, floor: float | None = None, ceiling: float | None = None,
           share: float = 0.08) -> tuple[float, float]:  # fmt: skip
    """Return a range around the values with some air, kept inside the floor and the ceiling."""
    low, high = min(values), max(values)
    air = (high - low) * share or abs(high) * share or 1.0
    low, high = low - air, high + air
    if floor is not None:
        low = max(low, floor)
    if ceiling is not None:
        high = min(high, ceiling)
    return low, high


def tick_writer(ticks: Sequence[float]) -> Callable[[float], str]:
    """Return a function that writes ticks with just the decimals that tell them apart."""
    gap = min((b - a for a, b in pairwise(ticks)), default=1.0)
    if gap < 1e-3:
        return lambda value: f"{value:.1e}".replace("e-0", "e-") if value else "0"
    digits = max(0, -math.floor(math.log10(gap) + 1e-9))
    if any(abs(round(tick, digits) - tick) > gap * 1e-6 for tick in ticks):
        digits += 1
    return lambda value: f"{value:,.{digits}f}"


def percent_writer(ticks: Sequence[float]) -> Callable[[float], str]:
    """Return a function that writes shares as percentages, likewise."""
    write = tick_writer([100 * tick for tick in ticks])
    return lambda value: f"{write(100 * value)}%"


def _number(value: float) -> str:
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
