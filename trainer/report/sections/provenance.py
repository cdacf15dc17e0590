"""Where a run comes from: its data, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.artifacts.evaluation import EngineAgreement, EngineFigures
from trainer.check.finding import CheckRecord
from trainer.report import numbers
from trainer.report.bars import bar, splits_chart
from trainer.report.numbers import flatten, written
from trainer.report.records import Input, Run, Section, lacking

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
    ("near-copies of validation messages, removed", ("near_validation_removed",)),
    ("labelled in an earlier part of the time, left out", ("out_of_time_removed",)),
    ("more than asked for of a label, unused", ("surplus",)),
)
"""What may become of a row of the export, and where the dataset's counts hold how often."""


_TONES = {"ok": "good", "warn": "warn", "fail": "bad"}

Rows = list[tuple[str, str]]


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
            "redaction": run.dataset.get("redaction"),
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
    return Section("check", title, describe_check(run.check))


def describe_check(check: CheckRecord) -> dict[str, Any]:
    """Return a check's findings and its plain facts, as their template shows them."""
    return {
        "findings": [
            {
                "tone": _TONES.get(finding.verdict, "unknown"),
                "name": finding.name,
                "found": finding.found,
                "advice": finding.advice,
            }
            for finding in check.findings
        ],
        "facts": [
            row
            for name, value in check.to_json().items()
            if name not in {"findings", "verdict", "verdicts", "schema"}
            for row in flatten(value, name)
        ],
    }


def engines_section(run: Run) -> Section:
    """Return the speed of each engine, their agreement, and what the batch size changes."""
    title = "Speed and steadiness"
    if run.evaluation is None or not run.evaluation.engines:
        return lacking("engines", title, Input.EVALUATION)
    batches = run.evaluation.batch_sensitivity
    return Section(
        "engines",
        title,
        {
            "rows": [_engine(figures) for figures in run.evaluation.engines],
            "agreement": _agreement(run.evaluation.agreement),
            "batches": batches
            and {
                "sizes": ", ".join(map(written, batches.sizes)),
                "messages": numbers.counted(batches.messages, "message"),
                "difference": numbers.significant(batches.max_logprob_difference),
                "changed": batches.labels_changed,
            },
        },
    )


def making_section(run: Run) -> Section:
    """Return the recipe, the seeds, the machine, the digests and the hold-out's openings."""
    training = run.training
    return Section(
        "making",
        "How it was made",
        {
            "facts": list(_facts(run)),
            "recipe": list(flatten(training.recipe)),
            "seeds": list(flatten(training.seeds)),
            "machine": list(flatten(_with_sizes(training.machine.to_json()))),
            "versions": list(flatten(training.versions)),
            "openings": [
                (
                    numbers.moment(opening.get("at")),
                    str(opening.get("purpose", "")),
                    numbers.short(opening.get("subject")),
                )
                for opening in (run.dataset or {}).get("holdout_openings", ())
            ],
        },
    )


def recompute_section(run: Run) -> Section:
    """Return which file holds which figure, and what was recomputed for this page."""
    present = {
        Input.TRAINING: True,
        Input.STEPS: bool(run.steps),
        Input.EVALUATION: run.evaluation is not None,
        Input.PREDICTIONS: bool(run.predictions),
        Input.DUEL: run.duel is not None,
        Input.COST: run.cost is not None,
        Input.SWEEP: run.sweep is not None,
        Input.DATASET: run.dataset is not None,
        Input.CHECK: run.check is not None,
    }
    holds = {
        Input.TRAINING: "recipe, epochs, seeds, machine, versions",
        Input.STEPS: "loss, learning rate and gradient norm of every step",
        Input.EVALUATION: "every figure of the hold-out",
        Input.PREDICTIONS: "the answer to each message of the hold-out, by its id",
        Input.DUEL: "candidates, paired differences, verdict",
        Input.COST: "the cost and its inputs",
        Input.SWEEP: "the settings tried",
        Input.DATASET: "decisions about the data, the hold-out's openings (in the dataset folder)",
        Input.CHECK: "what was found wrong in the data (in the dataset folder)",
    }
    rows = [
        (source.path, holds[source], source.command, there) for source, there in present.items()
    ]
    checked = run.evaluation is not None and bool(run.predictions)
    return Section("recompute", "Where the figures come from", {"rows": rows, "checked": checked})


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    training = run.training
    yield "adapter", f"{training.adapter.name} ({training.adapter.digest})"
    yield "dataset", f"{training.dataset.name} ({training.dataset.digest})"
    if run.evaluation is not None and run.evaluation.dataset.holdout_sha256:
        yield "hold-out, SHA-256", run.evaluation.dataset.holdout_sha256
    yield "made at", numbers.moment(training.created_at)
    yield "steps", numbers.count(training.steps)
    yield "time", numbers.duration(training.seconds)
    if training.resumed:
        yield "resumed", numbers.counted(training.resumed, "time")
    if training.peak_memory_bytes:
        yield "memory at its peak", numbers.size(training.peak_memory_bytes)
    trainable, total = training.parameters.trainable, training.parameters.total
    share = numbers.percent(trainable / total, 2)
    yield "parameters trained", f"{numbers.count(trainable)} of {numbers.count(total)} ({share})"
    yield "weights kept", training.kept
    if training.stopped_early:
        yield "stopped early", "yes: validation no longer improved"
    fitted = numbers.counted(training.calibration.examples, "validation message")
    temperature = numbers.decimal(training.calibration.temperature)
    yield "temperature", f"{temperature}, fitted on {fitted}"


def _engine(figures: EngineFigures) -> tuple[str, ...]:
    latency = figures.latency_ms
    return (
        figures.name,
        numbers.count(figures.messages),
        numbers.percent(figures.accuracy),
        numbers.significant(figures.messages_per_s),
        f"{numbers.significant(latency.p50)} ms" if latency else numbers.NONE,
        f"{numbers.significant(latency.p99)} ms" if latency else numbers.NONE,
        figures.machine,
    )


def _agreement(agreement: EngineAgreement | None) -> dict[str, Any] | None:
    if agreement is None:
        return None
    return {
        "messages": numbers.counted(agreement.messages, "message"),
        "differ": agreement.labels_differ,
        "confidence": numbers.significant(agreement.max_confidence_difference),
        "tolerance": numbers.significant(agreement.tolerance),
    }


def _with_sizes(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Write what is counted in bytes as people read it."""
    return {
        key.removesuffix("_bytes"): numbers.size(value) if key.endswith("_bytes") else value
        for key, value in machine.items()
    }
