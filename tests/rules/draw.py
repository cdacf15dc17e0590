"""The dashboard as a picture, from what a Prometheus has: enough of Grafana to look at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tests.rules.expressions import dashboard
from tests.rules.live import Prometheus

CELL_W, CELL_H, GAP = 62, 34, 6
INK, FAINT, PAPER, PAGE = "#d8d9da", "#8e9196", "#181b1f", "#111217"
NAMED = {
    "blue": "#5794f2",
    "green": "#73bf69",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "purple": "#b877d9",
}
CLASSIC = (*NAMED.values(), "#8ab8ff", "#96d98d", "#ffb357", "#ff7383", "#ca95e5", "#37872d")

Series = tuple[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Moment:
    """What is drawn: from when to when, and what the viewer's variables are."""

    start: float
    end: float
    step_s: float
    variables: Mapping[str, str]

    def fill_in(self, expr: str) -> str:
        """Put the variables' values in."""
        for name, value in sorted(self.variables.items(), reverse=True):
            expr = expr.replace(name, value)
        return expr


def draw(prometheus: Prometheus, moment: Moment) -> tuple[str, list[str]]:
    """Return the picture as SVG, and the titles of the panels that have nothing to show."""
    parts, empty, height = [], [], 0
    for panel in dashboard()["panels"]:
        grid = panel["gridPos"]
        x, y = grid["x"] * CELL_W, grid["y"] * CELL_H
        w, h = grid["w"] * CELL_W - GAP, grid["h"] * CELL_H - GAP
        height = max(height, y + h)
        body = _text(12, 20, panel["title"], INK, 14 if panel["type"] == "row" else 13, bold=True)
        if panel["type"] != "row":
            drawn = DRAWERS[panel["type"]](panel, prometheus, moment, w, h)
            empty += [] if drawn else [panel["title"]]
            body = f'<rect width="{w}" height="{h}" rx="3" fill="{PAPER}"/>{body}'
            body += drawn or _text(w / 2, h / 2 + 10, "no data", FAINT, 14, "middle")
        parts.append(f'<g transform="translate({x},{y})">{body}</g>')
    width = 24 * CELL_W
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="DejaVu Sans, sans-serif"><rect width="100%" height="100%" fill="{PAGE}"/>'
        + "".join(parts)
        + "</svg>",
        empty,
    )


def show(value: float, unit: str, decimals: int | None = None) -> str:
    """Write a value as Grafana does, about."""
    if math.isnan(value):
        return "idle"
    if unit == "percentunit":
        return f"{100 * value:.{1 if decimals is None else decimals}f}%"
    if unit == "s" and value < 1:
        return f"{1000 * value:.3g} ms"
    if unit == "s":
        return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"
    scale = 1024 if unit == "bytes" else 1000
    mark = ""
    for larger in ("K", "M"):
        if abs(value) >= scale:
            value, mark = value / scale, larger
    tail = "iB" if unit == "bytes" and mark else "B" if unit == "bytes" else ""
    return f"{value:.{3 if decimals is None else decimals + 2}g}{mark and ' ' + mark}{tail}"


def _text(
    x: float,
    y: float,
    text: str,
    colour: str,
    size: int,
    anchor: str = "start",
    *,
    bold: bool = False,
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" '
        f'text-anchor="{anchor}"{weight}>{escape(text)}</text>'
    )


def _legend(target: Mapping[str, Any], metric: Mapping[str, str]) -> str:
    text = str(target["legendFormat"])
    if text == "__auto":
        return next(iter(metric.values()), "value")
    for name, value in metric.items():
        text = text.replace("{{" + name + "}}", value)
    return " ".join(text.split()) if "{{" not in text else text.split("{{")[0] or "value"


def _over_time(panel: Mapping[str, Any], prometheus: Prometheus, moment: Moment) -> list[Series]:
    found = []
    for target in panel["targets"]:
        expr = moment.fill_in(target["expr"])
        for series in prometheus.range(expr, moment.start, moment.end, moment.step_s):
            points = [(float(t), float(v)) for t, v in series["values"] if v != "NaN"]
            if points:
                found.append((_legend(target, series["metric"]), points))
    return found


def _now(
    panel: Mapping[str, Any], prometheus: Prometheus, moment: Moment
) -> list[tuple[str, float, Mapping[str, str]]]:
    return [
        (_legend(target, series["metric"]), float(series["value"][1]), series["metric"])
        for target in panel["targets"]
        for series in prometheus.query(moment.fill_in(target["expr"]))
    ]


def _stat(
    panel: Mapping[str, Any], prometheus: Prometheus, moment: Moment, w: float, h: float
) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    values = _now(panel, prometheus, moment)
    texts = [(show(v, defaults["unit"], defaults.get("decimals")), v) for _, v, _ in values]
    if not texts:
        return _text(w / 2, h / 2 + 16, defaults["noValue"], FAINT, 15, "middle")
    steps = defaults["thresholds"]["steps"]
    parts = []
    for place, (text, value) in enumerate(texts):
        passed = [
            step["color"] for step in steps if step["value"] is None or value >= step["value"]
        ]
        colour = NAMED[passed[-1]] if passed else NAMED["blue"]
        left, each = place * w / len(texts), w / len(texts)
        parts.append(
            f'<rect x="{left + 4}" y="30" width="{each - 8}" height="{h - 36}" fill="{colour}"/>'
        )
        parts.append(_text(left + each / 2, h / 2 + 24, text, "#000", 22, "middle", bold=True))
        if len(texts) > 1:
            parts.append(_text(left + each / 2, h - 12, values[place][0], "#000", 11, "middle"))
    return "".join(parts)


def _graph(
    panel: Mapping[str, Any], prometheus: Prometheus, moment: Moment, w: float, h: float
) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    found = _over_time(panel, prometheus, moment)
    if not found:
        return ""
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    times = sorted({t for _, points in found for t, _ in points})
    base = dict.fromkeys(times, 0.0)
    lines = []
    for name, points in found:
        if stacked:
            held = dict(points)
            below = dict(base)
            for t in times:
                base[t] += held.get(t, 0.0)
            lines.append((name, [(t, base[t]) for t in times], [(t, below[t]) for t in times]))
        else:
            lines.append((name, points, []))
    values = [v for _, points, _ in lines for _, v in points]
    largest, bottom = 1.1 * max(values), 1.1 * min(0.0, *values)
    top = defaults.get("max") or max(largest, defaults["custom"].get("axisSoftMax", 0.0)) or 1.0
    fixed = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    left, right, upper, lower = 58.0, w - 10, 36.0, h - 30 - 15 * ((len(found) - 1) // 4)

    def at(t: float, v: float) -> str:
        x = left + (right - left) * (t - moment.start) / (moment.end - moment.start)
        share = (min(v, top * 1.02) - bottom) / (top - bottom)
        return f"{x:.1f},{lower - (lower - upper) * share:.1f}"

    parts = []
    for share in (0.0, 0.5, 1.0):
        y = lower - (lower - upper) * share
        parts.append(f'<path d="M{left} {y}H{right}" stroke="#33363c"/>')
        value = show(bottom + share * (top - bottom), defaults["unit"])
        parts.append(_text(left - 5, y + 4, value, FAINT, 10, "end"))
    for place, (name, points, under) in enumerate(lines):
        colour = NAMED.get(fixed.get(name, ""), CLASSIC[place % len(CLASSIC)])
        path = " ".join(at(*point) for point in points)
        if under:
            closed = path + " " + " ".join(at(*point) for point in reversed(under))
            parts.append(f'<polygon points="{closed}" fill="{colour}" fill-opacity="0.4"/>')
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        x, y = 12 + (place % 4) * (w - 12) / 4, lower + 20 + 15 * (place // 4)
        last = show(found[place][1][-1][1], defaults["unit"])
        parts.append(f'<rect x="{x}" y="{y - 8}" width="9" height="9" fill="{colour}"/>')
        parts.append(_text(x + 13, y, f"{name[:22]} {last}", INK, 10))
    return "".join(parts)


def _bars(
    panel: Mapping[str, Any], prometheus: Prometheus, moment: Moment, w: float, h: float
) -> str:
    values = [entry for entry in _now(panel, prometheus, moment) if not math.isnan(entry[1])]
    if not values:
        return ""
    most = max(value for _, value, _ in values) or 1.0
    each = min(30.0, (h - 40) / len(values))
    parts = []
    for place, (name, value, _) in enumerate(values):
        y = 34 + place * each
        wide = (w - 230) * value / most
        colour = CLASSIC[place % len(CLASSIC)]
        parts.append(_text(160, y + each / 2 + 2, name, INK, 11, "end"))
        parts.append(
            f'<rect x="168" y="{y}" width="{wide:.1f}" height="{each - 5}" fill="{colour}"/>'
        )
        shown = show(value, panel["fieldConfig"]["defaults"]["unit"])
        parts.append(_text(174 + wide, y + each / 2 + 2, shown, INK, 11))
    return "".join(parts)


def _heat(
    panel: Mapping[str, Any], prometheus: Prometheus, moment: Moment, w: float, h: float
) -> str:
    found = _over_time(panel, prometheus, moment)
    rows = sorted(((float(name.replace("+Inf", "inf")), points) for name, points in found))
    columns: dict[float, list[tuple[float, float]]] = {}
    for bound, points in rows:
        for t, value in points:
            columns.setdefault(t, []).append((bound, value))
    if not columns:
        return ""
    each_w = max(1.0, (w - 60) * moment.step_s / (moment.end - moment.start))
    each_h = (h - 60) / len(rows)
    most = max(value for cells in columns.values() for _, value in cells) or 1.0
    bounds = [bound for bound, _ in rows]
    parts = [
        _text(46, h - 24 - (n + 0.5) * each_h + 4, f"{100 * bound:.0f}%", FAINT, 9, "end")
        for n, bound in enumerate(bounds)
        if math.isfinite(bound)
    ]
    for t, cells in columns.items():
        x = 50 + (w - 60) * (t - moment.start) / (moment.end - moment.start)
        before = 0.0
        for bound, value in cells:
            share = ((value - before) / most) ** 0.5 if value > before else 0.0
            before = value
            y = h - 24 - (bounds.index(bound) + 1) * each_h
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{each_w:.1f}" height="{each_h - 1:.1f}" '
                f'fill="{NAMED["blue"]}" fill-opacity="{share:.2f}"/>'
            )
    return "".join(parts)


def _table(
    panel: Mapping[str, Any], prometheus: Prometheus, moment: Moment, w: float, h: float
) -> str:
    names: Mapping[str, str] = panel["transformations"][0]["options"]["renameByName"]
    rows: Sequence[Mapping[str, str]] = [
        {**metric, "Value": show(value, "short")}
        for _, value, metric in _now(panel, prometheus, moment)
    ]
    parts = []
    for column, (key, name) in enumerate(names.items()):
        x = 14 + column * (w - 14) / len(names)
        parts.append(_text(x, 48, name, NAMED["blue"], 11, bold=True))
        parts += [_text(x, 68 + 18 * n, row.get(key, ""), INK, 11) for n, row in enumerate(rows)]
    return "".join(parts) if rows else ""


Drawer = Callable[[Mapping[str, Any], Prometheus, Moment, float, float], str]
DRAWERS: Mapping[str, Drawer] = {
    "stat": _stat,
    "timeseries": _graph,
    "bargauge": _bars,
    "heatmap": _heat,
    "table": _table,
}
