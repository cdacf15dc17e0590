"""The Grafana dashboard, from the panels in dashboard.toml: ``make dashboard``.

Standard library only. A panel in the file has a kind, a size (width of 24, height), a title, a text
for the viewer, a unit and queries. In a query ``$chosen`` is the viewer's choice of install and
``$gpu(METRIC)`` a metric of DCGM's exporter for the GPUs of its pods. ``steps`` are thresholds: a
colour, then the value at which the next colour begins. ``colours`` and ``colour`` apply to lines. A
query that an alert also uses is a recording rule in rules.yaml, so that dashboard and alerts agree.

The JSON is of schema version 42 (Grafana 12). What it leaves out has Grafana's default.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Panel = dict[str, Any]

PANELS = Path(__file__).with_suffix(".toml")
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = 'namespace=~"$namespace", job=~"$job"'
ALERTS = f'ALERTS{{alertname=~"Clerk.+", alertstate="firing", {CHOSEN}}}'


def load_panels() -> list[Panel]:
    """Return every panel with an id and a position: left to right, then the next line."""
    placed: list[Panel] = []
    top = 0
    for row in tomllib.loads(PANELS.read_text(encoding="utf-8"))["row"]:
        grid = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        placed.append(
            {
                "type": "row",
                "title": row["title"],
                "collapsed": False,
                "panels": [],
                "gridPos": grid,
            }
        )
        top += 1
        left = tallest = 0
        for given in row["panel"]:
            width, height = given["size"]
            if left + width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            grid = {"x": left, "y": top, "w": width, "h": height}
            placed.append(make_panel(given) | {"gridPos": grid})
            left, tallest = left + width, max(tallest, height)
        top += tallest
    return [{"id": number, **each} for number, each in enumerate(placed, 1)]


def make_panel(given: Panel) -> Panel:
    """Return Grafana's panel for one in the file."""
    kind = given["kind"]
    common = {
        "type": _TYPES[kind],
        "title": given["title"],
        "description": given["about"],
        "datasource": SOURCE,
        "targets": [_query(kind, each, at) for at, each in enumerate(given["queries"])],
    }
    make = {"stat": _stat, "graph": _graph, "bars": _bars, "heat": _heat, "table": _table}[kind]
    return common | make(given)


_TYPES = {
    "stat": "stat",
    "graph": "timeseries",
    "bars": "bargauge",
    "heat": "heatmap",
    "table": "table",
}


def _query(kind: str, given: dict[str, Any], at: int) -> Panel:
    """One query. Figures, bars and tables ask for the last value only."""
    instant = given.get("instant", kind in {"stat", "bars", "table"})
    expr = re.sub(r"\$gpu\((\w+)\)", lambda found: _of_our_pods(found[1]), given["expr"])
    return {
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": expr.replace("$chosen", CHOSEN),
        "format": {"heat": "heatmap", "table": "table"}.get(kind, "time_series"),
        "instant": instant,
        "legendFormat": given.get("legend", "__auto"),
        "range": not instant,
        "refId": chr(ord("A") + at),
    }


def _of_our_pods(metric: str) -> str:
    # The exporter names the pod as ``pod`` or, where its own labels win, ``exported_pod``
    # (https://github.com/NVIDIA/dcgm-exporter, --kubernetes).
    ours = "max by (namespace, pod) (clerk_ready{$chosen})"
    plain = f'{metric}{{namespace=~"$namespace", pod!=""}} and on (namespace, pod) {ours}'
    exported = (
        f'label_replace(label_replace({metric}{{exported_namespace=~"$namespace"}}, '
        '"namespace", "$1", "exported_namespace", "(.+)"), '
        f'"pod", "$1", "exported_pod", "(.+)") and on (namespace, pod) {ours}'
    )
    return f"({exported} or {plain})"


def _thresholds(steps: Sequence[Any] = ("blue",)) -> dict[str, Any]:
    """A colour, then the value at which the next one begins."""
    values = [None, *steps[1::2]]
    pairs = zip(values, steps[::2], strict=True)
    return {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in pairs]}


def _stat(given: Panel) -> Panel:
    """One or two large figures. NaN (nothing happened) reads "idle"."""
    idle = {
        "type": "special",
        "options": {"match": "nan", "result": {"text": "idle", "color": "blue", "index": 0}},
    }
    defaults: dict[str, Any] = {
        "unit": given["unit"],
        "thresholds": _thresholds(given.get("steps", ("blue",))),
        "color": {"mode": "thresholds"},
        "mappings": [idle],
        "noValue": given.get("no_value", "no data"),
    }
    if "decimals" in given:
        defaults["decimals"] = given["decimals"]
    return {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "center",
            "textMode": "value_and_name" if len(given["queries"]) > 1 else "value",
        },
    }


def _graph(given: Panel) -> Panel:
    """Lines over time. ``limit`` is a dashed line where it begins to be bad; the axis reaches to
    ``soft_highest`` at least, so that small figures look small."""
    limit, stacked = given.get("limit"), given.get("stacked", False)
    custom = {
        "fillOpacity": 40 if stacked else 8,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "off" if limit is None else "dashed"},
    }
    if (soft_highest := given.get("soft_highest", limit)) is not None:
        custom["axisSoftMax"] = soft_highest
    defaults: dict[str, Any] = {
        "unit": given["unit"],
        "color": {"mode": "palette-classic"},
        "custom": custom,
        "noValue": given.get("no_value", "no data"),
        "thresholds": _thresholds() if limit is None else _thresholds(("green", limit, "red")),
    }
    if not given.get("below_zero", False):
        defaults["min"] = 0
    if "highest" in given:
        defaults["max"] = given["highest"]
    colours = {
        **given.get("colours", {}),
        **{each["legend"]: each["colour"] for each in given["queries"] if "colour" in each},
    }
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in colours.items()
    ]
    return {
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": {
            "legend": {"calcs": ["lastNotNull"], "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _bars(given: Panel) -> Panel:
    """One bar for each series, of its last value."""
    return {
        "fieldConfig": {
            "defaults": {
                "unit": given["unit"],
                "min": 0,
                "color": {"mode": "palette-classic"},
                "thresholds": _thresholds(),
                "noValue": "no data",
            },
            "overrides": [],
        },
        "options": {"orientation": "horizontal", "namePlacement": "left", "maxVizHeight": 40},
    }


def _heat(given: Panel) -> Panel:
    """A histogram's buckets over time: the darker, the more messages."""
    return {
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {
            "color": {"mode": "scheme", "scheme": "Blues"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": True},
            "yAxis": {"unit": given["unit"]},
        },
    }


def _table(given: Panel) -> Panel:
    """The labels of the series as columns, in the order and under the names given."""
    return {
        "fieldConfig": {
            "defaults": {"thresholds": _thresholds(), "noValue": "no data"},
            "overrides": [],
        },
        "transformations": [
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {name: at for at, name in enumerate(given["names"])},
                    "renameByName": given["names"],
                },
            }
        ],
    }


def _label_values(name: str, title: str, about: str, asked: str) -> Panel:
    """A choice of a label's values; "All" also takes in series that have no such label."""
    return {
        "type": "query",
        "name": name,
        "label": title,
        "description": about,
        "datasource": SOURCE,
        "definition": asked,
        "query": {"qryType": 1, "query": asked, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


DATASOURCE = {
    "type": "datasource",
    "name": "datasource",
    "label": "Prometheus",
    "description": "The Prometheus that scrapes the workers and evaluates rules.yaml.",
    "query": "prometheus",
    "refresh": 1,
}

PRICE = {
    "type": "textbox",
    "name": "price",
    "label": "Price of a worker's hour",
    "description": "In your currency: the machine that one worker occupies. 1 is an example.",
    "query": "1",
    "current": {"selected": True, "text": "1", "value": "1"},
}


def dashboard() -> dict[str, Any]:
    """Return the whole dashboard."""
    firing = {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": ALERTS,
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{job}} {{pod}}",
    }
    return {
        "uid": "filing-clerk",
        "title": "Filing clerk",
        "description": "Support messages in, labels out. Needs the rules of rules.yaml.",
        "tags": ["filing-clerk"],
        "schemaVersion": 42,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "annotations": {"list": [firing]},
        "templating": {
            "list": [
                DATASOURCE,
                _label_values(
                    "namespace",
                    "Namespace",
                    "Where the workers run; All where there are no namespaces.",
                    "label_values({__name__=~'clerk_build_info|clerk_desk_database_up'},"
                    " namespace)",
                ),
                _label_values(
                    "job",
                    "Job",
                    "One install of the workers, or its desk; All is both.",
                    "label_values({__name__=~'clerk_build_info|clerk_desk_database_up',"
                    ' namespace=~"$namespace"}, job)',
                ),
                PRICE,
            ]
        },
        "panels": load_panels(),
    }


def as_json() -> str:
    """Return it as the content of the shipped file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(as_json(), end="")
