"""``clerk-trainer label``: labels from a teacher, for messages that have none."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.cli.shared import EXIT_INTERRUPTED, AsJson, MessageColumn, outcomes, show
from trainer.cli.teacher_options import (
    Asked,
    agree,
    asks_a_model,
    find_endpoint,
    forecast_facts,
)
from trainer.commands import command

if TYPE_CHECKING:
    from trainer.teacher.label import Labelled, Plan, Wanted


@asks_a_model
def label(
    messages: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Messages, a table of any kind that prepare reads; labels are ignored.",
        ),
    ],
    *,
    taxonomy: Annotated[Path, typer.Option(help="The fixed set of labels, a TOML file.")],
    teacher: Annotated[
        str,
        typer.Option(
            metavar="URL", help="OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Rows to write, .jsonl; next to it NAME.tasks.jsonl and NAME.ledger.",
        ),
    ],
    # Two: on the sample shop 94.3 % of the labels that two votes agree on are right, and 55 % of
    # those that a third vote decides.
    votes: Annotated[
        int,
        typer.Option(
            min=1,
            max=9,
            help="Most answers for one message, each with the labels in another order. A label "
            "needs more than half of them (both of 2); asking stops when that is settled.",
        ),
    ] = 2,
    message_column: MessageColumn = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Column of the id [default: a guess, else made from the text]."),
    ] = None,
    decisions: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Reviewers' decisions about the tasks (CSV): they replace the teacher's labels. "
            "Repeatable.",
        ),
    ] = None,
    asked: Asked,
    as_json: AsJson = False,
) -> None:
    """Let another model label messages, within a budget, for training.

    The command first says what leaves, to which host, for how much, and how long it takes, and
    asks. Each request is reserved in a ledger before it is sent, so the budget holds even if the
    command is killed. Run the same command again and it resumes; nothing that was answered is asked
    again.

    Each message is asked about twice, with the labels in another order. If the answers agree it has
    its label; otherwise it becomes a task for reviewers (tasks/1). Pass their decisions with
    --decisions and the same command.

    A teacher's labels are for training. They are not a measure of accuracy: have reviewers decide
    on a random sample too, for prepare to hold out.

    Example: clerk-trainer label messages.csv --taxonomy taxonomy.toml --teacher
    https://api.openai.com/v1 --model gpt-4o-mini --budget 5.00 --out labelled.jsonl

    Next: clerk-trainer tasks messages.csv --for audit --out sample.jsonl, and clerk-desk label
    sample.jsonl, for reviewers; then this command with --decisions, and clerk-trainer start
    labelled.jsonl ...

    Exit codes: 0 every message was asked about; 2 bad input; 3 some are left: the result says why;
    130 interrupted.
    """
    with outcomes():
        from trainer.teacher.label import Wanted, announce, make_plan

        # Next to the rows, so that the same command finds it again.
        ledger = out.with_name(f"{out.stem}.ledger")
        endpoint = find_endpoint("--teacher", teacher, asked, ledger)
        assert endpoint is not None
        plan = make_plan(
            Wanted(
                messages, taxonomy, out, endpoint, votes, message_column, id_column,
                decisions or (),
            )
        )  # fmt: skip
        facts = {"messages": len(plan.messages), "texts": len(plan.asking.job.questions)}
        facts |= forecast_facts(plan.asking, plan.forecast)
        if agree(asked, announce(plan), facts, plan.forecast.open, as_json=as_json):
            _label(plan, as_json=as_json)


def _label(plan: Plan, *, as_json: bool) -> None:
    from trainer.errors import NotGoodEnough
    from trainer.progress import progress
    from trainer.teacher.label import label as label_messages
    from trainer.teacher.label import summary

    with progress("labelled", plan.forecast.open) as on_decided:
        done = label_messages(plan, on_decided)
    result = summary(plan, done)
    show(result, _words(result, done, plan.wanted), as_json=as_json)
    if done.found.ran.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if done.left:
        raise NotGoodEnough(
            f"{done.left:,} different texts are not decided: {done.found.ran.why}; run the same "
            "command again to go on, with a larger --budget if it is spent"
        )


def _words(result: Mapping[str, Any], done: Labelled, wanted: Wanted) -> str:
    outcomes_ = {name: count for name, count in result["outcomes"].items() if name != "label"}
    doubts = "".join(f"; {name}: {count:,}" for name, count in outcomes_.items())
    lines = [
        f"{result['out']}: {result['rows']:,} labelled rows"
        + (f", {result['rows_by_people']:,} of them by people" if result["rows_by_people"] else ""),
        f"{result['tasks']}: {result['task_count']:,} tasks for reviewers{doubts}",
    ]
    lines.append(
        f"Votes: {result['unanimous']:,} of {result['texts']:,} different texts have a label that "
        f"every vote gave. Answers were constrained {result['constrained']}."
    )
    of = f" of {result['budget']}" if result["budget"] else ""
    lines.append(
        f"Spent: {result['spent']}{of} for {result['requests']:,} requests, "
        f"{result['without_answer']:,} without an answer; {result['spent_known']} by the server's "
        f"own count of {result['prompt_tokens']:,} + {result['answer_tokens']:,} tokens."
    )
    if result["invented"]:
        lines.append(f"Invented: {result['invented']:,} answers were not a label.")
    if result["overruns"]:
        lines.append(
            f"{result['overruns']:,} answers cost more than a request allows: the server charges "
            "for more tokens than it was asked for. The budget counts it."
        )
    if len(result["models"]) > 1:
        lines.append(f"Several models answered: {', '.join(result['models'])}.")
    lines.append(f"Took {done.found.ran.seconds:,.0f} s.")
    if result["rows_by_people"]:
        given = shlex.quote(str(wanted.taxonomy))
        start = command("start", wanted.out, "--out", "first")
        lines.append(f"Next: mkdir -p first && cp {given} first/taxonomy.toml && {start}")
    else:
        sample = command("tasks", wanted.messages, "--for", "audit", "--out", "sample.jsonl")
        lines.append(
            f"Next: {sample} draws a random sample for reviewers. Without their decisions nothing "
            "can be evaluated."
        )
    return "\n".join(lines)
