"""From a dataset folder to the page about it."""

from __future__ import annotations

from pathlib import Path

from trainer import numbers
from trainer.report.dataset.doubtful import doubtful_section
from trainer.report.dataset.facts import DatasetFacts, read_facts
from trainer.report.dataset.labels import labels_section
from trainer.report.dataset.lengths import lengths_section
from trainer.report.dataset.overview import overview_section
from trainer.report.dataset.power import power_section
from trainer.report.dataset.rows import duplicates_section, rows_section
from trainer.report.dataset.splits import splits_section
from trainer.report.dataset.steps import steps_section
from trainer.report.points import BAD, GOOD, UNKNOWN, WARN, Point
from trainer.report.records import (
    Block,
    Drawn,
    Head,
    Input,
    Report,
    Section,
    Titled,
    lacking,
    write_page,
)

_TONES = {"ok": GOOD, "warn": WARN, "fail": BAD}

_SECTIONS = (
    overview_section,
    steps_section,
    rows_section,
    labels_section,
    lengths_section,
    duplicates_section,
    doubtful_section,
    splits_section,
    power_section,
)


def write_dataset_report(directory: Path, out: Path, *, texts: bool = False) -> Report:
    """Write the page about a dataset folder that ``prepare`` made.

    With ``texts``, doubted and conflicting messages of training and validation are shown; of the
    hold-out nothing is, nor what says the same. The hold-out stays sealed.

    Raises BadInput where a file is missing, altered, or of another dataset; nothing is written
    then.
    """
    facts = read_facts(directory, texts=texts)
    sections = [*(make(facts) for make in _SECTIONS), _check_section(facts)]
    return write_page(out, _head(facts), sections)


def _head(facts: DatasetFacts) -> Head:
    record = facts.record
    checked = "checked" if facts.check else "not checked yet"
    return Head(
        kind="dataset report",
        name=facts.dataset.name,
        facts=(
            ("dataset", "", numbers.short(facts.dataset.digest)),
            ("prepared", numbers.moment(record.get("created_at")), ""),
            (checked, "", ""),
        ),
        private="It shows messages of training and validation, none of the hold-out."
        if facts.texts is not None
        else "",
    )


def _check_section(facts: DatasetFacts) -> Section:
    title = "Everything the check found"
    if facts.check is None:
        return lacking("check", title, Input.CHECK, "the dataset folder")
    points = [
        Point(_TONES.get(found.verdict, UNKNOWN), found.name, found.found, found.advice)
        for found in facts.check.findings
    ]
    figures = [
        row
        for name, value in facts.check.to_json().items()
        if name not in {"findings", "verdict", "verdicts", "schema"}
        for row in numbers.flatten(value, name)
    ]
    blocks: list[Block] = [Drawn("points", {"points": points})]
    blocks.append(Titled("the check's settings and figures", figures, folded=True))
    return Section("check", title, blocks)
