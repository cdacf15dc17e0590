"""Drawings of the accuracy page: SVG as text, every text escaped.

They take the colour of the text around them, so that they suit a dark page, and a style sheet may
change them by their classes; nothing in them is a style or a script, so that a strict
Content-Security-Policy lets them through. Each drawing stands beside a table with its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 30
_STROKES = {
    "grid": 'stroke="currentColor" stroke-opacity="0.15"',
    "interval": 'stroke="currentColor" stroke-opacity="0.5" stroke-width="2"',
    "line": 'stroke="currentColor" stroke-opacity="0.3"',
}


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its interval, all shares in [0, 1], under a name."""

    name: str
    value: float
    low: float
    high: float


def over_time(title: str, points: Sequence[Point]) -> str:
    """Return a drawing of values over weeks, oldest first, with their intervals."""
    bottom = _floor(points)
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(points))
    parts = []
    for tick in _ticks(bottom):
        y = _y(tick, bottom)
        parts.append(_line("grid", _LEFT, y, _WIDTH - _RIGHT, y))
        parts.append(_text("tick", _LEFT - 8, y + 4, "end", f"{tick:.0%}"))
    places = [
        (_LEFT + step * (at + 0.5), _y(point.value, bottom)) for at, point in enumerate(points)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline class="chart-line" {_STROKES["line"]} fill="none" points="{line}"/>')
    for (x, y), point in zip(places, points, strict=True):
        parts.append(_line("interval", x, _y(point.low, bottom), x, _y(point.high, bottom)))
        parts.append(_dot(x, y, point))
        parts.append(_text("tick", x, _HEIGHT - 10, "middle", point.name))
    return _svg(title, _HEIGHT, parts)


def side_by_side(title: str, points: Sequence[Point]) -> str:
    """Return a drawing of values one under the other, with their intervals."""
    bottom = _floor(points)
    row, left = 26, 200
    height = row * len(points) + 34

    def x_of(share: float) -> float:
        return left + (share - bottom) / (1 - bottom) * (_WIDTH - left - 24)

    parts = []
    for tick in _ticks(bottom):
        x = x_of(tick)
        parts.append(_line("grid", x, 4, x, height - 26))
        parts.append(_text("tick", x, height - 8, "middle", f"{tick:.0%}"))
    for at, point in enumerate(points):
        y = row * (at + 0.5) + 4
        parts.append(_text("name", left - 10, y + 4, "end", _short(point.name)))
        parts.append(_line("interval", x_of(point.low), y, x_of(point.high), y))
        parts.append(_dot(x_of(point.value), y, point))
    return _svg(title, height, parts)


def percent(share: float) -> str:
    """Return a share in per cent, with one place after the point."""
    return f"{100 * share:.1f} %"


def _words(point: Point) -> str:
    spread = f"{percent(point.low)} to {percent(point.high)}"
    return escape(f"{point.name}: {percent(point.value)} ({spread})")


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {_WIDTH} {height}">{"".join(parts)}</svg>'
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="chart-{kind}" {_STROKES[kind]} {ends}/>'


def _dot(x: float, y: float, point: Point) -> str:
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="4"'
    words = f"<title>{_words(point)}</title>"
    return f'<circle class="chart-value" fill="currentColor" {place}>{words}</circle>'


def _text(kind: str, x: float, y: float, anchor: str, words: str) -> str:
    look = f'class="chart-{kind}" fill="currentColor" font-size="10" text-anchor="{anchor}"'
    return f'<text {look} x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _y(share: float, bottom: float) -> float:
    return _TOP + (1 - share) / (1 - bottom) * (_HEIGHT - _TOP - _BOTTOM)


def _floor(points: Sequence[Point]) -> float:
    """Return where the axis begins: a tenth at or below the lowest limit, 0.9 at most."""
    lowest = min((point.low for point in points), default=0.0)
    return min(0.9, int(10 * lowest + 1e-9) / 10)


def _ticks(bottom: float) -> list[float]:
    return [bottom + (1 - bottom) * part / 5 for part in range(6)]


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"
