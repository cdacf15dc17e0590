"""``clerk-desk label``: label a file of messages by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def label(
    messages: Annotated[
        Path,
        typer.Argument(
            metavar="MESSAGES",
            help="Messages: a table (CSV, TSV, XLSX, JSON Lines, Parquet); or tasks of "
            "clerk-trainer.",
        ),
    ],
    *,
    taxonomy: Annotated[
        Path, typer.Option(metavar="FILE", help="The labels, such as config/taxonomy.toml.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the database [default: NAME.labelling next to the file]."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labelled messages, JSON Lines [default: NAME.labelled.jsonl next to the file]; "
            "of tasks the decisions, CSV [default: NAME.decisions.csv].",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the pages; 0: any.")] = 8090,
    message_column: Annotated[
        str | None, typer.Option(help="Column of the message [default: a guess].")
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Column of the id [default: a guess, else made from the text]."),
    ] = None,
    export: Annotated[
        bool, typer.Option("--export", help="Only write the result; serve no pages.")
    ] = False,
) -> None:
    """Label messages by hand, in the browser: no Kafka, no sign-in, this machine only.

    Every decision is on disk before the next message is shown. Stop at any time, and run the same
    command to continue. The labelled messages are written every 25 decisions and at the end, as
    clerk-trainer start and prepare take them.

    A cheap model learns from the decisions (clerk-trainer suggest, every 25 of them, if the trainer
    is installed). It suggests labels and chooses what to ask next. Every fourth message is drawn at
    random and has no suggestion. The file says of each row how it was drawn: the random ones can
    judge a model or a teacher, the chosen ones are harder than the average.

    Of a file of tasks (clerk-trainer tasks, or the doubts of clerk-trainer label) nothing is drawn
    and nothing learned: the tasks are asked as they are, those of an audit blind.

    Example: clerk-desk label messages.csv --taxonomy taxonomy.toml

    Next: clerk-trainer start messages.labelled.jsonl --out first; of tasks clerk-trainer label or
    prepare, with --decisions
    """
    from desk.labelling import Wanted, export_labelled, is_task_file
    from desk.labelling import label as serve_label
    from worker.common.logs import configure_logging

    configure_logging("console", "warning", "desk")
    tasks = is_task_file(messages)
    result = "decisions.csv" if tasks else "labelled.jsonl"
    wanted = Wanted(
        messages=messages,
        taxonomy=taxonomy,
        data=data or messages.with_name(f"{messages.stem}.labelling"),
        out=out or messages.with_name(f"{messages.stem}.{result}"),
        port=port,
        message_column=message_column,
        id_column=id_column,
        tasks=tasks,
    )

    def say(line: str) -> None:
        print(line, flush=True)

    (export_labelled if export else serve_label)(wanted, say)
