"""What ``clerk-trainer prepare`` tells people when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def tell_prepared(result: Mapping[str, Any], console: Console) -> None:
    """Print the result of ``prepare`` for people."""
    from trainer.dataset.report import tell_names
    from trainer.dataset.split_record import tell_split

    counts = result["counts"]
    for source in result["sources"]:
        guessed = [
            f"{field} from {source['columns'][field]!r}" for field in source["guessed_columns"]
        ]
        taken = f" (took {', '.join(guessed)})" if guessed else ""
        console.print(f"Read {source['rows']:,} rows of {source['name']}{taken}.", markup=False)
    table = Table("label", box=None, pad_edge=False)
    columns = result["splits"] | {"surplus": counts["surplus"]}
    for name in columns:
        table.add_column(name, justify="right")
    for label in result["splits"]["train"]:
        table.add_row(escape(label), *(f"{column.get(label, 0):,}" for column in columns.values()))
    totals = (f"{sum(column.values()):,}" for column in columns.values())
    table.add_row("all", *totals, style="bold")
    console.print()
    console.print(table)
    console.print()
    names = result["names_redaction"]
    told = [tell_names(names).replace("*", "").replace("`", "")] if names else []
    for sentence in (*tell_split(result), *_sentences(counts), *told):
        console.print(sentence, markup=False)
    if opened := result["holdout_openings"]:
        console.print(
            f"This hold-out has been opened {opened:,} times before; they count on.",
            markup=False,
        )
    console.print(
        f"Dataset {result['dataset']}, digest {result['digest'][:16]}.\n"
        f"Read {result['report']}, or look at it: clerk-trainer report {result['dataset']}.\n"
        f"Then: clerk-trainer check {result['dataset']}.",
        markup=False,
        soft_wrap=True,
    )


def _sentences(counts: Mapping[str, Any]) -> Iterator[str]:
    """Say what became of the rows, and nothing about what did not happen."""
    near, conflicts = counts["near_clusters"], counts["conflicts"]
    held, decisions = counts["holdout_copies_removed"], counts["decisions"]
    made = {word: decisions[word] for word in ("accept", "relabel", "drop") if word in decisions}
    if made or decisions["undecided"]:
        listed = ", ".join(f"{count:,} {word}" for word, count in made.items())
        yield f"Decisions: {listed or 'none'}; {decisions['undecided']:,} undecided."
    if dropped := counts["empty_dropped"] + counts["too_long_dropped"]:
        yield f"Dropped {dropped:,} rows whose message is empty or too long."
    if redacted := counts["redacted"]:
        yield f"Redacted {', '.join(f'{count:,} {kind}' for kind, count in redacted.items())}."
    yield (
        f"Removed {counts['exact_duplicates_removed']:,} exact duplicates, and "
        f"{conflicts['rows_left_out']:,} rows because their message has several labels."
    )
    if held["exact"] or held["near"]:
        yield (
            f"Removed {held['exact']:,} copies and {held['near']:,} near-copies of hold-out "
            f"messages; {held['exact_with_another_label']:,} copies had another label there."
        )
    yield (
        f"{near['messages']:,} messages are near-duplicates, in {near['clusters']:,} clusters, "
        f"each in one split alone; {near['with_several_labels']:,} clusters hold several labels."
    )
    if (templates := counts["templates"])["templates"]:
        yield (
            f"{templates['messages']:,} messages follow {templates['templates']:,} templates "
            "(equal but for numbers and redacted data), the largest "
            f"{templates['largest']:,} messages; each template is in one split alone."
        )
    if conflicts["messages"] or near["with_several_labels"]:
        yield "What has several labels is in conflicts.csv, for a person to decide."
