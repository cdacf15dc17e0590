"""From a run folder to the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer import numbers
from trainer.dataset.extra_files import read_copies
from trainer.dataset.folder import list_openings, open_dataset, open_holdout
from trainer.errors import BadInput
from trainer.evaluation.verify import verify_evaluation
from trainer.report.dataset.facts import read_check_of
from trainer.report.judged import GateChoice, judge_run
from trainer.report.records import Head, Input, Report, Run, read_run, write_page
from trainer.report.sections import (
    confidence,
    duel,
    mistakes,
    next_steps,
    provenance,
    training,
    verdict,
)
from trainer.report.sections.gate import gate_section

_SECTIONS = (
    verdict.verdict_section,
    next_steps.steps_section,
    gate_section,
    mistakes.confusion_section,
    mistakes.labels_section,
    mistakes.errors_section,
    confidence.calibration_section,
    confidence.coverage_section,
    confidence.out_of_scope_section,
    duel.duel_section,
    training.data_size_section,
    training.curves_section,
    training.sweep_section,
    provenance.data_section,
    duel.cost_section,
    provenance.engines_section,
    provenance.making_section,
)


def write_report(
    directory: Path,
    out: Path,
    *,
    dataset: Path | None = None,
    texts: bool = False,
    gate: GateChoice | None = None,
) -> Report:
    """Write the page about a run folder.

    ``dataset`` is the dataset folder, by default the one that the training names, if it is still
    there. With ``texts``, messages that were answered wrongly are shown; reading them opens the
    sealed hold-out, which the dataset counts. ``gate`` says by which rules, and against which
    store's current adapter, the gate's rows are.

    Raises BadInput where a file is missing, made by another version or of another dataset, and
    ProofFailed where the evaluation's figures are not what its predictions give; nothing is
    written then.
    """
    run = _read_sound_run(directory)
    run = replace(run, gate=judge_run(directory, gate or GateChoice()))
    run = _with_dataset(run, dataset, texts=texts)
    return write_page(out, _head(run), [make(run) for make in _SECTIONS])


def _read_sound_run(directory: Path) -> Run:
    """Read a run folder whose records are of one adapter and one dataset, and whose figures are
    those of its predictions. Raises as ``write_report``."""
    run = read_run(directory)
    _check_same(run, directory)
    if run.evaluation is not None and run.predictions:
        verify_evaluation((directory / Input.EVALUATION.path).parent)
    return run


def _head(run: Run) -> Head:
    record = run.training
    evaluated_at = numbers.moment(run.evaluation.created_at) if run.evaluation else "not yet"
    return Head(
        kind="training report",
        name=record.name,
        facts=(
            ("adapter", "", numbers.short(record.adapter.digest)),
            ("dataset", record.dataset.name, numbers.short(record.dataset.digest)),
            ("trained", numbers.moment(record.created_at), ""),
            ("evaluated", evaluated_at, ""),
        ),
        private="It shows held-out messages." if run.texts is not None else "",
    )


def _check_same(run: Run, directory: Path) -> None:
    """Figures of another adapter or dataset must not stand on this run's page."""
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
                    f"{directory / source.path}: of another {what} ({numbers.short(other)}, the "
                    f"training's is {numbers.short(mine)}): run {source.command} on this run"
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
            f"{directory}: dataset {numbers.short(dataset.digest)}, the run was trained on "
            f"{numbers.short(wanted)}: give that one's folder with --dataset"
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
