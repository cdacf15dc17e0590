"""Shared by the commands that ask a model over HTTP: its options, the key, and the question."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from trainer.cli.shared import make_console, print_text, show

if TYPE_CHECKING:
    from trainer.teacher.label import Asking, Endpoint, Forecast

PANEL = "Asking a model over HTTP"
_PER_MILLION = "dollars per million tokens [default: the price of genai-prices]."

_option = partial(typer.Option, rich_help_panel=PANEL)


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of every command that asks a model over HTTP."""

    model: Annotated[str | None, _option(metavar="NAME", help="The model's name there.")] = None
    budget: Annotated[
        str | None,
        _option(
            metavar="DOLLARS",
            help="The most to spend, over all runs with this --out. Needed unless prices are 0.",
        ),
    ] = None
    concurrency: Annotated[int, _option(min=1, max=256, help="Requests at a time.")] = 8
    no_redact: Annotated[
        bool,
        _option(
            "--no-redact",
            help="Send personal data as it is. By default mail addresses, phone numbers, cards, "
            "and IBANs are masked, by the rules of serving.",
        ),
    ] = False
    price_input: Annotated[
        str | None, _option(metavar="DOLLARS", help=f"Price of prompts, {_PER_MILLION}")
    ] = None
    price_output: Annotated[
        str | None, _option(metavar="DOLLARS", help=f"Price of answers, {_PER_MILLION}")
    ] = None
    answer_tokens: Annotated[
        int | None,
        _option(
            min=1,
            help="Most tokens of an answer [default: enough for the longest label]. Models that "
            "reason first need more, such as 2000.",
        ),
    ] = None
    key_env: Annotated[
        str, _option(metavar="NAME", help="Environment variable with the API key.")
    ] = "OPENAI_API_KEY"
    estimate: Annotated[
        bool, _option("--estimate", help="Only say what it would cost; nothing is sent.")
    ] = False
    yes: Annotated[
        bool, _option("--yes", help="Do not ask; needed where there is no terminal.")
    ] = False

    @property
    def terms(self) -> dict[str, Any]:
        """The terms of an ``Endpoint``."""
        return {
            "budget": self.budget, "concurrency": self.concurrency, "redacts": not self.no_redact,
            "price_input": self.price_input, "price_output": self.price_output,
            "answer_tokens": self.answer_tokens,
        }  # fmt: skip


def asks_a_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of ``Asked`` to a command, which gets their values as ``asked``."""
    own = inspect.signature(command, eval_str=True).parameters
    kinds = get_type_hints(Asked, include_extras=True)
    more = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=kinds[each.name],
        )
        for each in fields(Asked)
    ]

    @wraps(command)
    def with_options(**given: Any) -> None:
        asked = Asked(**{each.name: given.pop(each.name) for each in more})
        command(**given, asked=asked)

    # typer reads options from a signature, as for prepare.
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*(each for name, each in own.items() if name != "asked"), *more]
    )
    return with_options


def find_endpoint(option: str, url: str | None, asked: Asked, ledger: Path) -> Endpoint | None:
    """Return the endpoint at the address that ``option`` gives; None without it. Raises BadInput
    for a model without an address or the reverse, and without a key."""
    from trainer.errors import BadInput
    from trainer.teacher.client import check_url
    from trainer.teacher.label import Endpoint

    if url is None:
        for other, given in (("--model", asked.model), ("--estimate", asked.estimate)):
            if given:
                raise BadInput(f"{other} belongs to {option}: give the endpoint's address too")
        return None
    if asked.model is None:
        raise BadInput(f"{option} needs --model: the model's name there")
    check_url(url, option)
    return Endpoint(url, asked.model, *_find_key(url, asked.key_env), ledger, **asked.terms)


def _find_key(url: str, key_env: str) -> tuple[str, str | None]:
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


def agree(
    asked: Asked,
    lines: Sequence[str],
    facts: Mapping[str, Any],
    open_: int,
    *,
    as_json: bool,
    question: str = "Send them?",
) -> bool:
    """Say what leaves and what it costs, and ask, before anything is sent. False if that was all
    that is wanted (--estimate). ``facts`` are the same as JSON, ``open_`` counts what is asked.
    Raises BadInput for a no, and without a terminal."""
    from trainer.errors import BadInput

    if asked.estimate:
        show(facts, "\n".join(lines), as_json=as_json)
        return False
    # On standard error with --json, where standard output is for the result alone.
    console = make_console(as_json=as_json)
    print_text(console, "\n".join(lines))
    if not open_ or asked.yes:
        return True
    if not sys.stdin.isatty():
        raise BadInput(
            "nothing was sent: there is no terminal to ask at: add --yes if this is right"
        )
    if not typer.confirm(question, err=console.stderr):
        raise BadInput("nothing was sent")
    return True


def forecast_facts(asking: Asking, ahead: Forecast) -> dict[str, Any]:
    """Return what is left to do, and what it costs, as JSON."""
    from trainer.teacher.prices import dollars

    return {
        "open": ahead.open,
        "price": asking.job.price.words,
        "budget": None if asking.budget is None else dollars(asking.budget),
        "spent": dollars(asking.spent),
        "expected": dollars(ahead.expected),
        "seconds": round(ahead.seconds, 1),
    }
