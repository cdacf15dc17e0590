"""Where a run comes from: its data, its engines, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer import facts, numbers
from trainer.facts import Table
from trainer.numbers import flatten
from trainer.report.records import Input, Run, Section, Titled, lacking
from trainer.report.steps import command


def data_section(run: Run) -> Section:
    """Return the size of every split. What was decided about the rows is on the dataset's page."""
    title = "The data"
    if run.dataset is None:
        return lacking("data", title, Input.DATASET, "the dataset folder (see --dataset)")
    sizes = [
        (name.removesuffix(".jsonl"), numbers.count(sum(file["per_label"].values())))
        for name, file in run.dataset["files"].items()
    ]
    redaction = run.dataset.get("redaction")
    told = (
        f"Personal data is redacted by {redaction}, in training and serving alike."
        if redaction
        else "Personal data is not redacted."
    )
    page = command("report", run.training.dataset.directory)
    return Section(
        "data",
        title,
        [Table(("part", "messages"), sizes), told, f"Its own page says the rest: {page}"],
    )


def engines_section(run: Run) -> Section:
    """Return the speed of each engine, their agreement, and what the batch size changes."""
    title = "Speed and steadiness"
    if run.evaluation is None or not run.evaluation.engines:
        return lacking("engines", title, Input.EVALUATION)
    steadiness = list(facts.steadiness(run.evaluation))
    return Section("engines", title, [facts.engines(run.evaluation), steadiness])


def making_section(run: Run) -> Section:
    """Return the recipe, the seeds, the machine, the digests and the hold-out's openings."""
    training = run.training
    openings = [
        (
            numbers.moment(opening.get("at")),
            str(opening.get("purpose", "")),
            numbers.short(opening.get("subject")),
        )
        for opening in (run.dataset or {}).get("holdout_openings", ())
    ]
    opened = Titled("Openings of the hold-out", Table(("at", "purpose", "subject"), openings, 3))
    return Section(
        "making",
        "How it was made",
        [
            list(_facts(run)),
            Titled("Recipe", list(flatten(training.recipe))),
            Titled("Seeds", list(flatten(training.seeds))),
            Titled("Machine", list(flatten(_with_sizes(training.machine.to_json())))),
            Titled("Versions", list(flatten(training.versions))),
            *([opened] if openings else []),
        ],
    )


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


def _with_sizes(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Write what is counted in bytes as people read it."""
    return {
        key.removesuffix("_bytes"): numbers.size(value) if key.endswith("_bytes") else value
        for key, value in machine.items()
    }
