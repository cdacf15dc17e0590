"""``clerk-desk people``: who may work here, for whoever runs the desk."""

from __future__ import annotations

import sys
from typing import Annotated, cast

import typer

from desk.cli.options import Config, Sets
from desk.errors import SettingsError
from desk.store.types import Role

people_app = typer.Typer(
    help="People who sign in: add one with a password, change a password or a role, list all.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name they sign in by.")]
RoleFlag = Annotated[str, typer.Option("--role", help="reviewer, adjudicator or owner.")]


@people_app.command()
def add(name: Name, role: RoleFlag = "reviewer", config: Config = None, sets: Sets = None) -> None:
    """Add somebody with a password (sign_in.method = local), asked for, or read from a pipe.

    Example: clerk-desk people add ada --role owner -c config/desk.toml
    """
    from desk.cli.load import opened
    from desk.service.signing_in import add_local

    checked = _role(role)
    if not 0 < len(name) <= 200 or name != name.strip():
        raise SettingsError("NAME has 1 to 200 characters, and no blanks around it")
    with opened(config, sets) as (_, desk):
        person = add_local(desk, name, name, checked, _hashed())
    print(f"{name} may sign in as {role}; corrections name them {person.pseudonym}")


@people_app.command()
def password(name: Name, config: Config = None, sets: Sets = None) -> None:
    """Give somebody another password, and sign them out everywhere."""
    from desk.cli.load import opened
    from desk.service.signing_in import give_password

    with opened(config, sets) as (_, desk):
        give_password(desk, name, _hashed())
    print(f"{name} has another password")


@people_app.command()
def role(
    name: Name,
    new: Annotated[str, typer.Argument(metavar="ROLE", help="reviewer, adjudicator or owner.")],
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Give somebody another role: how a first owner is made, however people sign in."""
    from desk.cli.load import opened
    from desk.service.signing_in import give_role

    checked = _role(new)
    with opened(config, sets) as (_, desk):
        give_role(desk, name, checked)
    print(f"{name} is {new}")


@people_app.command("list")
def list_all(config: Config = None, sets: Sets = None) -> None:
    """Show everybody: name, role, the pseudonym that records have, whether the account is open."""
    from desk.cli.load import opened
    from desk.service.signing_in import all_people

    with opened(config, sets) as (_, desk):
        for person in all_people(desk):
            state = "" if person.active else "\tclosed"
            print(f"{person.subject}\t{person.role}\t{person.pseudonym}{state}")


def _role(given: str) -> Role:
    if given not in {"reviewer", "adjudicator", "owner"}:
        raise SettingsError(f"{given} is no role: reviewer, adjudicator or owner")
    return cast("Role", given)


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
