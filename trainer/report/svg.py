"""SVG as text: elements with every attribute and text escaped, scales, ticks and axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import NewType

Svg = NewType("Svg", str)
"""Markup that is safe to put into a page: made here alone, by escaping."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure: its drawing, its legend as (style, words), and the same numbers as a table.

    ``least_width`` is the width in pixels below which the figure scrolls inside its box.
    """

    title: str
    caption: str
    svg: Svg
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[tuple[str, str], ...] = ()
    least_width: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight or logarithmic map from values to pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of ``value``."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with its ticks, how they are written, and what is measured."""

    scale: Scale
    ticks: tuple[float, ...]
    write: Callable[[float], str]
    title: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A drawing's size and margins, in pixels."""

    width: float = 460
    height: float = 290
    left: float = 56
    right: float = 26
    top: float = 14
    bottom: float = 48

    def across(self, low: float, high: float, *, logarithmic: bool = False) -> Scale:
        """Return the horizontal scale."""
        return Scale(low, high, self.left, self.width - self.right, logarithmic)

    def up(self, low: float, high: float) -> Scale:
        """Return the vertical scale, which grows upwards."""
        return Scale(low, high, self.height - self.bottom, self.top)


def element(name: str, *children: Svg, **attributes: object) -> Svg:
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
        return Svg(f"<{opening}/>")
    return Svg(f"<{opening}>{''.join(children)}</{name}>")


def group(*children: Svg) -> Svg:
    """Return elements as one, nothing where there are none."""
    return element("g", *children) if children else Svg("")


def words(text: str) -> Svg:
    """Return text as markup."""
    return Svg(escape(text))


def label(x: float, y: float, text: str, **attributes: object) -> Svg:
    """Return a text element at a point."""
    return element("text", words(text), x=float(x), y=float(y), **attributes)


def tooltip(text: str) -> Svg:
    """Return what a pointer that rests on the element reads."""
    return element("title", words(text))


def drawing(frame: Frame, describe: str, *children: Svg) -> Svg:
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


def axes(frame: Frame, x: Axis, y: Axis) -> Svg:
    """Return grid lines, tick labels and the two titles."""
    parts: list[Svg] = []
    floor = frame.height - frame.bottom
    for tick in y.ticks:
        at = y.scale(tick)
        parts.extend(
            (
                element("line", class_="grid", x1=frame.left, x2=frame.width - frame.right,
                        y1=at, y2=at),
                label(frame.left - 8, at + 4, y.write(tick), class_="tick", text_anchor="end"),
            )
        )  # fmt: skip
    parts.append(
        element("line", class_="axis", x1=frame.left, x2=frame.width - frame.right,
                y1=float(floor), y2=float(floor))
    )  # fmt: skip
    for tick in x.ticks:
        at = x.scale(tick)
        parts.extend(
            (
                element("line", class_="axis", x1=at, x2=at, y1=float(floor), y2=floor + 4.0),
                label(at, floor + 18, x.write(tick), class_="tick", text_anchor="middle"),
            )
        )
    middle = (frame.left + frame.width - frame.right) / 2
    parts.extend(
        (
            label(middle, frame.height - 8, x.title, class_="title", text_anchor="middle"),
            label(0, 0, y.title, class_="title", text_anchor="middle",
                  transform=f"translate(13 {_number((frame.top + floor) / 2)}) rotate(-90)"),
        )
    )  # fmt: skip
    return element("g", *parts)


def path(points: Sequence[tuple[float, float]], **attributes: object) -> Svg:
    """Return a line through the points, which are in pixels."""
    steps = "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
    return element("path", d=f"M{steps}", **attributes)


def marker(x: float, y: float, style: str, text: str) -> Svg:
    """Return a data point that is easy to hit with a finger and explains itself."""
    return element(
        "g",
        tooltip(text),
        element("circle", cx=float(x), cy=float(y), r=11, class_="hit-area"),
        element("circle", cx=float(x), cy=float(y), r=4, class_=f"dot {style}"),
    )


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
