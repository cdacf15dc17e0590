"""``clerk-trainer audit-sample`` and ``audit``: how right the hold-out's own labels are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from trainer.cli.shared import AsJson, make_console, outcomes, print_text, show

if TYPE_CHECKING:
    from trainer.artifacts.audit import AuditRecord

_MOST_CONFUSIONS = 6


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("audit-sample")(audit_sample)
    app.command("audit")(audit)


def audit_sample(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder that prepare made.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write, a CSV [default: DATASET-audit.csv]."),
    ] = None,
    half_width: Annotated[
        float,
        typer.Option(min=0.001, max=0.5, help="How far the 95 % interval may reach, each way."),
    ] = 0.03,
    size: Annotated[
        int | None, typer.Option(min=2, help="So many messages, whatever the interval.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """Draw a random sample of the sealed hold-out for a person to label blind.

    The hold-out's labels are as noisy as those of training, and they are what accuracy is measured
    by. The sample is large enough for the wanted interval, in random order, and shows neither the
    given label nor any model's answer. The person writes the right label of every row into
    true_label, or none where no label fits; then: clerk-trainer audit. The file holds messages
    (rights 0640). The hold-out's opening is counted.

    Example: clerk-trainer audit-sample datasets/bank --half-width 0.03
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.dataset.folder import count_openings, open_dataset
        from trainer.evaluation.audit import draw_sample
        from worker.contract.taxonomy import NO_LABEL

        opened = open_dataset(dataset)
        folder = dataset.resolve()
        target = out or folder.with_name(f"{folder.name}-audit.csv")
        drawn = draw_sample(
            opened,
            target,
            half_width=half_width,
            size=size,
            seed=seed,
        )
        total = opened.record["files"]["holdout.jsonl"]["examples"]
        openings = count_openings(opened)
        result = {
            "sample": str(target), "messages": drawn, "holdout_messages": total, "seed": seed,
            "holdout_openings": openings,
        }  # fmt: skip

        def tell(where: Console) -> None:
            print_text(
                where,
                f"{target}: {drawn:,} of {total:,} held-out messages (opening number {openings}). "
                f"Write into true_label one of: {', '.join(opened.taxonomy.names)}; or {NO_LABEL}. "
                f"Then: clerk-trainer audit EVALUATION --sample {target}",
            )

        show(result, console, tell, as_json=as_json)


def audit(
    evaluation: Annotated[Path, typer.Argument(help="The folder that evaluate made.")],
    sample: Annotated[
        Path,
        typer.Option(metavar="FILE", help="What audit-sample wrote, with true_label filled in."),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Say how many of the hold-out's labels are wrong, and correct the evaluation's accuracy.

    Compares the labels that a person gave blind with the hold-out's and with the adapter's answers:
    the share of wrong labels, and the accuracy against the true ones, each with its 95 % interval,
    also where the adapter has learnt to repeat the mistakes. The sample must be whole and every
    row labelled. Writes audit.json (no text) into the evaluation's folder; the evaluation's own
    figures stay as they are, and evaluating again removes it.

    Example: clerk-trainer audit runs/bank/evaluation --sample datasets/bank-audit.csv

    Exit codes: 0 audited, however good; 2 bad input; 4 the evaluation contradicts itself.
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.evaluation.audit import audit_evaluation

        record = audit_evaluation(evaluation, sample)
        show(record.to_json(), console, lambda where: _tell(where, record), as_json=as_json)


def _tell(console: Console, record: AuditRecord) -> None:
    low, high = record.label_error_rate_interval_95
    print_text(
        console,
        f"{record.label_errors} of {record.audited} audited labels are wrong: "
        f"{record.label_error_rate:.1%} of the hold-out's {record.examples} (95 %: {low:.1%} to "
        f"{high:.1%})",
    )
    low, high = record.accuracy_interval_95
    print_text(
        console,
        f"accuracy by the given labels {record.accuracy:.1%} (95 %: {low:.1%} to {high:.1%})",
    )
    low, high = record.corrected_accuracy_interval_95
    print_text(
        console,
        f"accuracy by the true labels  {record.corrected_accuracy:.1%} (95 %: {low:.1%} to "
        f"{high:.1%}); of the sample the adapter is right against a wrong label on "
        f"{record.gained}, and agrees with a wrong label on {record.lost}",
    )
    for change in record.relabelled[:_MOST_CONFUSIONS]:
        print_text(console, f"  {change.messages} x {change.given}, truly {change.true or 'none'}")
