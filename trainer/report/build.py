"""From a run folder to the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.artifacts.rights import PRIVATE
from trainer.dataset.folder import list_openings, open_dataset, open_holdout
from trainer.errors import BadInput
from trainer.evaluation.verify import verify_evaluation
from trainer.report import numbers
from trainer.report.records import Input, Run, Section, read_check, read_run, render_page
from trainer.report.sections import (
    confidence,
    duel,
    mistakes,
    provenance,
    training,
    verdict,
)
from worker.contract.digest import write_atomically

_SECTIONS = (
    verdict.verdict_section,
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
    provenance.check_section,
    duel.cost_section,
    provenance.engines_section,
    provenance.making_section,
    provenance.recompute_section,
)


@dataclass(frozen=True, slots=True)
class Report:
    """A written page: its size in bytes, and which sections had something to show."""

    path: Path
    size_bytes: int
    sections: Mapping[str, bool]
    with_texts: bool


def write_report(
    directory: Path, out: Path, *, dataset: Path | None = None, texts: bool = False
) -> Report:
    """Write the page about a run folder.

    ``dataset`` is the dataset folder, by default the one that the training names, if it is still
    there. With ``texts``, messages that were answered wrongly are shown; reading them opens the
    sealed hold-out, which the dataset counts.

    Raises BadInput where a file is missing, made by another version or of another dataset, and
    ProofFailed where the evaluation's figures are not what its predictions give; nothing is
    written then.
    """
    run = read_run(directory)
    _check_same(run, directory)
    if run.evaluation is not None and run.predictions:
        verify_evaluation((directory / Input.EVALUATION.path).parent)
    run = _with_dataset(run, dataset, texts=texts)
    sections = [make(run) for make in _SECTIONS]
    page = _render(run, sections).encode("utf-8", "replace")
    write_atomically(out, page, mode=PRIVATE if run.texts is not None else 0o644)
    shown = {section.key: section.present for section in sections}
    return Report(out, len(page), shown, run.texts is not None)


def _render(run: Run, sections: list[Section]) -> str:
    record = run.training
    return render_page(
        sections,
        name=record.name,
        created_at=numbers.moment(record.created_at),
        evaluated_at=numbers.moment(run.evaluation.created_at if run.evaluation else None),
        digest=numbers.short(record.adapter.digest),
        dataset_name=record.dataset.name,
        dataset_digest=numbers.short(record.dataset.digest),
        with_texts=run.texts is not None,
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
        check=read_check(directory),
        openings=len(openings),
        texts=found,
    )
