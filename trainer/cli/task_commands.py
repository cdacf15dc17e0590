"""``clerk-trainer tasks`` and ``answers``: what people are asked, and what they said elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from trainer.cli.shared import AsJson, OptionalBase, make_console, outcomes, print_text, show

if TYPE_CHECKING:
    from trainer.dataset.folder import Dataset
    from trainer.tasks.foreign import Form
    from trainer.tasks.make import Asking
    from worker.contract.circle import Task


class PurposeOption(StrEnum):
    """Why people are asked."""

    CHECK = "check"
    AUDIT = "audit"
    LEARN = "learn"


class FormOption(StrEnum):
    """Whose files they are."""

    DESK = "desk"
    ARGILLA = "argilla"
    LABEL_STUDIO = "label-studio"


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("tasks")(tasks)
    app.command("answers")(answers)


def tasks(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder.")],
    *,
    purpose: Annotated[
        PurposeOption,
        typer.Option(
            "--for",
            help="check: labels that are probably wrong, the surest first; audit: a random sample "
            "of the hold-out, blind; learn: messages without a label whose label would teach most.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write; must not exist.")],
    form: Annotated[
        FormOption,
        typer.Option("--form", help="desk (tasks/1, JSON Lines), argilla or label-studio."),
    ] = FormOption.DESK,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most tasks [default: check all, learn 50, audit what an interval of 3 points "
            "takes].",
        ),
    ] = None,
    messages: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="With learn: messages without labels, .jsonl or .csv with 'message', 'id'. "
            "Repeatable.",
        ),
    ] = None,
    asked: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="With learn: earlier tasks (tasks/1) or decisions (.csv): nothing that says the "
            "same is asked again. Repeatable.",
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With learn: the adapter in service, which then says what is uncertain [default: "
            "a cheap model that learns the dataset].",
        ),
    ] = None,
    base: OptionalBase = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Embedding model [default: the installed one, if any]."),
    ] = None,
    guideline: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Version of the guideline to decide by.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose what people should look at, and write it for the desk or another labelling tool.

    Active learning (--for learn) draws messages that the model is uncertain of and that are unlike
    each other: of those with the smallest margins a batch by k-means++ on gradient embeddings
    (BADGE, arXiv 1906.03671). No message is asked about twice, and of near-duplicates one. Messages
    near to the hold-out are never asked about: their labels could not be learnt.

    The file holds messages (rights 0640). People's answers come back as a file of decisions:
    prepare --decisions, propose --decisions, advise --decisions.

    Examples:

      clerk-trainer tasks data/1 --for check --out monday.jsonl

      clerk-trainer tasks data/1 --for learn --messages inbox.jsonl --size 100 --out ask.jsonl

      clerk-trainer tasks data/1 --for learn --messages inbox.jsonl --form argilla --out ask.json
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.dataset.folder import open_dataset
        from trainer.errors import BadInput
        from trainer.tasks.make import Asking

        if out.exists():
            raise BadInput(f"{out}: exists, and may hold somebody's work: name another file")
        if purpose is not PurposeOption.LEARN and (messages or asked or adapter):
            raise BadInput("--messages, --asked and --adapter belong to --for learn")
        opened = open_dataset(dataset)
        asking = Asking(opened, out.stem, guideline)
        told: dict[str, object] = {}
        if purpose is PurposeOption.CHECK:
            made = _check(asking, embeddings)[:size]
        elif purpose is PurposeOption.AUDIT:
            made, told["openings"] = _audit(asking, size)
        else:
            made, told["left_out"], told["by"] = _learn(
                asking, messages or [], asked or [], adapter=adapter, base=base,
                embeddings=embeddings, size=size or 50,
            )  # fmt: skip
        _write(out, made, form, opened)
        result = {"tasks": str(out), "purpose": purpose.value, "count": len(made), **told}
        text = f"{out}: {len(made):,} tasks ({purpose.value})"
        text += "".join(f"; {name.replace('_', ' ')}: {value}" for name, value in told.items())
        show(result, console, lambda to: print_text(to, text), as_json=as_json)


def _check(asking: Asking, embeddings: Path | None) -> list[Task]:
    from trainer.check.run import CheckSettings, check_dataset
    from trainer.dataset.label_sources import read_label_sources
    from trainer.tasks.make import check_tasks

    settings = CheckSettings(embeddings=_model(embeddings))
    found = read_label_sources(asking.dataset.directory)
    sources = {id_: origin.source for id_, origin in found.items()}
    return check_tasks(asking, check_dataset(asking.dataset, settings).suspects, sources)


def _audit(asking: Asking, size: int | None) -> tuple[list[Task], int]:
    from dataclasses import replace

    from trainer.dataset.folder import count_openings
    from trainer.evaluation.audit import draw_examples
    from trainer.tasks.make import audit_tasks

    name, sample = draw_examples(asking.dataset, size=size)
    asking = replace(asking, batch=name)
    return audit_tasks(asking, sample), count_openings(asking.dataset)


def _learn(
    asking: Asking,
    messages: list[Path],
    asked: list[Path],
    *,
    adapter: Path | None,
    base: Path | None,
    embeddings: Path | None,
    size: int,
) -> tuple[list[Task], int, str]:
    from trainer.check.duplicates import holdout_fingerprints
    from trainer.errors import BadInput
    from trainer.evaluation.engines import read_messages
    from trainer.tasks.earlier import read_earlier
    from trainer.tasks.make import judge_cheaply, learn_tasks, make_pool

    if not messages:
        raise BadInput("--for learn needs --messages: a file of messages without labels")
    found: dict[str, str] = {}
    for path in messages:
        found |= read_messages(path)
    keys, digests = read_earlier(asked)
    pool = make_pool(
        asking.dataset,
        found,
        told=keys,
        told_sha256=digests,
        holdout=holdout_fingerprints(asking.dataset),
    )
    model = _model(embeddings)
    if adapter is None:
        judged = judge_cheaply(asking.dataset, pool, model)
    else:
        from trainer.tasks.serving_judge import judge_by_adapter

        judged = judge_by_adapter(asking.dataset, pool, adapter, base, model)
    return learn_tasks(asking, pool, judged, size, seed=0), pool.left_out, judged.by


def _write(out: Path, made: list[Task], form: FormOption, dataset: Dataset) -> None:
    from trainer.artifacts.files import PRIVATE
    from trainer.tasks.foreign import labelling_config, write_foreign
    from worker.contract.circle import write_tasks
    from worker.contract.digest import write_atomically

    if form is FormOption.DESK:
        write_tasks(out, made)
        return
    # The tasks themselves stay beside it: by them the answers are understood.
    write_tasks(out.with_name(f"{out.stem}.tasks.jsonl"), made)
    data = write_foreign(made, cast("Form", form.value)).encode("utf-8")
    write_atomically(out, data, mode=PRIVATE)
    if form is FormOption.LABEL_STUDIO:
        config = labelling_config(dataset.taxonomy.names)
        write_atomically(out.with_name(f"{out.stem}.config.xml"), config.encode("utf-8"))


def answers(
    export: Annotated[Path, typer.Argument(help="What the other tool exported, JSON.")],
    *,
    form: Annotated[
        Literal["argilla", "label-studio"], typer.Option("--form", help="Whose export it is.")
    ],
    task_files: Annotated[
        list[Path],
        typer.Option("--tasks", metavar="FILE", help="The tasks (tasks/1). Repeatable."),
    ],
    taxonomy: Annotated[Path, typer.Option(help="The fixed set of labels, a TOML file.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File of decisions to write, a CSV.")],
    as_json: AsJson = False,
) -> None:
    """Turn what people answered in Argilla or Label Studio into a file of decisions.

    Where all who answered a task agree, that is its outcome; where they do not, their opinions are
    kept for advise, and the task stays open. People are named by their user's number.

    Example: clerk-trainer answers export.json --form argilla --tasks ask.tasks.jsonl
    --taxonomy taxonomy.toml --out decisions.csv
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.errors import BadInput
        from trainer.tasks.foreign import read_foreign
        from worker.contract import Taxonomy
        from worker.contract.circle import read_tasks, save_answers

        if out.exists():
            raise BadInput(f"{out}: exists: name another file")
        known = [task for path in task_files for task in read_tasks(path)]
        names = Taxonomy.from_toml(taxonomy).names
        found = read_foreign(export, form, known, names)
        save_answers(out, found.answers)
        decided = sum(answer.role == "outcome" for answer in found.answers)
        result = {
            "decisions": str(out), "decided": decided, "disputed": found.disputed,
            "open": found.open,
        }  # fmt: skip
        text = (
            f"{out}: {decided:,} decided, {found.disputed:,} on which people disagree, "
            f"{found.open:,} not answered"
        )
        show(result, console, lambda to: print_text(to, text), as_json=as_json)


def _model(directory: Path | None) -> Path | None:
    if directory is not None:
        return directory
    from trainer.model.embeddings import find_embedding_model

    return find_embedding_model()
