"""What the adapter learned from: the dataset's parts, the decisions about it, and its check."""

from __future__ import annotations

from typing import Any

from trainer.report import numbers
from trainer.report.charts.bars import parts_chart
from trainer.report.read import CHECK, DATASET, Record, Run
from trainer.report.section import Section, lacking
from trainer.report.tables import flatten, written

_SHOWN_ELSEWHERE = {
    "schema_version",
    "name",
    "created_at",
    "taxonomy",
    "files",
    "digest",
    "holdout_openings",
}


def data(run: Run) -> Section:
    """Return the size of every part by label, and every decision that the dataset records."""
    title = "The data and what was decided about it"
    if run.dataset is None:
        return lacking("data", title, DATASET, "the dataset folder (see --dataset)")
    labels = [one["name"] for one in run.dataset["taxonomy"]["labels"]]
    parts = [
        (name.removesuffix(".jsonl"), [part["per_label"].get(label, 0) for label in labels])
        for name, part in run.dataset["files"].items()
    ]
    return Section(
        "data",
        title,
        {
            "chart": parts_chart(labels, parts),
            "sizes": [(name, numbers.count(sum(values))) for name, values in parts],
            "groups": [
                (name.replace("_", " "), list(flatten(value)))
                for name, value in run.dataset.items()
                if name not in _SHOWN_ELSEWHERE and isinstance(value, dict) and value
            ],
            "facts": [
                (name.replace("_", " "), written(value))
                for name, value in run.dataset.items()
                if name not in _SHOWN_ELSEWHERE and not isinstance(value, dict | list)
            ],
        },
    )


def check(run: Run) -> Section:
    """Return what the check of the dataset found."""
    title = "What the check of the data found"
    if run.check is None:
        return lacking("check", title, CHECK, "the dataset folder")
    verdicts = run.check.get("verdicts") or run.check.get("verdict")
    return Section(
        "check",
        title,
        {
            "verdicts": _verdict_rows(verdicts),
            "facts": [
                row
                for name, value in run.check.items()
                if name not in {"verdicts", "verdict", "schema"}
                for row in flatten(value, name)
            ],
        },
    )


def _verdict_rows(verdicts: Any) -> list[Record]:
    if not isinstance(verdicts, list):
        return []
    return [one for one in verdicts if isinstance(one, dict)]
