"""What the adapter learned from: the dataset's splits, what was decided of it, and its check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.report import numbers
from trainer.report.charts.bars import bar, splits_chart
from trainer.report.numbers import flatten
from trainer.report.page import Section, lacking
from trainer.report.records import Input, Run

_SHOWN_ELSEWHERE = {
    "schema_version",
    "name",
    "created_at",
    "taxonomy",
    "files",
    "digest",
    "holdout_openings",
    "sources",
    "redaction",
}
_FATES = (
    ("read", ("rows_read",)),
    ("empty, dropped", ("empty_dropped",)),
    ("too long, dropped", ("too_long_dropped",)),
    ("dropped by a person's decision", ("decisions", "rows_dropped")),
    ("relabelled by a person's decision", ("decisions", "relabel")),
    ("exact duplicates, removed", ("exact_duplicates_removed",)),
    ("one text under several labels, left out", ("conflicts", "rows_left_out")),
    ("copies of hold-out messages, removed", ("holdout_copies_removed", "exact")),
    ("near-copies of hold-out messages, removed", ("holdout_copies_removed", "near")),
    ("near-duplicates in training, removed", ("near_duplicates_dropped",)),
    ("more than asked for of a label, unused", ("surplus",)),
)
"""What may become of a row of the export, and where the dataset's counts hold how often."""


_TONES = {"ok": "good", "warn": "warn", "fail": "bad"}


def data_section(run: Run) -> Section:
    """Return the size of every split by label, and every decision that the dataset records."""
    title = "The data and what was decided about it"
    if run.dataset is None:
        return lacking("data", title, Input.DATASET, "the dataset folder (see --dataset)")
    labels = [label["name"] for label in run.dataset["taxonomy"]["labels"]]
    splits = [
        (name.removesuffix(".jsonl"), [file["per_label"].get(label, 0) for label in labels])
        for name, file in run.dataset["files"].items()
    ]
    return Section(
        "data",
        title,
        {
            "chart": splits_chart(labels, splits),
            "sizes": [(name, numbers.count(sum(values))) for name, values in splits],
            "fates": _fates(run.dataset.get("counts") or {}),
            "sources": [
                (
                    str(source.get("name")),
                    numbers.count(source.get("rows")),
                    numbers.short(source.get("sha256")),
                )
                for source in run.dataset.get("sources") or ()
            ],
            "redaction": run.dataset.get("redaction", run.dataset.get("masking")),
            "groups": [
                (name.replace("_", " "), list(flatten(value)))
                for name, value in run.dataset.items()
                if name not in _SHOWN_ELSEWHERE and isinstance(value, dict) and value
            ],
        },
    )


def _fates(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what became of the rows, with the bar of its share of the rows read.
    What happened to none is left out."""
    found = []
    read = counts.get("rows_read") or 0
    for name, path in _FATES:
        number: Any = counts
        for key in path:
            number = number.get(key) if isinstance(number, dict) else None
        if isinstance(number, dict):
            number = sum(number.values())
        if number and read:
            found.append(
                {"name": name, "number": numbers.count(number), "bar": bar(number / read, "s5")}
            )
    return found


def check_section(run: Run) -> Section:
    """Return what the check of the dataset found."""
    title = "What the check of the data found"
    if run.check is None:
        return lacking("check", title, Input.CHECK, "the dataset folder")
    facts = run.check.to_json()
    return Section(
        "check",
        title,
        {
            "findings": [
                {
                    "tone": _TONES.get(finding.verdict, "unknown"),
                    "name": finding.name,
                    "found": finding.found,
                    "advice": finding.advice,
                }
                for finding in run.check.findings
            ],
            "facts": [
                row
                for name, value in facts.items()
                if name not in {"findings", "verdict", "verdicts", "schema"}
                for row in flatten(value, name)
            ],
        },
    )
