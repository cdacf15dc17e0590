"""How the adapter was made, how fast it runs, and how to arrive at every figure again."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.report import numbers
from trainer.report.read import (
    CHECK,
    COST,
    DATASET,
    DUEL,
    EVALUATION,
    PREDICTIONS,
    STEPS,
    SWEEP,
    TRAINING,
    Record,
    Run,
)
from trainer.report.section import Section, lacking
from trainer.report.tables import flatten, written

Rows = list[tuple[str, str]]


def engines(run: Run) -> Section:
    """Return the speed of each engine, their agreement, and what the batch size changes."""
    title = "Speed and steadiness"
    if run.evaluation is None or not run.evaluation.get("engines"):
        return lacking("engines", title, EVALUATION)
    agreement, batches = run.evaluation.get("agreement"), run.evaluation.get("batch_sensitivity")
    return Section(
        "engines",
        title,
        {
            "rows": [
                (
                    one["name"],
                    numbers.count(one["messages"]),
                    numbers.percent(one.get("accuracy")),
                    numbers.significant(one.get("messages_per_s")),
                    _latency(one.get("latency_ms"), "p50"),
                    _latency(one.get("latency_ms"), "p99"),
                    _machine(one.get("machine")),
                )
                for one in run.evaluation["engines"]
            ],
            "agreement": agreement
            and {
                "messages": numbers.counted(agreement["messages"], "message"),
                "differ": agreement["labels_differ"],
                "confidence": numbers.significant(agreement["max_confidence_difference"]),
                "tolerance": numbers.significant(agreement.get("tolerance")),
            },
            "batches": batches
            and {
                "sizes": ", ".join(written(one) for one in batches["sizes"]),
                "messages": numbers.counted(batches["messages"], "message"),
                "difference": numbers.significant(batches["max_logprob_difference"]),
                "changed": batches["labels_changed"],
            },
        },
    )


def making(run: Run) -> Section:
    """Return the recipe, the seeds, the machine, the digests and the hold-out's openings."""
    training = run.training
    return Section(
        "making",
        "How it was made",
        {
            "facts": list(_facts(run)),
            "recipe": list(flatten(training["recipe"])),
            "seeds": list(flatten(training.get("seeds", {}))),
            "machine": list(flatten(_machine_record(training.get("machine", {})))),
            "versions": list(flatten(training.get("versions", {}))),
            "openings": [
                (
                    numbers.moment(one.get("at")),
                    str(one.get("purpose", "")),
                    numbers.short(one.get("subject")),
                )
                for one in (run.dataset or {}).get("holdout_openings", ())
            ],
        },
    )


def recompute(run: Run) -> Section:
    """Return which file holds which figure, and what was recomputed for this page."""
    present = {
        TRAINING: True,
        STEPS: bool(run.steps),
        EVALUATION: run.evaluation is not None,
        PREDICTIONS: bool(run.predictions),
        DUEL: run.duel is not None,
        COST: run.cost is not None,
        SWEEP: run.sweep is not None,
        DATASET: run.dataset is not None,
        CHECK: run.check is not None,
    }
    holds = {
        TRAINING: "recipe, epochs, seeds, machine, versions",
        STEPS: "loss, learning rate and gradient norm of every step",
        EVALUATION: "every figure of the hold-out",
        PREDICTIONS: "the answer to each message of the hold-out, by its id",
        DUEL: "candidates, paired differences, verdict",
        COST: "the cost and its inputs",
        SWEEP: "the settings tried",
        DATASET: "decisions about the data, the hold-out's openings (in the dataset folder)",
        CHECK: "what was found wrong in the data (in the dataset folder)",
    }
    rows = [(one.path, holds[one], one.command, there) for one, there in present.items()]
    checked = run.evaluation is not None and bool(run.predictions)
    return Section("recompute", "Where the figures come from", {"rows": rows, "checked": checked})


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    training = run.training
    yield "adapter", f"{training['adapter'].get('name')} ({training['adapter'].get('digest')})"
    yield "dataset", f"{training['dataset'].get('name')} ({training['dataset'].get('digest')})"
    evaluated = (run.evaluation or {}).get("dataset") or {}
    if evaluated.get("holdout_sha256"):
        yield "hold-out, SHA-256", evaluated["holdout_sha256"]
    yield "made at", numbers.moment(training.get("created_at"))
    yield "steps", numbers.count(training["steps"])
    yield "time", numbers.duration(training["seconds"])
    if training.get("resumed"):
        yield "resumed", numbers.counted(training["resumed"], "time")
    if training.get("peak_memory_bytes"):
        yield "memory at its peak", numbers.size(training["peak_memory_bytes"])
    parameters = training.get("parameters") or {}
    if parameters.get("trainable") and parameters.get("total"):
        share = numbers.percent(parameters["trainable"] / parameters["total"], 2)
        trainable, total = parameters["trainable"], parameters["total"]
        yield (
            "parameters trained",
            f"{numbers.count(trainable)} of {numbers.count(total)} ({share})",
        )
    yield "weights kept", str(training.get("kept", numbers.NONE))
    if training.get("stopped_early"):
        yield "stopped early", "yes: validation no longer improved"
    calibration = training.get("calibration") or {}
    if calibration.get("temperature"):
        fitted = numbers.counted(calibration.get("examples", 0), "validation message")
        yield "temperature", f"{numbers.decimal(calibration['temperature'])}, fitted on {fitted}"


def _latency(found: Record | None, key: str) -> str:
    return numbers.NONE if not found else f"{numbers.significant(found.get(key))} ms"


def _machine(machine: object) -> str:
    if isinstance(machine, dict):
        return ", ".join(f"{key} {value}" for key, value in flatten(_machine_record(machine)))
    return written(machine)


def _machine_record(machine: Record) -> Record:
    return {
        key.removesuffix("_bytes"): numbers.size(value) if key.endswith("_bytes") else value
        for key, value in machine.items()
    }
