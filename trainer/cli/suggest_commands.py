"""``clerk-trainer suggest`` and ``taxonomy suggest``: before there are labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    show_text,
)

if TYPE_CHECKING:
    from trainer.suggest.topics import Topics

_EXCERPT_CHARS = 160

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
    embeddings: Embeddings = None,
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
            "seconds": round(done.seconds, 1),
        }
        none = "" if done.suggestions else " (two different labels are needed)"
        text = (
            f"{out}: {done.suggestions:,} suggestions by {done.labelled:,} labelled messages"
            f"{none}, in {done.seconds:,.1f} s"
        )
        show_text(result, text, as_json=as_json)


@taxonomy_app.command("suggest")
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
    embeddings: Embeddings = None,
    as_json: AsJson = False,
) -> None:
    """Find topics in messages that have no labels, as a first taxonomy to edit.

    Shows each topic with its terms and three of its most typical messages, on this terminal alone.
    The file holds terms and no message. Topics are not labels yet: rename, merge, and delete them,
    and describe each in a sentence.

    Example: clerk-trainer taxonomy suggest messages.csv --labels 8 --out taxonomy.toml

    Next: clerk-desk label messages.csv --taxonomy taxonomy.toml
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.errors import require

        require("sklearn", "trainer", "clerk-trainer taxonomy suggest")
        from trainer.suggest.topics import find_topics, refuse_existing, write_topics

        refuse_existing(out)
        found = find_topics(
            messages,
            labels=labels,
            message_column=message_column,
            embeddings=embedding_model(embeddings),
        )
        write_topics(out, messages, found.topics)
        result = {
            "out": str(out),
            "messages": found.messages,
            "silhouette": round(found.silhouette, 3),
            "topics": [
                {"name": each.name, "terms": list(each.terms), "messages": each.size}
                for each in found.topics
            ],
        }
        show(result, console, lambda to: _show_topics(to, found, out), as_json=as_json)


def _show_topics(console: Console, found: Topics, out: Path) -> None:
    for each in found.topics:
        share = each.size / found.messages
        print_text(console, f"\n{each.name}  {each.size:,} messages ({share:.0%})")
        print_text(console, f"  terms: {', '.join(each.terms) or 'none stands out'}")
        for text in each.typical:
            line = " ".join(text.split())
            line = "".join(each if each.isprintable() else "?" for each in line)
            cut = line if len(line) <= _EXCERPT_CHARS else f"{line[:_EXCERPT_CHARS]}…"
            print_text(console, f"  · {cut}")
    print_text(
        console,
        f"\n{out}: {len(found.topics)} topics of {found.messages:,} different messages "
        f"(silhouette {found.silhouette:.2f}). Edit it: name, merge, and describe them.",
    )
