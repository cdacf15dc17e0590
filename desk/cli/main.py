"""``clerk-desk``: the commands and their help. Each imports its implementation when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from desk import __version__
from desk.cli.circle import advice_app, proposal_app, tasks_app
from desk.cli.label_command import label
from desk.cli.options import Config, Sets, command_group, load, load_typed, opened, opened_database
from desk.errors import (
    DeskStopped,
    Refused,
    SettingsError,
    TryAgain,
)
from worker.common.errors import EXIT_SETTINGS, EXIT_UNEXPECTED, run_program

_EPILOG = """
Settings come from defaults, a TOML file, `CLERK_DESK_*` environment variables and flags; later ones
override earlier ones. clerk-desk check-config checks them and shows where each comes from.

Exit codes: 0 done · 1 unexpected error · 2 wrong settings or usage · 3 the database cannot be used
· 4 Kafka cannot be used · 130 interrupted.
"""

app = typer.Typer(
    name="clerk-desk",
    help="The review desk: decide what the model was unsure of, and teach it.",
    epilog=_EPILOG,
    no_args_is_help=True,
    # Not "rich": it keeps a docstring's line breaks, so that 80 columns show ragged lines.
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel="Without Kafka")(label)
people_app = command_group("Users: add one with a password, change a password or a role, list all.")
app.add_typer(people_app, name="people", rich_help_panel="Reviewers")
app.add_typer(tasks_app, name="tasks", rich_help_panel="Decisions")
app.add_typer(advice_app, name="advice", rich_help_panel="Decisions")
app.add_typer(proposal_app, name="proposal", rich_help_panel="Decisions")


def main() -> NoReturn:
    """Run the command line and exit with its code; expected errors are one line, no traceback."""
    run_program("desk", app, _explain)


def _explain(error: Exception) -> tuple[str, int] | None:
    if isinstance(error, DeskStopped):
        return str(error), error.exit_code
    if isinstance(error, Refused):
        return str(error), EXIT_SETTINGS
    if isinstance(error, TryAgain):
        return f"{error}: try again", EXIT_UNEXPECTED
    return None


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"clerk-desk {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    del version


@app.command(rich_help_panel="Run it")
def run(config: Config = None, sets: Sets = None) -> None:
    """Run the desk: serve pages, read labels, write corrections, until SIGTERM or Ctrl-C.

    The pages are at http://127.0.0.1:8090 unless web.host and web.port say otherwise.

    Several replicas may run on one PostgreSQL database; one at a time does the background work.

    Example: clerk-desk run -c config/desk.toml
    """
    from desk.app import run_desk

    run_desk(load(config, sets))


@app.command(rich_help_panel="Run it")
def migrate(config: Config = None, sets: Sets = None) -> None:
    """Create or update the database's schema: before the first start, and after an upgrade.

    Example: clerk-desk migrate -c config/desk.toml
    """
    from desk.store.migrate import migrate as bring_up_to_date

    with opened_database(load(config, sets)) as database:
        print(f"the schema is version {bring_up_to_date(database)}")


@app.command(rich_help_panel="Try it")
def demo(
    messages: Annotated[
        int, typer.Option("--messages", "-n", min=1, help="Number of sample messages to stream.")
    ] = 150,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Keep the files of Kafka and the desk here, and resume from them.",
        ),
    ] = None,
) -> None:
    """Run everything on this machine: Kafka, a worker, sample messages, and this desk.

    Decide in the browser, on loopback and without sign-in. Corrections are shown as they arrive on
    their topic. Ctrl-C ends everything.

    Example: clerk-desk demo --folder demo
    """
    import os

    # desk must not import worker.demo: this process becomes the worker's demo, which starts both.
    given = ["--messages", str(messages)] + (["--folder", str(folder)] if folder else [])
    command = [sys.executable, "-m", "worker", "demo", "--desk", *given]
    os.execv(sys.executable, command)  # noqa: S606 - fixed arguments


@app.command("check-config", rich_help_panel="Run it")
def check_config(config: Config = None, sets: Sets = None) -> None:
    """Show every setting with its origin, and check them without a database or Kafka.

    Prints every problem and then exits 2; run refuses to start for the same reasons. Secrets are
    redacted.

    Example: clerk-desk check-config -c config/desk.toml
    """
    from desk.app import settings_problems
    from desk.settings import effective, load_settings

    loaded = load_settings(config, sets or ())
    for name, value, origin in effective(loaded):
        print(f"{name} = {value}  # {origin}")
    sys.stdout.flush()  # so that the problems come last if both streams go to one file
    problems = settings_problems(loaded.settings)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        sys.exit(EXIT_SETTINGS)


@app.command(rich_help_panel="Decisions")
def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files.")],
    ids: Annotated[
        Literal["message", "result"],
        typer.Option(
            help="Whether ids are the senders' or the results', which every message has.",
        ),
    ] = "message",
    project: Annotated[
        str,
        typer.Option(
            "--project",
            metavar="NAME",
            help="inbox: messages from Kafka; or a batch of tasks by its name, or all batches of a "
            "dataset by its digest (clerk-desk tasks list).",
        ),
    ] = "inbox",
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Write the decisions, with their messages, to files for clerk-trainer.

    messages.jsonl and decisions.csv are for clerk-trainer prepare (--input and --decisions).
    proposals/ID.json holds the answer to a proposal, for clerk-trainer propose --decided.

    Example: clerk-desk export --out decided -c config/desk.toml
    """
    from desk.service.upkeep import export as write

    with opened(config, sets) as desk:
        count, (messages, decisions, *proposals) = write(
            desk, out, project=project, by_message_id=ids == "message"
        )
    print(f"{count} decisions: {decisions}, with their messages in {messages}")
    for path in proposals:
        print(f"decided proposal: {path}")


@app.command(rich_help_panel="Keep it")
def backup(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="File to write; must not exist.")
    ],
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Copy the SQLite database to a file; the desk may run.

    The file holds messages and users' names. How to restore it, and how to back up PostgreSQL:
    docs/desk.md.

    Example: clerk-desk backup --out desk-2026-03-02.db
    """
    from desk.clock import now_ms
    from desk.service.upkeep import log_backup
    from desk.store.database import back_up

    with opened_database(load_typed(config, sets)) as database:
        size = back_up(database, out)
        log_backup(database, out, size, now_ms)
    print(f"{out}: {size / 1e6:.1f} MB")


@app.command(rich_help_panel="Keep it")
def purge(
    message_ids: Annotated[
        list[str] | None,
        typer.Option(
            "--message-id", metavar="ID", help="A message's id from its sender. Repeatable."
        ),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="KEY", help="The key of a customer's records, as text. Repeatable."
        ),
    ] = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Delete a customer's messages, with all ids and keys, from the database.

    Kafka, exports and backups may hold them too: docs/desk.md.

    Example: clerk-desk purge --key customer-17 -c config/desk.toml
    """
    from desk.service.upkeep import purge_person

    if not message_ids and not keys:
        raise SettingsError("no messages are chosen: give --message-id ID or --key KEY")
    with opened(config, sets) as desk:
        count = purge_person(
            desk,
            message_ids=message_ids or (),
            record_keys=[key.encode() for key in keys or ()],
        )
    print(f"messages deleted: {count}")


@app.command(rich_help_panel="Keep it")
def taxonomy(
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OLD=NEW",
            help="Carry decisions for an old label over to a new one. Repeatable.",
        ),
    ] = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Switch to the taxonomy in project.taxonomy. Stop the desk first.

    Decisions are carried over for labels that kept name and description, or that --map names. The
    others are reopened while their messages are in the database.

    Example: clerk-desk taxonomy --map parcel=delivery -c config/desk.toml
    """
    from desk.app import read_taxonomy
    from desk.clock import now_ms
    from desk.service.upkeep import change_taxonomy
    from worker.common.settings import split_assignment
    from worker.contract.taxonomy import label_name

    settings = load_typed(config, sets)
    pairs = {}
    for text in mapping or ():
        old, new = split_assignment(
            text, "--map", form="old=new", needs_value=True, error=SettingsError
        )
        pairs[label_name(old)] = label_name(new)
    with opened_database(settings) as database:
        counts = change_taxonomy(database, read_taxonomy(settings), pairs, now_ms)
    print(
        f"decisions carried over: {counts['carried']} · reopened: {counts['reopened']} · left, "
        f"their messages are gone: {counts['left']} · opened, which waited for this taxonomy: "
        f"{counts['opened']}"
    )


Name = Annotated[str, typer.Argument(metavar="NAME", help="The user name.")]
RoleName = Literal["reviewer", "adjudicator", "owner"]


@people_app.command()
def add(
    name: Name,
    role: Annotated[RoleName, typer.Option(help="The user's role.")] = "reviewer",
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Add a user with a password (sign_in.method = local), from a prompt or a pipe.

    Example: clerk-desk people add ada --role owner -c config/desk.toml
    """
    from desk.service.people import add_local

    with opened(config, sets) as desk:
        person = add_local(desk, name, name, role, _hashed())
    print(f"{name} may sign in as {role}; in corrections: {person.pseudonym}")


@people_app.command()
def password(name: Name, config: Config = None, sets: Sets = None) -> None:
    """Change a user's password, and sign the user out everywhere.

    Example: clerk-desk people password ada -c config/desk.toml
    """
    from desk.service.people import give_password

    with opened(config, sets) as desk:
        give_password(desk, name, _hashed())
    print(f"{name} has a new password")


@people_app.command()
def role(
    name: Name,
    new: Annotated[RoleName, typer.Argument(metavar="ROLE", help="reviewer, adjudicator, owner.")],
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Change a user's role; this makes the first owner, with any sign-in method.

    Example: clerk-desk people role ada owner -c config/desk.toml
    """
    from desk.service.people import give_role

    with opened(config, sets) as desk:
        give_role(desk, name, new)
    print(f"{name} is {new}")


@people_app.command("list")
def list_all(config: Config = None, sets: Sets = None) -> None:
    """List all users: name, role, pseudonym in records, and whether the account is closed."""
    from desk.service.people import everybody

    with opened(config, sets) as desk:
        for person in everybody(desk, None):
            state = "" if person.active else "\tclosed"
            print(f"{person.subject}\t{person.role}\t{person.pseudonym}{state}")


def _hashed() -> str:
    from desk.auth.passwords import hash_password

    if sys.stdin.isatty():
        given = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        given = sys.stdin.readline().rstrip("\n")
    try:
        return hash_password(given)
    except ValueError as error:
        raise SettingsError(str(error)) from None
