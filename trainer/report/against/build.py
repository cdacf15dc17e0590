"""From two run folders to the page of both."""

from __future__ import annotations

from pathlib import Path

from trainer.report import numbers
from trainer.report.against.changes import confusions_section, labels_section, messages_section
from trainer.report.against.facts import TwoRuns, read_two_runs
from trainer.report.against.making import curves_section, differences_section
from trainer.report.against.overview import overview_section
from trainer.report.records import Head, Report, write_page

_SECTIONS = (
    overview_section,
    labels_section,
    confusions_section,
    messages_section,
    curves_section,
    differences_section,
)


def write_comparison(
    mine: Path, theirs: Path, out: Path, *, dataset: Path | None = None, texts: bool = False
) -> Report:
    """Write the page that sets the run ``mine`` against ``theirs``.

    With ``texts``, messages that only one of them has right are shown; reading them opens the
    sealed hold-out, once, which the dataset (``dataset``, or the one that the first training names)
    counts.

    Raises BadInput where a file is missing or of another run, and ProofFailed where an
    evaluation's figures are not what its predictions give; nothing is written then.
    """
    two = read_two_runs(mine, theirs, dataset=dataset, texts=texts)
    return write_page(out, _head(two), [make(two) for make in _SECTIONS])


def _head(two: TwoRuns) -> Head:
    first, second = two.names
    return Head(
        kind="two runs",
        name=f"{first} against {second}",
        facts=tuple(
            (name, "", numbers.short(run.training.adapter.digest))
            for name, run in zip(two.names, (two.mine, two.theirs), strict=True)
        ),
        private="It shows held-out messages." if two.texts is not None else "",
    )
