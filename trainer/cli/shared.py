"""Shared by the commands: options, one-line errors with exit codes, results as text or JSON."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from trainer.errors import BadInput, NotGoodEnough, ProofFailed
from worker.common.bucket import called, is_url
from worker.contract import ContractError
from worker.contract.store import CanaryPointer, Pointer

_FILE_COLUMNS = 140

EXIT_BAD_INPUT = 2
EXIT_NOT_GOOD_ENOUGH = 3
EXIT_PROOF_FAILED = 4
EXIT_INTERRUPTED = 130

MessageColumn = Annotated[
    str | None, typer.Option(help="Column of the message [default: a guess].")
]

AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object; the rest goes to stderr."),
]
"""The option that every command has."""

SignKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="An Ed25519 private key (PEM) that signs what is published, for workers with "
        "adapters.require_signature.",
    ),
]

_DATASET = typer.Option("--dataset", metavar="DIR", help="A dataset folder of prepare.")


def folder_of(given: Any) -> Any:
    """Return the folder of a model that an option names on the hub, anything else as it is."""
    if given is None or "/" not in str(given):
        return given
    from trainer.model.hub import local_folder

    with outcomes():
        return type(given)(local_folder(Path(given)))


DatasetFolder = Annotated[Path, _DATASET]
OptionalDataset = Annotated[Path | None, _DATASET]
Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="DIR|NAME|auto",
        callback=folder_of,
        help="The base model's directory, or OWNER/NAME[@REVISION] of one that clerk-trainer base "
        "get has fetched; auto: one of this machine's [default: auto].",
    ),
]

Embeddings = Annotated[
    str,
    typer.Option(
        "--embeddings",
        metavar="DIR|NAME|auto|none",
        callback=folder_of,
        help="A sentence embedding model's directory; auto: the installed one, if any.",
    ),
]
Texts = Annotated[
    list[Path] | None,
    typer.Option(
        "--messages",
        metavar="FILE",
        help="Texts of messages that are not in the dataset: tasks, or messages.jsonl of the "
        "desk's export. Repeatable.",
    ),
]
Guideline = Annotated[
    str | None,
    typer.Option(
        "--guideline", metavar="VERSION", help="Current version of the labelling guideline."
    ),
]
GateFile = Annotated[
    Path | None,
    typer.Option(
        "--gate",
        metavar="FILE",
        help="TOML file with the gate's rules, such as config/gate.toml (the defaults).",
    ),
]
GateSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A rule of the gate, over the file's. Repeatable."
    ),
]


def store_of(given: str) -> Path:
    """Return the folder of a store: for a URL of a bucket, a copy for this process."""
    if not is_url(given):
        return Path(given)
    from trainer.store.remote import open_store

    with outcomes():
        return open_store(given)


Store = Annotated[
    Path,
    typer.Option(
        "--store",
        metavar="DIR|URL",
        parser=store_of,
        help="The adapter store that workers read: a folder, or s3://, gs:// or az://BUCKET/PREFIX "
        "(docs/buckets.md).",
    ),
]

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (BadInput, EXIT_BAD_INPUT),
    (ContractError, EXIT_BAD_INPUT),
    (NotGoodEnough, EXIT_NOT_GOOD_ENOUGH),
    (ProofFailed, EXIT_PROOF_FAILED),
)


_FREE = "free some space, or write to another disk"
_WRITABLE = "write to another folder, or get the right to write there"
_REMEDIES = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EACCES: _WRITABLE,
    errno.EROFS: _WRITABLE,
}


@contextmanager
def outcomes() -> Iterator[None]:
    """Turn expected errors into lines on standard error, one for each problem, and an exit code."""
    try:
        yield
    except tuple(kind for kind, _ in _CODES) as error:
        code = next(code for kind, code in _CODES if isinstance(error, kind))
        lines = error.lines if isinstance(error, BadInput) else (str(error),)
        _leave(*lines, code=code)
    except OSError as error:
        # A full disk or missing rights are the user's to fix; any other OSError is a bug.
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _leave(f"{where}{error.strerror}: {remedy}", code=EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        _leave("interrupted", code=EXIT_INTERRUPTED)


def make_console(*, as_json: bool) -> Console:
    """Return the console for text: standard output, or standard error with --json. A file or a pipe
    gets a width at which no table is cut off."""
    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_COLUMNS
    return console


def show(
    result: Mapping[str, Any], text: str | Callable[[Console], None], *, as_json: bool
) -> None:
    """Print a result: as one JSON object, or as a text, which is given or printed by ``text``."""
    if as_json:
        print(called(json.dumps(result, ensure_ascii=False, allow_nan=False, default=str)))
    elif isinstance(text, str):
        print_text(make_console(as_json=False), text)
    else:
        text(make_console(as_json=False))


def print_text(console: Console, text: str) -> None:
    """Print a text without wrapping it, and without reading brackets as markup."""
    console.print(escape(called(text)), soft_wrap=True)


def embedding_model(given: str) -> Path | None:
    """Return the directory of the model given with --embeddings; None for no embeddings."""
    if given != "auto":
        return None if given == "none" else Path(given)
    from worker.common.base_model import find_embedding_model

    return find_embedding_model()


def base_of(given: str | None, adapter: Path) -> Path | None:
    """Return the directory of an adapter's base as given with --base. "auto" is the one that its
    training used, or another with the digests in its manifest; None if it needs none. Raises
    BadInput, AdapterRefused."""
    from trainer.model.bases import resolve_base
    from trainer.model_card import read_training
    from worker.contract import read_manifest

    manifest = read_manifest(adapter)
    training = read_training(adapter.resolve().parent, manifest)
    known = training.base.directory if training else None
    return resolve_base(given, manifest, others=(Path(known),) if known else ())


def named(adapter: Pointer | CanaryPointer) -> str:
    """Return an adapter's name with the start of its digest."""
    return f"{adapter.name} ({adapter.digest[:12]})"


def _leave(*problems: str, code: int) -> None:
    lines = [called(" ".join(problem.split())) for problem in problems]
    if len(lines) > 1:
        lines = [f"{len(lines)} problems:", *(f"  - {line}" for line in lines)]
    print("clerk-trainer: " + "\n".join(lines), file=sys.stderr)
    raise typer.Exit(code) from None
