"""``clerk-trainer promote``, ``rollback`` and ``list``: a store's pointers and its adapters."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.cli.shared import AsJson, Store, make_console, named, outcomes, print_text, show
from worker.contract.codec import encode

if TYPE_CHECKING:
    from trainer.store.record import Stored
    from worker.contract.store import CanaryPointer, Pointer


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("promote")(promote)
    app.command("rollback")(rollback)
    app.command("list")(list_adapters)


def promote(
    store: Store,
    reason: Annotated[
        str | None, typer.Option(help="Why: recorded in the history and in the pointer.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the canary current, for every key.

    It is verified first, file by file. Workers that serve it as a canary continue without loading
    it again.

    Example: clerk-trainer promote --store /adapters --reason "three days at a tenth"
    """
    with outcomes():
        from trainer.store import moves

        before, after = moves.promote_canary(store, reason=reason)
        result = {
            "schema": "promotion/1",
            "store": str(store),
            "from": encode(before),
            "current": encode(after),
        }
        text = f"{named(after)} is current; it was {named(before)}"
        _show(result, text, as_json=as_json)


def rollback(
    store: Store,
    reason: Annotated[str, typer.Option(help="Why: recorded in the history and in the pointer.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="DIGEST", help="The adapter to return to, by the first digits of its digest."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """End the canary if there is one; else make the previous adapter current again.

    With --to, the adapter named becomes current, and a canary stays. The adapter is verified
    first, file by file. A second rollback goes one adapter further back, not forward again; in
    scripts, --to makes a repeated command harmless.

    Example: clerk-trainer rollback --store /adapters --reason "refunds go to the wrong desk"
    """
    with outcomes():
        from trainer.store import moves
        from worker.contract.store import read_canary

        if to is None and read_canary(store) is not None:
            canary = moves.end_canary(store, reason=reason)
            result = {"schema": "canary-end/1", "store": str(store), "ended": encode(canary)}
            text = f"{named(canary)} is no longer the canary; what is current serves every key"
            _show(result, text, as_json=as_json)
            return
        before, after = moves.roll_back(store, to=to, reason=reason)
        result = {
            "schema": "rollback/1",
            "store": str(store),
            "moved": before != after,
            "from": asdict(before),
            "current": asdict(after),
        }
        text = f"{named(after)} is current; it was {named(before)}"
        if before == after:
            text = f"{named(after)} is current already: nothing was changed"
        _show(result, text, as_json=as_json)


def list_adapters(store: Store, as_json: AsJson = False) -> None:
    """Show a store's adapters: when they were published, how good they are, which is current.

    The figures are those of the evaluation that an adapter was published with, on its hold-out;
    figures of adapters whose hold-outs have different digests cannot be compared.

    Example: clerk-trainer list --store /adapters
    """
    with outcomes():
        from trainer.store.record import list_store
        from worker.contract.store import read_canary

        pointer, adapters = list_store(store)
        canary = read_canary(store)
        result = {
            "schema": "store-list/1",
            "store": str(store),
            "current": asdict(pointer) if pointer else None,
            "canary": encode(canary),
            "adapters": [asdict(adapter) for adapter in adapters],
        }
        show(
            result,
            make_console(as_json=as_json),
            lambda console: _print_list(store, pointer, canary, adapters, console),
            as_json=as_json,
        )


def _show(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    console = make_console(as_json=as_json)
    show(result, console, lambda console: print_text(console, text), as_json=as_json)


def _print_list(
    store: Path,
    pointer: Pointer | None,
    canary: CanaryPointer | None,
    adapters: list[Stored],
    console: Console,
) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("", "digest", "name", "published", "accuracy (95 %)", "macro-F1", "gate"):
        table.add_column(column, overflow="fold", no_wrap=column in {"digest", "name", "published"})
    table.add_column("hold-out")
    for adapter in adapters:
        table.add_row(
            _mark(adapter, canary),
            adapter.digest[:12],
            escape(adapter.name),
            (adapter.published_at or "-")[:10],
            _accuracy(adapter),
            "-" if adapter.macro_f1 is None else f"{adapter.macro_f1:.3f}",
            adapter.gate,
            _holdout(adapter),
        )
    console.print(table)
    if pointer is None:
        print_text(console, f"nothing is current in {store}")
        return
    print_text(
        console,
        f"* {named(pointer)} is current since {pointer.since}, by {pointer.by}"
        f"{_because(pointer.reason)}",
    )
    if canary is not None:
        print_text(
            console,
            f"~ {named(canary)} is the canary for {canary.share:g} of the keys since "
            f"{canary.since}, by {canary.by}{_because(canary.reason)}",
        )


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def _mark(adapter: Stored, canary: CanaryPointer | None) -> str:
    if adapter.current_since:
        return "*"
    return "~" if canary is not None and canary.digest == adapter.digest else ""


def _accuracy(adapter: Stored) -> str:
    if adapter.accuracy is None:
        return "-"
    if adapter.accuracy_interval_95 is None:
        return f"{adapter.accuracy:.1%}"
    low, high = adapter.accuracy_interval_95
    return f"{adapter.accuracy:.1%} ({low:.1%} to {high:.1%})"


def _holdout(adapter: Stored) -> str:
    if not adapter.holdout_sha256:
        return "-"
    part = "part, " if adapter.limited else ""
    return f"{adapter.holdout_sha256[:8]} ({part}{adapter.examples})"
