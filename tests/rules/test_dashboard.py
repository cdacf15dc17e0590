"""The dashboard: generated from the code, valid for Grafana, and Prometheus can answer it."""

from __future__ import annotations

import json
import subprocess
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins

from helm.dashboard import as_json
from tests.rules.live import DASHBOARD, dashboard, dashboard_queries, panels, selectors

# The form that provisioning and the sidecar read; its types warn that there is a newer one.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.models.dashboard import Dashboard

# Grafana's current panels. Older ones (graph, singlestat, table-old) are gone.
KINDS = {"stat", "timeseries", "bargauge", "heatmap", "table"}


def test_the_file_is_up_to_date() -> None:
    """dashboard.json is not edited by hand."""
    assert DASHBOARD.read_text(encoding="utf-8") == as_json()


def _lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Paths that differ in ``after``."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key, value in before.items()
            for line in (
                _lost(value, after[key], f"{path}/{key}") if key in after else [f"{path}/{key}"]
            )
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for place, (left, right) in enumerate(zip(before, after, strict=True))
            for line in _lost(left, right, f"{path}/{place}")
        ]
    return [] if before == after else [path]


def test_grafana_knows_every_key() -> None:
    """Read into Grafana's own published types and written again, nothing is missing."""
    register_default_plugins()
    found = dashboard()
    again = json.loads(json.dumps(Dashboard.from_json(found), cls=JSONEncoder))
    assert _lost(found, again) == []


def test_every_query_is_valid(promtool: str, tmp_path: Path) -> None:
    asked = [
        {"record": f"panel:{number}", "expr": query.expr}
        for number, query in enumerate(dashboard_queries())
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": asked}]}))
    done = subprocess.run(
        [promtool, "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_panel_has_a_description() -> None:
    """A unique title, two lines of explanation, a unit, and colours for bad values."""
    titles = [panel["title"] for panel in panels()]
    assert len({(panel["title"], panel["type"]) for panel in panels()}) == len(titles)
    for panel in panels():
        assert panel["type"] in KINDS, panel["title"]
        assert 20 < len(panel["description"]) < 260, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        if panel["type"] not in {"table", "heatmap"}:
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]


def test_every_query_selects_the_chosen_install() -> None:
    """Each metric is limited to the chosen namespace and job."""
    chosen = 'namespace=~".*", job=~".*"'
    for query in dashboard_queries():
        read = list(selectors(query.expr))
        assert read or "ALERTS" in query.expr
        for name, matchers in read:
            if name.startswith("DCGM_"):
                continue  # the exporter has no job label: joined to our pods
            assert chosen in matchers, f"{query.place}: {name} is not limited to the chosen install"


def test_vllm_exports_every_metric_queried_from_it() -> None:
    """Each vLLM metric in a panel exists in the pinned vLLM."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "v1/metrics/loggers.py").read_text(encoding="utf-8")
    read = {name for query in dashboard_queries() for name, _ in selectors(query.expr)}
    asked = {name.removesuffix("_total") for name in read if name.startswith("vllm:")}
    assert asked
    assert {name for name in asked if f'"{name}"' not in source} == set()
