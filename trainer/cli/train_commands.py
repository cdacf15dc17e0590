"""``clerk-trainer check`` and ``train``: from a dataset to a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.cli.shared import (
    AsJson,
    Base,
    Embeddings,
    OptionalDataset,
    embedding_model,
    folder_of,
    make_console,
    outcomes,
    print_text,
    show,
)
from trainer.commands import command

if TYPE_CHECKING:
    from trainer.check.run import Checked


RESULT = "check.json"
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "dim"}
_MESSAGE_TOKENS = 512
_FLOOR = 200

RecipeFile = Annotated[
    Path,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="A recipe, such as config/trainer.toml, or the training.json of a run to repeat.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, over the recipe's. Repeatable."),
]


def check(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder of prepare.")],
    *,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="DIR|NAME",
            callback=folder_of,
            help="The base model's directory, for its tokenizer.",
        ),
    ] = None,
    max_message_tokens: Annotated[
        int, typer.Option(min=16, help="The recipe's limit for a message, in tokens.")
    ] = _MESSAGE_TOKENS,
    floor: Annotated[int, typer.Option(min=20, help="Examples that each label needs.")] = _FLOOR,
    embeddings: Embeddings = "auto",
    queue: Annotated[
        Path | None,
        typer.Option(help="Review queue to write, a CSV file [default: DATASET-review.csv]."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Keep reviewers' decisions in an existing queue.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a dataset: counts, conflicts, leakage, lengths, and labels that are probably wrong.

    Every check says ok, warn or fail, why, and what to do. Lengths and label codes need the
    tokenizer of --base. Labels are checked by cheap models that were trained without the message
    and its near-copies (confident learning). Doubtful labels go into a review queue, the most
    certain first, with a suggestion and the three most similar undoubted messages:

      clerk-trainer check data/support --base models/base

    Open data/support-review.csv in a spreadsheet and write accept, relabel or drop in the column
    decision (and a new_label for relabel), then run clerk-trainer prepare --decisions FILE.
    Decisions are never overwritten. The hold-out stays sealed. The queue contains message texts,
    check.json does not. Exit code 3: a check failed; all results were written.
    """
    with outcomes():
        from trainer.artifacts.files import write_json
        from trainer.check.run import CheckSettings, check_dataset, write_queue
        from trainer.dataset.folder import open_dataset
        from trainer.errors import NotGoodEnough

        opened = open_dataset(dataset)
        # Kept in check.json: the page prints the command that repeats this check.
        options = _check_options(
            base=base, max_message_tokens=max_message_tokens, floor=floor, embeddings=embeddings,
            queue=queue,
        )  # fmt: skip
        folder = dataset.resolve()
        queue = queue or folder.with_name(f"{folder.name}-review.csv")
        result = folder / RESULT
        _refuse_queue(queue, update=update)  # now, because the check takes minutes
        settings = CheckSettings(
            base=base,
            embeddings=embedding_model(embeddings),
            floor=floor,
            max_message_tokens=max_message_tokens,
        )
        checked = check_dataset(opened, settings)
        kept = write_queue(queue, checked.suspects, update=update)
        record = checked.record(queue.name, kept, options).to_json()
        write_json(result, record)
        show(record, lambda to: _print_checked(to, checked, queue, result), as_json=as_json)
        failed = [finding.name for finding in checked.findings if finding.verdict == "fail"]
        if failed:
            raise NotGoodEnough(f"{dataset}: failed: {', '.join(failed)}: see {result}")


def _check_options(**given: object) -> list[str]:
    """Return the options that differ from their defaults, as words of a command."""
    usual = {"max_message_tokens": _MESSAGE_TOKENS, "floor": _FLOOR, "embeddings": "auto"}
    return [
        word
        for name, value in given.items()
        if value is not None and value != usual.get(name)
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def _refuse_queue(queue: Path, *, update: bool) -> None:
    """Refuse a queue before the work, not after it."""
    from trainer.check.run import refuse_overwriting

    if not queue.parent.is_dir():
        from trainer.errors import BadInput

        raise BadInput(f"{queue.parent}: this folder does not exist: create it or give another")
    refuse_overwriting(queue, update=update)


def _print_checked(console: Console, checked: Checked, queue: Path, result: Path) -> None:
    table = Table(title=f"Dataset {checked.dataset.name}", title_justify="left", expand=True)
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("what was found, and what to do", ratio=1)
    for finding in checked.findings:
        colour = _COLOURS[finding.verdict]
        text = f"{finding.found}\n→ {finding.advice}" if finding.advice else finding.found
        table.add_row(finding.name, f"[{colour}]{finding.verdict}[/{colour}]", escape(text))
    console.print(table)
    print_text(console, f"Review queue: {queue} ({len(checked.suspects):,} to decide)")
    print_text(console, f"Figures: {result}")
    print_text(console, f"As a page: {command('report', checked.dataset.directory)}")


def train(
    *,
    recipe: RecipeFile,
    dataset: OptionalDataset = None,
    base: Base = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder: adapter, figures, checkpoint.")
    ] = None,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the run's checkpoint, if it has one.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete the contents of the run folder first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on a dataset.

    Every row is verified first, and memory is estimated before the base is loaded. The best epoch
    on validation is kept, and its confidence is calibrated there. After a kill, --resume continues
    with the same result.

    --base auto is the base of the recipe's base_name among this machine's, or without one the base
    that ships for the recipe's kind. The adapter is named after the dataset's taxonomy.

    Example: clerk-trainer train --recipe config/trainer-cpu.toml --dataset data/v1 --out runs/v1
    --set lora_rank=8
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.training.recipe import load_recipe, parse_assignments

        flags = parse_assignments(sets or []) | _given(dataset=dataset, base=base, run=out)
        settings = load_recipe(recipe, flags)
        from trainer.training.train import train as run_training  # takes seconds to import

        record = run_training(settings, console, resume=resume, replace=replace)
        show(record.to_json(), lambda _: None, as_json=as_json)


def _given(**options: Path | str | None) -> dict[str, Path | str]:
    return {name: value for name, value in options.items() if value is not None}
