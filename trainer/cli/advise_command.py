"""``clerk-trainer advise``: what the decisions say about the labels themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from trainer.cli.shared import AsJson, make_console, outcomes, print_text, show

if TYPE_CHECKING:
    from worker.contract.circle import Advice


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("advise")(advise)


def advise(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder.")],
    *,
    decisions: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Decisions (CSV). Repeatable.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write, JSON (advice/1).")],
    messages: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Texts of messages that the dataset does not hold: tasks, or messages.jsonl of "
            "the desk's export. Repeatable.",
        ),
    ] = None,
    guideline: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The guideline's present version.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Embedding model [default: the installed].")
    ] = None,
    texts: Annotated[
        bool, typer.Option("--texts/--no-texts", help="Put messages' texts into the file.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with the labels, as far as people's decisions show it.

    Pairs that people confuse, labels that look like one or like two, labels with few or
    contradictory examples, messages that fit no label and look like a new one, decisions that are
    older than the guideline. Each with its messages, what to do, what it would bring and cost. What
    people confuse is told by messages that two of them decided on without each other, or that an
    audit labelled blind; each such claim is tested, so that a sound taxonomy hears a wrong one of
    its kind at most once in twenty times.

    The file holds messages (rights 0640) unless --no-texts.

    Example: clerk-trainer advise data/2 --decisions decisions.csv --guideline 4 --out advice.json
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.advice.run import advise_dataset
        from worker.contract.circle import write_advice

        found = advise_dataset(
            dataset, decisions, messages or [], guideline=guideline, embeddings=embeddings,
            with_texts=texts,
        )  # fmt: skip
        write_advice(out, found)
        result = {
            "advice": str(out),
            "findings": [
                {"kind": each.kind, "labels": list(each.labels), "title": each.title}
                for each in found.findings
            ],
        }
        show(result, console, lambda to: _tell(to, found, out), as_json=as_json)


def _tell(console: Console, found: Advice, out: Path) -> None:
    print_text(
        console,
        f"{found.decisions:,} messages decided on, {found.doubly:,} of them by two people",
    )
    for each in found.findings:
        print_text(console, f"- {each.title} {each.evidence} {each.advice} Cost: {each.cost}")
    print_text(console, f"{out}: the messages of each")
