"""How two runs were made: curves over one another, and what differs in recipe and data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.dataset.folder import SPLITS
from trainer.report import numbers
from trainer.report.against.facts import TwoRuns, setting
from trainer.report.lines import Line, averaged, line_chart, smoothed
from trainer.report.numbers import flatten, written
from trainer.report.records import Run, Section
from trainer.report.svg import Chart

_STYLES = ("s1", "s2")
_ABSENT = "not there"

Differences = list[tuple[str, str, str]]


def curves_section(two: TwoRuns) -> Section:
    """Return the learning curves of both runs over one another."""
    charts = [
        _by_epoch(two, "Validation loss", "validation_calibrated_loss", "nats a label"),
        _by_epoch(two, "Validation accuracy", "validation_accuracy", "share right", percent=True),
    ]
    if all(len(run.steps) > 1 for run in (two.mine, two.theirs)):
        charts.insert(0, _training_loss(two))
    return Section(
        "curves_both",
        "How they learned",
        {
            "charts": charts,
            "rows": [
                (
                    name,
                    str(len(run.training.epochs)),
                    str(run.training.best_epoch),
                    numbers.count(run.training.steps),
                    numbers.duration(run.training.seconds),
                    numbers.size(run.training.peak_memory_bytes),
                )
                for name, run in _named(two)
            ],
            "same_data": two.mine.training.dataset.digest == two.theirs.training.dataset.digest,
        },
    )


def differences_section(two: TwoRuns) -> Section:
    """Return what differs in recipe, data, base, versions and machine."""
    groups: list[tuple[str, Differences]] = [
        ("recipe and seeds", [*_differ(two, "recipe"), *_differ(two, "seeds", "seed.")]),
        ("base and what it runs on", [*_plain(two), *_differ(two, "versions", "version of ")]),
        ("data", list(_data(two))),
    ]
    sizes = _sizes(two)
    return Section(
        "differences",
        "What was done differently",
        {
            "names": two.names,
            "groups": [(name, rows) for name, rows in groups if rows],
            "same": [name for name, rows in groups if not rows],
            "same_data": two.mine.training.dataset.digest == two.theirs.training.dataset.digest,
            "sizes": sizes,
            "unknown": [name for name, run in _named(two) if run.dataset is None],
        },
    )


def _named(two: TwoRuns) -> Iterator[tuple[str, Run]]:
    return zip(two.names, (two.mine, two.theirs), strict=True)


def _by_epoch(two: TwoRuns, title: str, field: str, unit: str, *, percent: bool = False) -> Chart:
    lines = [
        Line(
            name,
            tuple((float(epoch.number), getattr(epoch, field)) for epoch in run.training.epochs),
            style,
        )
        for (name, run), style in zip(_named(two), _STYLES, strict=True)
    ]
    write = numbers.percent if percent else numbers.decimal
    last = max(int(x) for line in lines for x, _ in line.points)
    rows = tuple(
        (str(at), *(write(dict(line.points).get(float(at))) for line in lines))
        for at in range(1, last + 1)
    )
    return line_chart(
        lines,
        title=title,
        caption="After each epoch, each run on its own validation set.",
        x_title="epoch",
        y_title=unit,
        table=(("epoch", *two.names), rows),
        write_y=write,
        percent=percent,
        whole_x=True,
    )


def _training_loss(two: TwoRuns) -> Chart:
    lines = []
    rows: dict[float, dict[str, float]] = {}
    for (name, run), style in zip(_named(two), _STYLES, strict=True):
        points = [(float(step.step), step.loss) for step in run.steps]
        line = averaged(smoothed(points, max(3, len(points) // 25)))
        lines.append(Line(name, line, style, marked=False))
        for x, y in line[:: -(-len(line) // 8)]:
            rows.setdefault(x, {})[name] = y
    losses = sorted(y for line in lines for _, y in line.points)
    top = losses[int(0.97 * (len(losses) - 1))] * 1.04
    cut = [
        Line(line.name, tuple((x, y) for x, y in line.points if y <= top), line.style, marked=False)
        for line in lines
    ]
    return line_chart(
        [line for line in cut if line.points],
        title="Training loss",
        caption="Nats a label, a moving mean. First steps that are far above are cut off.",
        x_title="step",
        y_title="loss",
        table=(
            ("step", *two.names),
            tuple(
                (numbers.count(x), *(numbers.decimal(found.get(name)) for name in two.names))
                for x, found in sorted(rows.items())
            ),
        ),
        write_y=numbers.decimal,
        whole_x=True,
        y_range=(0.0, top),
    )


def _differ(two: TwoRuns, field: str, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    mine, theirs = (dict(flatten(getattr(run.training, field))) for _, run in _named(two))
    yield from _pairs(mine, theirs, prefix)


def _pairs(
    mine: Mapping[str, str], theirs: Mapping[str, str], prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    for name in sorted({*mine, *theirs}):
        values = mine.get(name, _ABSENT), theirs.get(name, _ABSENT)
        if values[0] != values[1]:
            yield (f"{prefix}{name}", *values)


def _plain(two: TwoRuns) -> Iterator[tuple[str, str, str]]:
    mine, theirs = (
        {
            "base": f"{run.training.base.name} ({run.training.base.revision})",
            "computed in": run.training.compute_dtype,
            "device": run.training.machine.device,
            "machine": run.training.machine.cpu,
            "weights kept": run.training.kept,
            "parameters trained": numbers.count(run.training.parameters.trainable),
        }
        for _, run in _named(two)
    )
    yield from _pairs(mine, theirs)


def _data(two: TwoRuns) -> Iterator[tuple[str, str, str]]:
    facts = []
    for _, run in _named(two):
        dataset = run.training.dataset
        found = {"dataset": f"{dataset.name} ({numbers.short(dataset.digest)})"}
        if run.evaluation is not None:
            found["hold-out"] = numbers.short(run.evaluation.dataset.holdout_sha256)
        for name in ("settings", "counts", "split", "decisions", "redaction"):
            found |= _told(name, setting(run.dataset, name))
        sources = setting(run.dataset, "sources") or ()
        for at, source in enumerate(sources, start=1):
            found[f"export {at}"] = f"{source.get('name')} ({numbers.short(source.get('sha256'))})"
        facts.append(found)
    yield from _pairs(facts[0], facts[1])


def _told(name: str, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return dict(flatten(value, name))
    return {} if value is None else {name: written(value)}


def _sizes(two: TwoRuns) -> list[tuple[str, ...]]:
    """Return each label's messages in each part of both datasets, where they differ; nothing where
    a dataset is gone."""
    records = [run.dataset for _, run in _named(two)]
    if None in records:
        return []
    names = dict.fromkeys(
        label["name"] for record in records for label in setting(record, "taxonomy", "labels") or ()
    )
    rows = []
    for name in names:
        counts = [
            [setting(record, "files", f"{split}.jsonl", "per_label", name) for record in records]
            for split in SPLITS
        ]
        if any(mine != theirs for mine, theirs in counts):
            rows.append((name, *(numbers.count(value) for pair in counts for value in pair)))
    return rows
