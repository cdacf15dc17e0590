"""Shared by the commands that ask a model over HTTP: its options, the key, and the question."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from trainer.teacher.label import Endpoint

PANEL = "Asking a model over HTTP"
_PER_MILLION = "dollars per million tokens [default: the price of genai-prices]."

ModelThere = Annotated[
    str | None,
    typer.Option(metavar="NAME", rich_help_panel=PANEL, help="The model's name there."),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="DOLLARS",
        rich_help_panel=PANEL,
        help="The most to spend, over all runs with this --out. Needed unless prices are 0.",
    ),
]
Concurrency = Annotated[
    int, typer.Option(min=1, max=256, rich_help_panel=PANEL, help="Requests at a time.")
]
NoRedact = Annotated[
    bool,
    typer.Option(
        "--no-redact",
        rich_help_panel=PANEL,
        help="Send personal data as it is. By default mail addresses, phone numbers, cards, "
        "and IBANs are masked, by the rules of serving.",
    ),
]
PriceInput = Annotated[
    str | None,
    typer.Option(
        metavar="DOLLARS", rich_help_panel=PANEL, help=f"Price of prompts, {_PER_MILLION}"
    ),
]
PriceOutput = Annotated[
    str | None,
    typer.Option(
        metavar="DOLLARS", rich_help_panel=PANEL, help=f"Price of answers, {_PER_MILLION}"
    ),
]
AnswerTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=PANEL,
        help="Most tokens of an answer [default: enough for the longest label]. Models that "
        "reason first need more, such as 2000.",
    ),
]
KeyEnv = Annotated[
    str,
    typer.Option(
        metavar="NAME", rich_help_panel=PANEL, help="Environment variable with the API key."
    ),
]
Estimate = Annotated[
    bool,
    typer.Option(
        "--estimate",
        rich_help_panel=PANEL,
        help="Only say what it would cost; nothing is sent.",
    ),
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes",
        rich_help_panel=PANEL,
        help="Do not ask; needed where there is no terminal.",
    ),
]


def find_endpoint(
    option: str,
    url: str | None,
    model: str | None,
    key_env: str,
    ledger: Path,
    *,
    only: bool,
    **asked: Any,
) -> Endpoint | None:
    """Return whom to ask, at the address that ``option`` gives; None without it. ``only``: just the
    cost is asked for; ``asked`` are the other terms. Raises BadInput for a part without the other,
    and without a key."""
    from trainer.errors import BadInput
    from trainer.teacher.client import check_url
    from trainer.teacher.label import Endpoint

    if url is None:
        for other, is_given in (("--model", model is not None), ("--estimate", only)):
            if is_given:
                raise BadInput(f"{other} belongs to {option}: give the endpoint's address too")
        return None
    if model is None:
        raise BadInput(f"{option} needs --model: the model's name there")
    check_url(url, option)
    return Endpoint(url, model, *find_key(url, key_env), ledger, **asked)


def find_key(url: str, key_env: str) -> tuple[str, str | None]:
    """Return the key and the variable that it is in. A server on this machine needs none. Raises
    BadInput."""
    from trainer.errors import BadInput
    from trainer.teacher.client import is_local

    if key := os.environ.get(key_env, "").strip():
        return key, key_env
    if not is_local(url):
        raise BadInput(
            f"{key_env} is not set: put the API key there, or name another variable by --key-env "
            "(if the server needs no key, set it to any word)"
        )
    return "none", None


def ask_to_send(console: Console, question: str = "Send them?") -> None:
    """Ask before anything is sent. Raises BadInput for a no, and without a terminal."""
    from trainer.errors import BadInput

    if not sys.stdin.isatty():
        raise BadInput(
            "nothing was sent: there is no terminal to ask at: add --yes if this is right"
        )
    if not typer.confirm(question, err=console.stderr):
        raise BadInput("nothing was sent")
