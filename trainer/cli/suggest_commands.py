"""``clerk-trainer suggest`` and ``taxonomy suggest``: before there are labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from trainer.cli.shared import (
    AsJson,
    Embeddings,
    MessageColumn,
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

if TYPE_CHECKING:
    from trainer.suggest.names import Named
    from trainer.suggest.topics import Topics

_EXCERPT_CHARS = 160

# Messages of one shop, whose topics mix, get 0.01.
_SEPARATE = 0.05

Messages = Annotated[
    Path,
    typer.Argument(
        metavar="MESSAGES", help="Messages: a table (CSV, TSV, XLSX, JSON Lines, Parquet)."
    ),
]

taxonomy_app = typer.Typer(
    help="A first set of labels, from topics of messages (taxonomy suggest).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def suggest(
    messages: Messages,
    *,
    taxonomy: Annotated[
        Path, typer.Option(metavar="FILE", help="The labels, such as config/taxonomy.toml.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.jsonl",
            help="Where to write suggestions (suggestions/1). FILE.npz next to it keeps the "
            "features, so that the next call takes a second.",
        ),
    ],
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The labels so far: a table with message and label. Without it only the features "
            "are made.",
        ),
    ] = None,
    message_column: MessageColumn = None,
    embeddings: Embeddings = "auto",
    as_json: AsJson = False,
) -> None:
    """Suggest a label for each message, and the order in which labels would teach most.

    clerk-desk label runs this in the background. A cheap model (logistic regression on TF-IDF and
    sentence embeddings) learns from the labels so far. Of more than 5,000 messages a random part is
    considered. The file names messages by their digests and holds no text.

    Example: clerk-trainer suggest messages.csv --taxonomy taxonomy.toml --labelled
    messages.labelled.jsonl --out suggestions.jsonl
    """
    with outcomes():
        from trainer.errors import BadInput, require

        require("sklearn", "trainer", "clerk-trainer suggest")
        from trainer.suggest.order import suggest as write_order

        if out.suffix != ".jsonl":
            raise BadInput(f"{out}: suggestions are JSON Lines: give a name that ends with .jsonl")
        done = write_order(
            messages, labelled, taxonomy, out,
            message_column=message_column, embeddings=embedding_model(embeddings),
        )  # fmt: skip
        result = {
            "out": str(out),
            "labelled": done.labelled,
            "suggestions": done.suggestions,
        }
        none = "" if done.suggestions else " (two different labels are needed)"
        text = (
            f"{out}: {done.suggestions:,} suggestions by {done.labelled:,} labelled messages{none}"
        )
        show(result, text, as_json=as_json)


@taxonomy_app.command("suggest")
@asks_a_model
def suggest_taxonomy(
    messages: Messages,
    *,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Taxonomy file to write; must not exist.")
    ] = Path("taxonomy.toml"),
    labels: Annotated[
        int | None,
        typer.Option(
            min=2, max=100, help="Number of labels [default: 4 to 20, as the messages separate]."
        ),
    ] = None,
    message_column: MessageColumn = None,
    embeddings: Embeddings = "auto",
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            rich_help_panel=PANEL,
            help="OpenAI-compatible endpoint that names and describes the topics [default: nobody "
            "is asked, and names are made of terms].",
        ),
    ] = None,
    asked: Asked,
    as_json: AsJson = False,
) -> None:
    """Find topics in messages that have no labels, as a first taxonomy to edit.

    Shows each topic with its terms and three of its most typical messages, on this terminal alone.
    The file holds terms and no message. Topics are not labels yet: rename, merge, and delete them,
    and describe each in a sentence.

    With --teacher another model proposes a name and a sentence for each topic, from its terms and
    the three messages, which are masked and leave for that host. The command first says what leaves
    and what it costs, and asks. The ledger (the file's name, .ledger) holds the budget. A topic
    whose answer is a duplicate, cannot be used, or repeats a message keeps the name of its terms.

    Examples:

      clerk-trainer taxonomy suggest messages.csv --labels 8 --out taxonomy.toml

      clerk-trainer taxonomy suggest messages.csv --teacher https://api.openai.com/v1
      --model gpt-4o-mini --budget 0.10

    Next: clerk-desk label messages.csv --taxonomy taxonomy.toml

    Exit codes: 0 written; 2 bad input; 3 some topics have no answer, so nothing was written; 130
    interrupted.
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.errors import require

        require("sklearn", "trainer", "clerk-trainer taxonomy suggest")
        from trainer.progress import progress
        from trainer.suggest.names import announce, make_plan, name_topics
        from trainer.suggest.topics import find_topics, refuse_existing, write_topics

        refuse_existing(out)
        ledger = out.with_name(f"{out.stem}.ledger")
        endpoint = find_endpoint("--teacher", teacher, asked, ledger)
        found = find_topics(
            messages,
            labels=labels,
            message_column=message_column,
            embeddings=embedding_model(embeddings),
        )
        named = None
        if endpoint is not None:
            plan = make_plan(endpoint, found)
            facts = {"topics": len(plan.asking.job.questions)}
            facts |= forecast_facts(plan.asking, plan.forecast)
            lines = announce(plan)
            if not as_json and not asked.estimate:
                _show_topics(console, found)
                lines = ["", *lines]
            if not agree(asked, lines, facts, plan.forecast.open, as_json=as_json):
                return
            with progress("named", plan.forecast.open) as on_decided:
                named = name_topics(plan, on_decided)
            found = replace(found, topics=named.topics)
        write_topics(out, messages, found.topics, by=asked.model or "")
        result = {
            "out": str(out),
            "messages": found.messages,
            "silhouette": round(found.silhouette, 3),
            "topics": [
                {
                    "name": each.name, "terms": list(each.terms), "messages": each.size,
                    "description": each.description,
                }
                for each in found.topics
            ],
        } | _asked_result(named)  # fmt: skip
        show(result, lambda to: _show_written(to, found, out, named), as_json=as_json)


def _asked_result(named: Named | None) -> dict[str, Any]:
    if named is None:
        return {}
    from trainer.teacher.prices import dollars

    spent = {"spent": dollars(named.spent.total), "requests": named.spent.requests}
    return {"kept_by_terms": dict(named.kept), **spent}


def _show_topics(console: Console, found: Topics) -> None:
    for each in found.topics:
        share = each.size / found.messages
        print_text(console, f"\n{each.name}  {each.size:,} messages ({share:.0%})")
        print_text(console, f"  terms: {', '.join(each.terms) or 'none stands out'}")
        for text in each.typical:
            line = " ".join(text.split())
            line = "".join(each if each.isprintable() else "?" for each in line)
            cut = line if len(line) <= _EXCERPT_CHARS else f"{line[:_EXCERPT_CHARS]}…"
            print_text(console, f"  · {cut}")


def _show_written(console: Console, found: Topics, out: Path, named: Named | None) -> None:
    """Show the topics, or their new names if they were shown before."""
    if named is None:
        _show_topics(console, found)
    else:
        result = _asked_result(named)
        print_text(console, "")
        for each in found.topics:
            why = named.kept.get(each.name)
            print_text(console, f"{each.name}: {each.description or f'named by its terms: {why}'}")
        print_text(console, f"\nSpent: {result['spent']} for {result['requests']:,} requests.")
    print_text(
        console,
        f"\n{out}: {len(found.topics)} topics of {found.messages:,} different messages "
        f"(silhouette {found.silhouette:.2f}). Edit it: name, merge, and describe them.",
    )
    if found.silhouette < _SEPARATE:
        print_text(
            console,
            "These topics hardly separate: read them for ideas, and write the labels that your "
            "teams file by.",
        )
