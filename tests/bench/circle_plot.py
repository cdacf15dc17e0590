"""Accuracy against decisions of both arms, and their difference with its interval, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT, TOP, HEIGHT, GAP = 760.0, 60.0, 24.0, 56.0, 190.0, 56.0
INK, FAINT, GRID = "#1f2328", "#656d76", "#d8dee4"
ARMS = (("circle", "asked by the circle", "#0969da"), ("random", "random messages", "#bc4c00"))


def draw(result: dict[str, Any], what: str = "newest") -> str:
    """Return the picture of a result of ``tests.bench.circle`` or ``circle_store``: of the newest
    model, or of the one in ``serving``."""
    newest, spent = result[what], result["spent"]
    title = (
        f"{result['labels']} labels, {result['start']:,} examples to start with, "
        f"{result['seeds']} seeds"
    )
    curves = [(newest[name], colour) for name, _, colour in ARMS]
    difference = [(newest["difference"], INK)]
    low, high = newest["low"], newest["high"]
    below = TOP + HEIGHT + GAP
    parts = [_text(LEFT, 20, title, INK, 14)]
    where = " in service," if what == "serving" else ""
    parts += _panel(TOP, f"Accuracy{where} on an untouched test, %", spent, curves, None)
    parts += _panel(
        below, "Difference, points, with its 95 % interval", spent, difference, (low, high)
    )
    for place, (_, words, colour) in enumerate(ARMS):
        x = WIDTH - RIGHT - 170 * (len(ARMS) - place)
        parts.append(f'<path d="M{x:.0f} {TOP - 12:.0f}h16" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(x + 21, TOP - 8, words, INK, 11))
    parts.append(_text(WIDTH - RIGHT, below + HEIGHT + 36, "decisions spent", FAINT, 11, "end"))
    height = below + HEIGHT + 48
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" '
        f'width="{WIDTH:.0f}" height="{height:.0f}" font-family="sans-serif" role="img">'
        f"<title>{escape(title)}</title>"
        '<rect width="100%" height="100%" fill="#ffffff"/>' + "".join(parts) + "</svg>\n"
    )


def _panel(
    y: float,
    title: str,
    spent: Sequence[int],
    curves: Sequence[tuple[Sequence[float], str]],
    band: tuple[Sequence[float], Sequence[float]] | None,
) -> list[str]:
    values = [100 * value for curve, _ in curves for value in curve]
    values += [100 * value for side in band or () for value in side]
    step = next(s for s in (0.5, 1, 2, 5, 10, 20) if (max(values) - min(values)) / s <= 7)
    bottom, top = step * (min(values) // step), step * -(-max(values) // step)

    def at(place: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * spent[place] / spent[-1]
        return x, y + HEIGHT - HEIGHT * (100 * value - bottom) / (top - bottom)

    parts = [_text(LEFT, y - 8, title, INK, 12)]
    for line in range(round((top - bottom) / step) + 1):
        level = bottom + line * step
        height = at(0, level / 100)[1]
        parts.append(f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 6, height + 4, f"{level:g}", FAINT, 11, "end"))
    for place, count in enumerate(spent):
        parts.append(_text(at(place, 0)[0], y + HEIGHT + 16, f"{count:,}", FAINT, 11, "middle"))
    if band is not None:
        ways = [at(p, v) for p, v in enumerate(band[1])]
        ways += [at(p, v) for p, v in reversed(list(enumerate(band[0])))]
        corners = " ".join(f"{x:.1f},{height:.1f}" for x, height in ways)
        parts.append(f'<polygon points="{corners}" fill="#0969da" fill-opacity="0.18"/>')
    for curve, colour in curves:
        points = [at(place, value) for place, value in enumerate(curve)]
        path = "M" + "L".join(f"{x:.1f} {height:.1f}" for x, height in points)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return parts


def _text(x: float, y: float, text: str, colour: str, size: int, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
