"""What there is to check: the rules, the dashboard's queries, and what they ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
FILES = Path("helm/filing-clerk/files")
RULES = FILES / "rules.yaml"
DASHBOARD = FILES / "dashboard.json"
UNIT_TESTS = sorted(FOLDER.glob("*.yaml"))

# What a viewer chooses and Grafana fills in. "All" is ".*" in this dashboard.
VARIABLES = {
    "$namespace": ".*",
    "$job": ".*",
    "$price": "1",
    "$__rate_interval": "5m",
    "$__range": "1h",
    "$__interval_ms": "15000",
    "$__interval": "15s",
}

_SELECTOR = re.compile(r"\b((?:job:)?(?:clerk|vllm|kube|DCGM)[a-zA-Z0-9_:]+)(?:{([^}]*)})?")


@dataclass(frozen=True)
class Query:
    """One question that a panel or a rule asks."""

    place: str
    expr: str


def rules() -> list[dict[str, Any]]:
    """Return every rule, recording and alerting, in order."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return every alerting rule by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> dict[str, Any]:
    """Return the dashboard that is shipped."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """Return every panel but the rows' headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_queries(variables: Mapping[str, str] = VARIABLES) -> Iterator[Query]:
    """Give every query of the dashboard with its variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            expr = target["expr"]
            for name, value in sorted(variables.items(), reverse=True):
                expr = expr.replace(name, value)
            # "$1" is what label_replace found, and Grafana leaves it alone.
            assert "$" not in expr.replace('"$1"', ""), (
                f"{panel['title']}: a variable nobody fills in: {expr}"
            )
            yield Query(f"{panel['title']} {target['refId']}", expr)


def selectors(expr: str) -> Iterator[tuple[str, str]]:
    """Give each metric that an expression reads, with its matchers."""
    yield from _SELECTOR.findall(expr)
