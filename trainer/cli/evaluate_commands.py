"""``clerk-trainer evaluate``, ``audit`` and ``cascade``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from trainer import numbers
from trainer.cli.shared import (
    AsJson,
    Base,
    DatasetFolder,
    base_of,
    make_console,
    outcomes,
    print_text,
    show,
)
from trainer.errors import BadInput, NotGoodEnough

if TYPE_CHECKING:
    from trainer.artifacts.evaluation import AuditRecord
    from trainer.cascade.table import AloneRow, CascadeRecord, CascadeRow


Adapter = Annotated[Path, typer.Argument(metavar="ADAPTER", help="An adapter's directory.")]

TrainedOn = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the dataset that the adapter was trained on, if --dataset is another one. "
        "The hold-out is compared with it, as publish and duel require.",
    ),
]


def evaluate(  # noqa: PLR0917 - the arguments of a command are its flags
    adapter: Adapter,
    dataset: DatasetFolder,
    base: Base = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the results [default: evaluation next to ADAPTER]."
        ),
    ] = None,
    engine: Annotated[
        Literal["transformers", "vllm", "both"],
        typer.Option(help="The engine that answers; 'both' also verifies that the two agree."),
    ] = "transformers",
    trained_on: TrainedOn = None,
    out_of_scope: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Messages that fit no label (a table with 'message', 'id'): measures how "
            "well they are detected, and how many would go to review.",
        ),
    ] = None,
    steering: Annotated[
        bool,
        typer.Option(
            help="Measure whether a sentence in a message can choose its label: 2,000 pairs of a "
            "held-out message with an instruction that names another label, and with a neutral "
            "sentence of the same length. The gate requires it.",
        ),
    ] = True,
    probes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Messages that you wrote or approved, with labels (a table with 'message', "
            "'label'). Those that the adapter gets right become probes, on which workers try a "
            "published adapter.",
        ),
    ] = None,
    wanted_precision: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Find the confidence from which labels are right this often, by the lower bound "
            "on validation [default: the adapter's promise].",
        ),
    ] = None,
    worker_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A setting of the worker for the vllm engine, such as "
            "model.engine_args.gpu_memory_utilization=0.5. Repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure an adapter of any kind on the sealed hold-out.

    Checks everything that a worker checks (base, files, token ids, golden prompts), opens the
    hold-out (the dataset counts the opening) and writes evaluation.json with every figure, and
    predictions.jsonl with the scores behind them (ids, no text). Nothing is fitted on the hold-out:
    the temperature is the adapter's, and the threshold for --wanted-precision is from validation.

    Give the dataset that the adapter was trained on. --base auto is the base that the training
    used, or another with the same digests; an encoder with ONNX files needs none. With the hold-out
    of another dataset, --trained-on counts the messages that it shares with the training.

    Example: clerk-trainer evaluate runs/bank/adapter --dataset datasets/bank --engine both
    --out-of-scope odd.jsonl

    Exit codes: 0 measured, whatever the result; 2 bad input; 4 the engines disagree or an answer is
    not a label (then nothing is written).
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.evaluation.evaluate import EvaluationRequest, evaluate_adapter
        from trainer.terminal import show_evaluation

        request = EvaluationRequest(
            adapter=adapter,
            dataset=dataset,
            base=base_of(base, adapter),
            out=out or adapter.parent / "evaluation",
            engine=engine,
            out_of_scope=out_of_scope,
            wanted_precision=wanted_precision,
            worker_settings=tuple(worker_set or ()),
            trained_on=trained_on,
            probes=probes,
            steering=steering,
        )
        record = evaluate_adapter(request, console)
        show(record.to_json(), lambda out: show_evaluation(out, record), as_json=as_json)
        print_text(console, f"\n{request.out}: evaluation.json and the predictions")


_MOST_CONFUSIONS = 6


def audit(
    evaluation: Annotated[Path, typer.Argument(help="The result folder of evaluate.")],
    decisions: Annotated[
        Path, typer.Option(metavar="FILE", help="Decisions on tasks of tasks --for audit.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Estimate how many hold-out labels are wrong, and correct the evaluation's accuracy.

    Accuracy is measured against the hold-out's labels, which contain mistakes like those of
    training. clerk-trainer tasks --for audit draws a random sample, on which reviewers decide
    blind, at the desk or with clerk-desk label. This command compares their labels with the
    hold-out's and the adapter's answers. The results are the share of wrong labels and the accuracy
    against true labels, each with its 95 % interval, also if the adapter has learnt to repeat the
    mistakes. The whole sample must be decided. Writes audit.json (no text) into the evaluation's
    folder; a new evaluation removes it.

    Example: clerk-trainer audit runs/bank/evaluation --decisions decisions.csv

    Exit codes: 0 audited, whatever the result; 2 bad input; 4 the evaluation contradicts itself.
    """
    with outcomes():
        from trainer.evaluation.audit import audit_evaluation

        record = audit_evaluation(evaluation, decisions)
        show(record.to_json(), lambda where: _print_audit(where, record), as_json=as_json)


def _print_audit(console: Console, record: AuditRecord) -> None:
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
        f"accuracy against the given labels {record.accuracy:.1%} (95 %: {low:.1%} to {high:.1%})",
    )
    low, high = record.corrected_accuracy_interval_95
    print_text(
        console,
        f"accuracy against the true labels  {record.corrected_accuracy:.1%} (95 %: {low:.1%} to "
        f"{high:.1%}); where the label is wrong, the adapter is right on {record.gained} messages "
        f"of the sample and repeats the mistake on {record.lost}",
    )
    for change in record.relabelled[:_MOST_CONFUSIONS]:
        print_text(
            console, f"  {change.messages} x {change.given}, should be {change.true or 'none'}"
        )


def cascade(
    first: Annotated[Path, typer.Argument(metavar="SMALL_RUN", help="The run of the small model.")],
    last: Annotated[Path, typer.Argument(metavar="LARGE_RUN", help="The run of the large model.")],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The cascade's run folder.")],
    margin: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            min=0.01,
            max=50.0,
            help="How many points of accuracy the cascade may lose compared with the large model "
            "alone.",
        ),
    ] = 0.5,
    precision: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the labels without review that are right [default: the large run's "
            "review_precision].",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Combine two adapters: the small one answers if it is confident, the large one the rest.

    Train and evaluate both on one dataset. The command finds the lowest confidence from which the
    small model may answer: on validation, the cascade must be shown to be less than --margin worse
    than the large model alone (a score test at 5 % in a fixed sequence, so at most one cascade in
    twenty is truly worse). Messages on which the two disagree go to review. A table compares other
    margins: the share of each stage and of review, accuracy with its 95 % interval, and speed and
    cost per message from the stages' measured speeds.

    If a stage would answer less than 3 %, a cascade is not worth it: none is made, and the exit
    code is 3. Otherwise DIR is a run folder for publish: the stages, the cascade's manifest, and
    its evaluation on the hold-out, from the answers that the stages' evaluations recorded.

    Example:

      clerk-trainer cascade runs/encoder runs/adapter --out runs/cascade --margin 0.5
    """
    with outcomes():
        from trainer.cascade.build import CascadeRequest, make_cascade

        if precision is not None and not 0 < precision < 1:
            raise BadInput(f"--precision {precision}: a share above 0 and below 1")
        record = make_cascade(
            CascadeRequest(
                first=first,
                last=last,
                out=out,
                margin=margin / 100,
                precision=precision,
            )
        )
        show(record.to_json(), lambda to: _print_cascade(to, record), as_json=as_json)
        if not record.worth_it:
            raise NotGoodEnough(record.verdict)


def _print_cascade(console: Console, record: CascadeRecord) -> None:
    # Loaded here: numpy, which comes with them, takes longer than the rest of --help.
    from trainer import facts
    from trainer.terminal import print_table

    first, last = record.alone
    columns = ("margin", first.adapter.name, last.adapter.name, "review", "right of the rest",
               "accuracy", "95 % interval", "msg/s", "cost")  # fmt: skip
    rows = []
    for alone, shares in ((first, ("100.0%", "")), (last, ("", "100.0%"))):
        speeds = last.messages_per_s, alone.messages_per_s
        cost = speeds[0] / speeds[1] if speeds[0] and speeds[1] else None
        rows.append(_cells("alone", *shares, alone, cost))
    for row in record.rows:
        shares = f"{row.first_share:.1%}", f"{row.last_share:.1%}"
        rows.append(_cells(f"{row.margin:.2%}", *shares, row, row.relative_cost))
    chosen = [at for at, row in enumerate(record.rows, len(record.alone))
              if row.margin == record.margin]  # fmt: skip
    title = f"on {record.validation_messages:,} validation messages"
    print_table(console, title, facts.Table(columns, rows, marked=chosen))
    if record.messages_needed is not None:
        print_text(
            console,
            f"{record.validation_messages:,} validation messages are too few for this margin: it "
            f"takes about {record.messages_needed:,} to accept the smallest part",
        )
    print_text(
        console,
        "msg/s and cost (per message, compared with the last stage alone) are computed from the "
        "stages' measured speeds, for one machine that both share",
    )
    if record.holdout_accuracy is not None and record.holdout_accuracy_interval_95 is not None:
        low, high = record.holdout_accuracy_interval_95
        print_text(
            console,
            f"on the hold-out: {record.holdout_accuracy:.2%} ({low:.2%} to {high:.2%}); "
            f"{last.adapter.name} alone {record.holdout_last_alone:.2%}",
        )
    if record.taught:
        for name, value in facts.taught(record.taught):
            print_text(console, f"{name}: {value}")
    if record.note is not None:
        print_text(console, record.note)
    if record.worth_it:
        print_text(console, record.verdict)


def _cells(
    name: str, first: str, last: str, row: AloneRow | CascadeRow, cost: float | None
) -> tuple[str, ...]:
    return (
        *(name, first, last),
        *(numbers.percent(row.review_share), numbers.percent(row.accepted_precision)),
        *(numbers.percent(row.accuracy, 2), numbers.interval(row.accuracy_interval_95)),
        *(numbers.significant(row.messages_per_s), numbers.decimal(cost, 2)),
    )
