"""Grafana's JSON model, as far as this dashboard needs it: panels, queries and thresholds.

A panel is a dictionary of schema version 42 (Grafana 12). What all panels of a kind have in common
is filled in here, so that the modules of the rows say what is shown and what it means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Panel = dict[str, Any]
Placed = tuple[int, int, Panel]
"""Width (of 24), height and the panel."""

SCHEMA_VERSION = 42
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
BLUE, GREEN, YELLOW, ORANGE, RED, PURPLE = "blue", "green", "yellow", "orange", "red", "purple"
NO_DATA = "no data"


def query(expr: str, legend: str = "", instant: bool = False, form: str = "time_series") -> Panel:
    """One query; instant ones ask for the last value only."""
    return {
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": expr,
        "format": form,
        "instant": instant,
        "legendFormat": legend or "__auto",
        "range": not instant,
    }


def steps(*marks: tuple[float | None, str]) -> dict[str, Any]:
    """Thresholds: from each value on, its colour; None is everything below the first."""
    return {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in marks]}


ALWAYS_BLUE = steps((None, BLUE))


def _panel(kind: str, title: str, about: str, queries: Sequence[Panel]) -> Panel:
    lettered = [{**target, "refId": chr(ord("A") + n)} for n, target in enumerate(queries)]
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "targets": lettered,
    }


def stat(
    title: str,
    about: str,
    queries: Sequence[Panel],
    *,
    unit: str,
    thresholds: dict[str, Any] = ALWAYS_BLUE,
    decimals: int | None = None,
    no_value: str = NO_DATA,
) -> Panel:
    """One or two large figures, coloured by thresholds. NaN (nothing happened) reads "idle"."""
    idle = {
        "type": "special",
        "options": {"match": "nan", "result": {"text": "idle", "color": BLUE, "index": 0}},
    }
    defaults: dict[str, Any] = {
        "unit": unit,
        "thresholds": thresholds,
        "color": {"mode": "thresholds"},
        "mappings": [idle],
        "noValue": no_value,
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    return _panel("stat", title, about, queries) | {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "showPercentChange": False,
            "textMode": "value_and_name" if len(queries) > 1 else "value",
            "wideLayout": True,
        },
    }


def graph(
    title: str,
    about: str,
    queries: Sequence[Panel],
    *,
    unit: str,
    stacked: bool = False,
    colours: dict[str, str] | None = None,
    limit: float | None = None,
    lowest: float | None = 0,
    highest: float | None = None,
    soft_highest: float | None = None,
    no_value: str = NO_DATA,
) -> Panel:
    """Lines over time; ``limit`` draws a dashed line where it begins to be bad.

    ``soft_highest`` is the least that the axis reaches: small figures then look small.
    """
    custom = _line_style(stacked=stacked, dashed=limit is not None)
    defaults: dict[str, Any] = {
        "unit": unit,
        "color": {"mode": "palette-classic"},
        "custom": custom,
        "noValue": no_value,
        "thresholds": ALWAYS_BLUE if limit is None else steps((None, GREEN), (limit, RED)),
    }
    if soft_highest is not None or limit is not None:
        custom["axisSoftMax"] = limit if soft_highest is None else soft_highest
    if lowest is not None:
        defaults["min"] = lowest
    if highest is not None:
        defaults["max"] = highest
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in (colours or {}).items()
    ]
    return _panel("timeseries", title, about, queries) | {
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": {
            "legend": {
                "calcs": ["lastNotNull"],
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _line_style(*, stacked: bool, dashed: bool) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 40 if stacked else 8,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if dashed else "off"},
        "axisPlacement": "auto",
        "axisBorderShow": False,
        "scaleDistribution": {"type": "linear"},
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
    }


def bars(title: str, about: str, queries: Sequence[Panel], *, unit: str) -> Panel:
    """One bar for each series, of its last value."""
    return _panel("bargauge", title, about, queries) | {
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "color": {"mode": "palette-classic"},
                "thresholds": ALWAYS_BLUE,
                "noValue": NO_DATA,
            },
            "overrides": [],
        },
        "options": {
            "displayMode": "gradient",
            "orientation": "horizontal",
            "namePlacement": "left",
            "valueMode": "color",
            "showUnfilled": True,
            "sizing": "auto",
            "minVizHeight": 16,
            "minVizWidth": 8,
            "maxVizHeight": 40,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": False,
            },
        },
    }


def heat(title: str, about: str, queries: Sequence[Panel], *, unit: str) -> Panel:
    """A histogram's buckets over time: the darker, the more messages."""
    return _panel("heatmap", title, about, queries) | {
        "fieldConfig": {
            "defaults": {
                "custom": {
                    "hideFrom": {"legend": False, "tooltip": False, "viz": False},
                    "scaleDistribution": {"type": "linear"},
                }
            },
            "overrides": [],
        },
        "options": {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Blues",
                "steps": 64,
                "exponent": 0.5,
                "fill": BLUE,
            },
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
            "exemplars": {"color": ORANGE},
        },
    }


def table(title: str, about: str, queries: Sequence[Panel], *, names: dict[str, str]) -> Panel:
    """The labels of the series as columns, in the order and under the names given."""
    hidden = {"Time": True}
    order = {name: place for place, name in enumerate(names)}
    return _panel("table", title, about, queries) | {
        "fieldConfig": {
            "defaults": {
                "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
                "color": {"mode": "thresholds"},
                "thresholds": ALWAYS_BLUE,
                "noValue": NO_DATA,
            },
            "overrides": [],
        },
        "options": {"cellHeight": "sm", "showHeader": True},
        "transformations": [
            {
                "id": "organize",
                "options": {
                    "excludeByName": hidden,
                    "includeByName": {},
                    "indexByName": order,
                    "renameByName": names,
                },
            }
        ],
    }
