"""Curves over time as one small SVG, drawn without a library, and the same as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, LEFT, RIGHT = 760.0, 60.0, 14.0
HEIGHT, GAP, TOP = 120.0, 44.0, 34.0
INK, FAINT, GRID = "#1f2328", "#656d76", "#d8dee4"
COLOURS = ("#0969da", "#bc4c00", "#1a7f37")

Row = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes: a title, and which columns it shows under which names."""

    title: str
    columns: Mapping[str, str]
    steps: bool = False


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, the first one's keys as the header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:g}" for key, value in row.items()} for row in rows)


def draw(title: str, rows: Sequence[Row], panels: Sequence[Panel], time: str = "seconds") -> str:
    """Return the picture; ``time`` is the column of the horizontal axis."""
    height = TOP + len(panels) * (HEIGHT + GAP)
    parts = [_text(LEFT, 20, title, INK, 14)]
    for place, panel in enumerate(panels):
        parts += _panel(panel, rows, time, TOP + 22 + place * (HEIGHT + GAP))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height + 8:.0f}" '
        f'width="{WIDTH:.0f}" height="{height + 8:.0f}" font-family="sans-serif">'
        '<rect width="100%" height="100%" fill="#ffffff"/>' + "".join(parts) + "</svg>\n"
    )


def _panel(panel: Panel, rows: Sequence[Row], time: str, y: float) -> list[str]:
    largest = max(row[column] for row in rows for column in panel.columns)
    step = _round_step(largest / 4)
    top = step * max(1, -(-largest // step))
    last = rows[-1][time]

    def at(moment: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * moment / last
        return x, y + HEIGHT - HEIGHT * value / top

    parts = [_text(LEFT, y - 8, panel.title, INK, 12)]
    for line in range(round(top / step) + 1):
        _, height = at(0, line * step)
        parts.append(_line(LEFT, height, WIDTH - RIGHT, height))
        parts.append(_text(LEFT - 6, height + 4, f"{line * step:g}", FAINT, 11, "end"))
    for moment in range(0, int(last) + 1, int(_round_step(last / 10))):
        x, _ = at(moment, 0)
        parts.append(_line(x, y + HEIGHT, x, y + HEIGHT + 4))
        parts.append(_text(x, y + HEIGHT + 16, f"{moment} s", FAINT, 11, "middle"))
    for place, (column, name) in enumerate(panel.columns.items()):
        colour, points = COLOURS[place], [at(row[time], row[column]) for row in rows]
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for x, height in points[1:]:
            path += f"H{x:.1f}V{height:.1f}" if panel.steps else f"L{x:.1f} {height:.1f}"
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        x = WIDTH - RIGHT - 150 * (len(panel.columns) - place)
        parts.append(f'<path d="M{x:.0f} {y - 12:.0f}h16" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(x + 21, y - 8, name, INK, 11))
    return parts


def _round_step(least: float) -> float:
    step = 1.0
    while step < least:
        for factor in (2.0, 5.0, 10.0):
            if step * factor >= least:
                return step * factor
        step *= 10.0
    return step


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{GRID}"/>'


def _text(x: float, y: float, text: str, colour: str, size: int, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
