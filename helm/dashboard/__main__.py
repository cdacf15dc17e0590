"""The Grafana dashboard, written as code: ``python -m helm.dashboard``, or ``make dashboard``.

Standard library only. Queries that an alert uses too are recording rules in ``rules.yaml``, so that
the dashboard and the pager never disagree.
"""

from __future__ import annotations

import json
from typing import Any

from helm.dashboard import cost, desk, engine, loop, messages, overview
from helm.dashboard.grafana import RED, SCHEMA_VERSION, SOURCE, WIDTH, Panel
from helm.dashboard.queries import ALERTS
from helm.dashboard.variables import DATASOURCE, PRICE, label_values

ROWS = (
    ("Overview", overview.PANELS),
    ("The messages", messages.PANELS),
    ("The loop", loop.PANELS),
    ("The engine", engine.PANELS),
    ("Cost", cost.PANELS),
    ("The desk", desk.PANELS),
)


def lay_out() -> list[Panel]:
    """Give every panel an id and a position: left to right, and down where a line is full."""
    placed: list[Panel] = []
    top = 0
    for title, panels in ROWS:
        grid = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        placed.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": grid}
        )
        top += 1
        left = tallest = 0
        for width, height, panel in panels:
            if left + width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            placed.append(panel | {"gridPos": {"x": left, "y": top, "w": width, "h": height}})
            left, tallest = left + width, max(tallest, height)
        top += tallest
    return [{"id": number, **panel} for number, panel in enumerate(placed, 1)]


def dashboard() -> dict[str, Any]:
    """Return the whole dashboard."""
    firing = {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": RED,
        "expr": ALERTS,
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{job}} {{pod}}",
        "useValueForTime": False,
    }
    return {
        "uid": "filing-clerk",
        "title": "Filing clerk",
        "description": "Support messages in, labels out. Needs the rules of rules.yaml.",
        "tags": ["filing-clerk"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "fiscalYearStartMonth": 0,
        "links": [],
        "annotations": {"list": [firing]},
        "templating": {
            "list": [
                DATASOURCE,
                label_values(
                    "namespace",
                    "Namespace",
                    "Where the workers run; All where there are no namespaces.",
                    "label_values({__name__=~'clerk_build_info|clerk_desk_database_up'},"
                    " namespace)",
                ),
                label_values(
                    "job",
                    "Job",
                    "One install of the workers, or its desk; All is both.",
                    "label_values({__name__=~'clerk_build_info|clerk_desk_database_up',"
                    ' namespace=~"$namespace"}, job)',
                ),
                PRICE,
            ]
        },
        "panels": lay_out(),
    }


def as_json() -> str:
    """Return it as the content of the shipped file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(as_json(), end="")
