"""``clerk-trainer check``: judge a dataset before money is spent on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from trainer.cli.shared import AsJson, make_console, outcomes, show

if TYPE_CHECKING:
    from trainer.check.run import Checked

RESULT = "check.json"
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "dim"}
_MOVES = 10


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("check")(check)


def check(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder that prepare made.")],
    *,
    base: Annotated[
        Path | None,
        typer.Option(help="Base model's directory: checks lengths and codes by its tokenizer."),
    ] = None,
    max_message_tokens: Annotated[
        int, typer.Option(min=16, help="The recipe's token budget of a message.")
    ] = 512,
    floor: Annotated[int, typer.Option(min=20, help="Examples a label that are enough.")] = 200,
    embeddings: Annotated[
        Path | None,
        typer.Option(help="Embedding model's directory [default: the installed one, if any]."),
    ] = None,
    use_embeddings: Annotated[
        bool,
        typer.Option("--use-embeddings/--no-embeddings", help="Judge labels by embeddings too."),
    ] = True,
    most_suspects: Annotated[
        float, typer.Option(min=0, max=1, help="Share of doubted labels above which it fails.")
    ] = 0.2,
    queue: Annotated[
        Path | None,
        typer.Option(help="Review queue to write, a CSV file [default: DATASET-review.csv]."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Keep what people wrote into an existing queue.")
    ] = False,
    result: Annotated[
        Path | None, typer.Option(help="Where the figures go [default: DATASET/check.json].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Deals the examples into folds.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Judge a dataset: counts, conflicts, leakage, lengths, and labels that are probably wrong.

    Every check says ok, warn or fail, why, and what to do. Labels are judged by cheap models that
    did not learn the message they judge (confident learning); the doubted ones go into a review
    queue, the surest first, with a suggestion and the three most similar undoubted messages:

      clerk-trainer check data/support --base models/base

    Open data/support-review.csv in a spreadsheet and write accept, relabel or drop into the
    column decision (and a new_label for relabel), then: clerk-trainer prepare --decisions FILE.
    What somebody wrote is never overwritten. The hold-out stays sealed. The queue holds message
    texts, check.json none. Exit code 3: a check failed, and everything was written.
    """
    with outcomes():
        from trainer.check.queue import write_queue
        from trainer.check.run import CheckSettings, check_dataset
        from trainer.dataset.folder import open_dataset
        from trainer.errors import NotGoodEnough

        console = make_console(as_json=as_json)
        opened = open_dataset(dataset)
        folder = dataset.resolve()
        queue = queue or folder.with_name(f"{folder.name}-review.csv")
        result = result or folder / RESULT
        _refuse_queue(queue, update=update)
        settings = CheckSettings(
            base=base,
            embeddings=_embedding_model(embeddings) if use_embeddings else None,
            floor=floor,
            max_message_tokens=max_message_tokens,
            most_suspects=most_suspects,
            seed=seed,
        )
        with _progress(console) as tick:
            checked = check_dataset(opened, settings, tick)
        carried = write_queue(queue, checked.suspects, update=update)
        record = checked.describe() | {"queue": queue.name, "decisions_carried_on": carried}
        _write_result(result, record)
        show(record, console, lambda to: _print(to, checked, queue, result), as_json=as_json)
        failed = [one.name for one in checked.findings if one.verdict == "fail"]
        if failed:
            raise NotGoodEnough(f"{dataset}: failed: {', '.join(failed)}: see {result}")


def _refuse_queue(queue: Path, *, update: bool) -> None:
    """Say before the work what would be refused after it."""
    from trainer.check.queue import refuse_overwriting

    if not queue.parent.is_dir():
        from trainer.errors import BadInput

        raise BadInput(f"{queue.parent}: there is no such folder for the queue")
    refuse_overwriting(queue, update=update)


def _embedding_model(directory: Path | None) -> Path | None:
    if directory is not None:
        return directory
    from trainer.model.embeddings import find_embedding_model

    return find_embedding_model()


def _write_result(path: Path, record: dict[str, object]) -> None:
    import json

    from worker.contract.digest import write_atomically

    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int], None]]:
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        from trainer.check.run import SIZE_OF_WORK

        task = progress.add_task("checking", total=SIZE_OF_WORK)

        def tick(what: str, done: int) -> None:
            progress.update(task, description=f"{what} done", advance=done)

        yield tick


def _print(console: Console, checked: Checked, queue: Path, result: Path) -> None:
    table = Table(title=f"Dataset {checked.dataset.name}", title_justify="left", expand=True)
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("what was found, and what to do", ratio=1)
    for one in checked.findings:
        colour = _COLOURS[one.verdict]
        text = f"{one.found}\n→ {one.advice}" if one.advice else one.found
        table.add_row(one.name, f"[{colour}]{one.verdict}[/{colour}]", _plain(text))
    console.print(table)
    _print_moves(console, checked)
    console.print(f"Review queue: {queue} ({len(checked.suspects):,} to decide)", soft_wrap=True)
    console.print(f"Figures: {result}", soft_wrap=True)


def _print_moves(console: Console, checked: Checked) -> None:
    moves = next((one.figures["moves"] for one in checked.findings if "moves" in one.figures), ())
    if not moves:
        return
    table = Table(title="Where doubted labels would go", title_justify="left")
    table.add_column("filed under")
    table.add_column("looks like")
    table.add_column("messages", justify="right")
    for label, suggested, count in moves[:_MOVES]:
        table.add_row(_plain(label), _plain(suggested), f"{count:,}")
    console.print(table)


def _plain(text: str) -> str:
    """Keep square brackets in names from being read as colours."""
    from rich.markup import escape

    return escape(text)
