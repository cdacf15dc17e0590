"""``clerk-desk tasks``, ``advice`` and ``proposal``: the trainer's files, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from desk.cli.options import Config, Sets, command_group, opened
from desk.errors import SettingsError

tasks_app = command_group("Tasks from clerk-trainer: load a file, see its progress.")
advice_app = command_group(
    "Advice about the labels from clerk-trainer: load a file, list it, make tasks of it."
)
proposal_app = command_group(
    "Adapters that clerk-trainer proposes: load one, list them, answer one."
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A file from clerk-trainer.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The proposal's id, or a prefix of it.")]


@tasks_app.command("load")
def load_tasks(file: File, config: Config = None, sets: Sets = None) -> None:
    """Load a file of tasks. Loading it again adds nothing.

    Example: clerk-desk tasks load tasks.jsonl -c config/desk.toml
    """
    from desk.service.circle import load_task_file

    text = _text_of(file)
    with opened(config, sets) as desk:
        done = load_task_file(desk, text, file.name)
    numbers = ", ".join(str(each) for each in done.batches)
    print(f"{done.new} tasks loaded, {done.known} were loaded before; batch {numbers}")


@tasks_app.command("list")
def list_tasks(config: Config = None, sets: Sets = None) -> None:
    """List all batches of tasks, newest first, with their progress."""
    from desk.service.circle import all_progress

    with opened(config, sets) as desk:
        found = all_progress(desk)
    print("batch\tpurpose\ttasks\tdecided\twaiting\tdataset\tname")
    for each in found:
        dataset, far = (each.dataset or "-")[:12], each.progress
        cells = (each.id, each.purpose, far.tasks, far.decided, far.waiting, dataset, each.name)
        print("\t".join(_line(str(cell)) for cell in cells))


@tasks_app.command("status")
def show_status(
    number: Annotated[int, typer.Argument(metavar="BATCH", help="The batch's number.")],
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Show the progress of a batch, and how its labels were decided."""
    from desk.service.circle import all_progress

    with opened(config, sets) as desk:
        found = next((each for each in all_progress(desk) if each.id == number), None)
    if found is None:
        raise SettingsError(f"there is no batch {number}: clerk-desk tasks list shows all")
    far = found.progress
    print(f"{found.purpose}: {_line(found.name)}")
    if found.loaded_ms is None:
        print("not loaded completely: load the same file again")
    print(f"{far.decided} of {far.tasks} decided, {far.waiting} waiting, {far.disputes} in dispute")
    if far.closed:
        print(f"{far.closed} cannot be decided: their messages were deleted")
    if far.given:
        print(f"{far.kept} of {far.given} labels of the dataset were kept")
    if far.suggested:
        print(f"{far.followed} of {far.suggested} suggestions were followed")
    if far.none:
        print(f"{far.none} fit no label")
    if far.doubly:
        print(f"{far.agreed} of {far.doubly} on which all reviewers agreed")


@advice_app.command("load")
def load_advice(file: File, config: Config = None, sets: Sets = None) -> None:
    """Load a file of advice, which the page Advice then shows.

    Example: clerk-desk advice load advice.json -c config/desk.toml
    """
    from desk.service.circle import load_advice as bring

    text = _text_of(file)
    with opened(config, sets) as desk:
        number, is_new = bring(desk, text, file.name)
    print(f"advice {number} is {_how(is_new)}")


@advice_app.command("list")
def list_advice(config: Config = None, sets: Sets = None) -> None:
    """List the loaded advice, newest first, with its findings as NUMBER.FINDING."""
    from desk.service.circle import all_advice

    with opened(config, sets) as desk:
        found = all_advice(desk)
    for given in found:
        print(f"{given.id}\t{_line(given.advice.created_at)}\t{_line(given.advice.dataset_name)}")
        for place, finding in enumerate(given.advice.findings, start=1):
            print(f"{given.id}.{place}\t{given.counts[place - 1]} messages\t{_line(finding.title)}")


@advice_app.command("ask")
def ask(
    finding: Annotated[
        str, typer.Argument(metavar="NUMBER.FINDING", help="As clerk-desk advice list shows it.")
    ],
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Make a batch of tasks of the messages of a finding.

    Example: clerk-desk advice ask 3.1 -c config/desk.toml
    """
    from desk.service.circle import ask as ask_people

    number, _, place = finding.partition(".")
    if not (number.isdecimal() and place.isdecimal()):
        raise SettingsError(
            f"{finding}: write NUMBER.FINDING, such as 3.1 (clerk-desk advice list)"
        )
    with opened(config, sets) as desk:
        done = ask_people(desk, None, int(number), int(place) - 1)
    print(f"{done.new} tasks made, {done.known} were made before; batch {done.batches[0]}")


@proposal_app.command("load")
def load_proposal(file: File, config: Config = None, sets: Sets = None) -> None:
    """Load a proposal, which an owner answers on the page Proposals or with decide.

    Example: clerk-desk proposal load proposal.json -c config/desk.toml
    """
    from desk.service.circle import load_proposal as bring

    text = _text_of(file)
    with opened(config, sets) as desk:
        id_, is_new = bring(desk, text, file.name)
    print(f"proposal {id_} is {_how(is_new)}")


@proposal_app.command("list")
def list_proposals(config: Config = None, sets: Sets = None) -> None:
    """List all proposals, newest first: id, verdict, answer, summary."""
    from desk.service.circle import all_proposals

    with opened(config, sets) as desk:
        found = all_proposals(desk)
    for each in found:
        decided = "waiting" if each.decision is None else "yes" if each.decision.publish else "no"
        proposal = each.proposal
        print(f"{proposal.id}\t{proposal.verdict}\t{decided}\t{_line(proposal.headline)}")


@proposal_app.command("decide")
def decide(
    id_: Id,
    answer: Annotated[
        Literal["yes", "no"], typer.Argument(metavar="yes|no", help="Publish it as a canary?")
    ],
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="The reason, kept with the answer.")
    ] = "",
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Answer whether a proposal is published as a canary; export then writes the answer.

    Example: clerk-desk proposal decide 3f0a91c2 yes --note "few messages, but clear"
    """
    from desk.service import circle

    with opened(config, sets) as desk:
        ids = [each.proposal.id for each in circle.all_proposals(desk)]
        found = [each for each in ids if each.startswith(id_)]
        if len(found) != 1:
            problem = "no proposal's id begins" if not found else f"{len(found)} ids begin"
            raise SettingsError(f"{problem} with {id_}: clerk-desk proposal list shows all")
        circle.decide_proposal(desk, found[0], publish=answer == "yes", reason=note)
    print(f"decided: {answer}. Next: clerk-desk export, then clerk-trainer propose --decided")


def _how(is_new: bool) -> str:
    return "loaded" if is_new else "already loaded"


def _text_of(file: Path) -> str:
    """Return a file's text. Raises SettingsError."""
    from worker.contract.errors import RecordRefused
    from worker.contract.exchange import read_text

    try:
        return read_text(file)
    except RecordRefused as error:
        raise SettingsError(str(error)) from None


def _line(text: str) -> str:
    """Make text of a file safe to print: one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)
