"""What every command shares: one-line errors with exit codes, and a result for machines."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from trainer.errors import BadInput, NotGoodEnough, ProofFailed
from worker.contract import ContractError

EXIT_BAD_INPUT = 2
EXIT_NOT_GOOD_ENOUGH = 3
EXIT_PROOF_FAILED = 4
EXIT_INTERRUPTED = 130

AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object; the rest goes to stderr."),
]
"""The option that every command takes."""

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (BadInput, EXIT_BAD_INPUT),
    (ContractError, EXIT_BAD_INPUT),
    (NotGoodEnough, EXIT_NOT_GOOD_ENOUGH),
    (ProofFailed, EXIT_PROOF_FAILED),
)


@contextmanager
def outcomes() -> Iterator[None]:
    """Turn the errors raised on purpose into one line on standard error and an exit code."""
    try:
        yield
    except tuple(kind for kind, _ in _CODES) as error:
        code = next(code for kind, code in _CODES if isinstance(error, kind))
        _leave(str(error), code)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT}:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _leave(f"{where}{error.strerror}: nothing was published or half-written", EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        _leave("interrupted", EXIT_INTERRUPTED)


def make_console(*, as_json: bool) -> Console:
    """Return where people read along: standard output, or standard error beside JSON."""
    return Console(stderr=as_json, highlight=False)


def show(
    result: Mapping[str, Any], console: Console, text: Callable[[Console], None], *, as_json: bool
) -> None:
    """Print a result, for people by ``text`` or for machines as one JSON object."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False, allow_nan=False, default=str))
    else:
        text(console)


def _leave(message: str, code: int) -> None:
    print(f"clerk-trainer: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(code) from None
