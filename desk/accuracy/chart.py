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
    parts = _grid(bottom)
    places = [
        (_LEFT + step * (at + 0.5), _y(point.value, bottom)) for at, point in enumerate(points)
    ]
    for (x, y), point in zip(places, points, strict=True):
        low, high = _y(point.low, bottom), _y(point.high, bottom)
        parts += [
            f'<line class="interval" stroke="currentColor" stroke-width="2" stroke-opacity="0.5" x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}"/>',
            (
                f'<circle class="value" fill="currentColor" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{_words(point)}</title>'
                "</circle>"
            ),
            (
                f'<text fill="currentColor" font-size="12" class="tick" x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">'
                f"{escape(point.name)}</text>"
            ),
        ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.insert(
        0,
        f'<polyline class="line" stroke="currentColor" stroke-opacity="0.3" points="{line}" fill="none"/>',
    )
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
        parts += [
            f'<line class="grid" stroke="currentColor" stroke-opacity="0.15" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{height - 26}"/>',
            (
                f'<text fill="currentColor" font-size="12" class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:.0%}'
                "</text>"
            ),
        ]
    for at, point in enumerate(points):
        y = row * (at + 0.5) + 4
        parts += [
            (
                f'<text fill="currentColor" font-size="12" class="name" x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">'
                f"{escape(_short(point.name))}</text>"
            ),
            (
                f'<line class="interval" stroke="currentColor" stroke-width="2" stroke-opacity="0.5" x1="{x_of(point.low):.1f}" y1="{y:.1f}" '
                f'x2="{x_of(point.high):.1f}" y2="{y:.1f}"/>'
            ),
            (
                f'<circle class="value" fill="currentColor" cx="{x_of(point.value):.1f}" cy="{y:.1f}" r="4">'
                f"<title>{_words(point)}</title></circle>"
            ),
        ]
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


def _grid(bottom: float) -> list[str]:
    parts = []
    for tick in _ticks(bottom):
        y = _y(tick, bottom)
        parts += [
            f'<line class="grid" stroke="currentColor" stroke-opacity="0.15" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>',
            (
                f'<text fill="currentColor" font-size="12" class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.0%}'
                "</text>"
            ),
        ]
    return parts


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
