"""What a viewer chooses at the top of the page."""

from __future__ import annotations

from helm.dashboard.grafana import SOURCE, Panel


def label_values(name: str, title: str, about: str, asked: str) -> Panel:
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
        "regex": "",
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "allowCustomValue": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "skipUrlSync": False,
        "hide": 0,
    }


DATASOURCE = {
    "type": "datasource",
    "name": "datasource",
    "label": "Prometheus",
    "description": "The Prometheus that scrapes the workers and evaluates rules.yaml.",
    "query": "prometheus",
    "regex": "",
    "refresh": 1,
    "multi": False,
    "includeAll": False,
    "allowCustomValue": True,
    "current": {},
    "options": [],
    "skipUrlSync": False,
    "hide": 0,
}

PRICE = {
    "type": "textbox",
    "name": "price",
    "label": "Price of a worker's hour",
    "description": "In your currency: the machine that one worker occupies. 1 is an example.",
    "query": "1",
    "current": {"selected": True, "text": "1", "value": "1"},
    "options": [{"selected": True, "text": "1", "value": "1"}],
    "skipUrlSync": False,
    "hide": 0,
}
