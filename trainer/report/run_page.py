"""The page about a run: its sections in order, its data, and how the adapter was made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trainer import facts, numbers
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.commands import command
from trainer.dataset.extra_files import read_copies
from trainer.dataset.folder import list_openings, open_dataset, open_holdout
from trainer.errors import BadInput
from trainer.evaluation.summary import verify_evaluation
from trainer.facts import Table
from trainer.numbers import flatten
from trainer.report.dataset_facts import read_check_of
from trainer.report.measured import (
    calibration_section,
    confusion_section,
    coverage_section,
    curves_section,
    data_size_section,
    errors_section,
    labels_section,
    languages_section,
    out_of_scope_section,
    steering_section,
)
from trainer.report.page import (
    Content,
    Head,
    Report,
    Section,
    Titled,
    openings_table,
    write_page,
)
from trainer.report.run import GateChoice, Input, Run, judge_run, lacks, of_evaluation, read_run
from trainer.report.run_steps import steps_section
from trainer.report.verdict import cost_section, duel_section, gate_section, verdict_section


def data_section(run: Run) -> Content:
    """Return the size of every split and a link to the dataset's own page."""
    if run.dataset is None:
        return lacks(Input.DATASET, "the dataset folder (see --dataset)")
    sizes = [
        (name.removesuffix(".jsonl"), numbers.count(sum(file["per_label"].values())))
        for name, file in run.dataset["files"].items()
    ]
    redaction = run.dataset.get("redaction")
    redacted = (
        f"Personal data is redacted by {redaction}, in training and in serving."
        if redaction
        else "Personal data is not redacted."
    )
    page = command("report", run.training.dataset.directory)
    more = f"More on the dataset's page: `{page}`"
    return [Table(("split", "messages"), sizes), redacted, more]


@of_evaluation
def engines_section(evaluation: EvaluationRecord) -> Content:
    """Return the speed of each engine, and their agreement."""
    return [facts.engines(evaluation), list(facts.agreement(evaluation))]


def making_section(run: Run) -> Content:
    """Return the recipe, the seeds, the machine, the digests and the hold-out's openings."""
    training = run.training
    openings = (run.dataset or {}).get("holdout_openings", ())
    opened = Titled("Openings of the hold-out", openings_table(openings))
    machine = {
        key.removesuffix("_bytes"): numbers.size(value) if key.endswith("_bytes") else value
        for key, value in training.machine.to_json().items()
    }
    return [
        list(_facts(run)),
        Titled("Recipe", list(flatten(training.recipe))),
        Titled("Seeds", list(flatten(training.seeds))),
        Titled("Machine", list(flatten(machine))),
        Titled("Versions", list(flatten(training.versions))),
        *([opened] if openings else []),
    ]


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    training = run.training
    yield "adapter", f"{training.adapter.name} ({training.adapter.digest})"
    yield "dataset", f"{training.dataset.name} ({training.dataset.digest})"
    if run.evaluation is not None and run.evaluation.dataset.holdout_sha256:
        yield "hold-out, SHA-256", run.evaluation.dataset.holdout_sha256
    yield "made at", numbers.moment(training.created_at)
    if training.imported is not None:
        yield from facts.imported(training.imported)
    else:
        yield "steps", numbers.count(training.steps)
    trial = ""
    if training.recipe.get("mixed_precision") == "auto" and training.imported is None:
        trial = " (mixed_precision = auto: another machine may choose otherwise, for other weights)"
    yield "arithmetic", f"{training.compute_dtype}{trial}"
    yield "time", numbers.duration(training.seconds)
    if training.resumed:
        yield "resumed", numbers.counted(training.resumed, "time")
    if training.peak_memory_bytes:
        yield "peak memory", numbers.size(training.peak_memory_bytes)
    trainable, total = training.parameters.trainable, training.parameters.total
    share = numbers.percent(trainable / total, 2)
    yield "parameters trained", f"{numbers.count(trainable)} of {numbers.count(total)} ({share})"
    yield "weights kept", training.kept
    if training.stopped_early:
        yield "stopped early", "yes, because validation no longer improved"
    temperature = numbers.decimal(training.calibration.temperature)
    yield "temperature", temperature
    yield "temperature and thresholds from", facts.thresholds_from(training.validation)


_SECTIONS = (
    ("verdict", "Summary", verdict_section),
    ("next", "What to do next", steps_section),
    ("gate", "Does it pass the gate?", gate_section),
    ("confusion", "Confusions", confusion_section),
    ("labels", "Label by label", labels_section),
    ("languages", "Language by language", languages_section),
    ("errors", "Wrong answers", errors_section),
    ("calibration", "Calibration", calibration_section),
    ("coverage", "Accuracy without review", coverage_section),
    ("out_of_scope", "Messages that fit no label", out_of_scope_section),
    ("steering", "Sentences that name a label", steering_section),
    ("duel", "Against simpler methods", duel_section),
    ("data_size", "Would more data help?", data_size_section),
    ("curves", "How it learned", curves_section),
    ("data", "The data", data_section),
    ("cost", "Cost", cost_section),
    ("engines", "Speed and reproducibility", engines_section),
    ("making", "How it was made", making_section),
)


_OPEN = ("verdict", "next")
"""What somebody needs who has never trained a model; the rest is folded."""


def write_report(
    directory: Path,
    out: Path,
    *,
    dataset: Path | None = None,
    texts: bool = False,
    gate: GateChoice | None = None,
) -> Report:
    """Write the page about a run folder.

    ``dataset`` is the dataset folder, by default the one named by the training record, if it still
    exists. ``texts`` shows the messages that were answered wrongly; this opens the sealed hold-out,
    and the dataset counts the opening.

    Raises BadInput if a file is missing or of another adapter or dataset, ProofFailed if the
    evaluation's figures do not follow from its predictions; nothing is written then.
    """
    # All checks come before the dataset is read: with texts that opens the hold-out, and a refused
    # report must not cost an opening.
    run = read_run(directory)
    _check_same(run, directory)
    if run.evaluation is not None and run.predictions:
        verify_evaluation((directory / Input.EVALUATION.path).parent)
    run = replace(run, gate=judge_run(directory, gate or GateChoice()))
    run = _with_dataset(run, dataset, texts=texts)
    sections = [
        Section(key, title, make(run), folded=key not in _OPEN) for key, title, make in _SECTIONS
    ]
    return write_page(out, _head(run), sections)


def _head(run: Run) -> Head:
    record = run.training
    evaluated_at = numbers.moment(run.evaluation.created_at) if run.evaluation else "not yet"
    return Head(
        kind="training report",
        name=record.name,
        facts=(
            ("adapter", "", numbers.short(record.adapter.digest)),
            ("dataset", record.dataset.name, numbers.short(record.dataset.digest)),
            ("imported" if record.imported else "trained", numbers.moment(record.created_at), ""),
            ("evaluated", evaluated_at, ""),
        ),
        private="They are from the hold-out." if run.texts is not None else "",
    )


def _check_same(run: Run, directory: Path) -> None:
    """Raise BadInput if a record is of another adapter or dataset than the training."""
    for record, source in (
        (run.evaluation, Input.EVALUATION),
        (run.audit, Input.AUDIT),
        (run.duel, Input.DUEL),
    ):
        if record is None:
            continue
        for what, mine, other in (
            ("adapter", run.training.adapter.digest, record.adapter.digest),
            ("dataset", run.training.dataset.digest, record.dataset.digest),
        ):
            if mine != other:
                raise BadInput(
                    f"{directory / source.path}: is of another {what} ({numbers.short(other)}, "
                    f"the training's is {numbers.short(mine)}): run {source.command} on this run"
                )


def _with_dataset(run: Run, given: Path | None, *, texts: bool) -> Run:
    directory = given
    if directory is None:
        named = Path(run.training.dataset.directory)
        if not (named / Input.DATASET.path).is_file():
            return run
        directory = named
    dataset = open_dataset(directory)
    wanted = run.training.dataset.digest
    if dataset.digest != wanted:
        raise BadInput(
            f"{directory}: is dataset {numbers.short(dataset.digest)}, but the run was trained on "
            f"{numbers.short(wanted)}: give the folder of that dataset with --dataset"
        )
    found: dict[str, str] | None = None
    if texts and run.predictions:
        holdout = open_holdout(dataset, purpose="report", subject=run.training.adapter.digest)
        found = {example.id: example.message for example in holdout}
    openings = list_openings(dataset)
    return replace(
        run,
        dataset={**dataset.record, "holdout_openings": list(openings)},
        check=read_check_of(dataset),
        openings=len(openings),
        texts=found,
        copies=read_copies(dataset),
    )
