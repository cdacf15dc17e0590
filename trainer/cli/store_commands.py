"""``clerk-trainer``'s commands publish, rollback and list."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.cli.shared import AsJson, make_console, outcomes, show
from trainer.errors import BadInput
from worker.contract.codec import encode

if TYPE_CHECKING:
    from trainer.store.listing import Stored
    from trainer.store.publish import Plan
    from worker.contract.store import CanaryPointer, Pointer

Store = Annotated[
    Path,
    typer.Option(
        "--store", help="The adapter store: a folder that workers read.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("publish")(publish)
    app.command("promote")(promote)
    app.command("rollback")(rollback)
    app.command("list")(list_adapters)


def publish(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_ADAPTER",
            help="A run folder (its adapter/ and evaluation/ are used) or an adapter's folder.",
        ),
    ],
    *,
    store: Store,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            help="Folder with evaluation.json and predictions.jsonl of this adapter; "
            "default: evaluation/ in the run folder.",
        ),
    ] = None,
    current_evaluation: Annotated[
        Path | None,
        typer.Option(
            help="Evaluation of the adapter that is current, on the same hold-out as the new "
            "one's; default: the one it was published with.",
        ),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(help="TOML file with the gate's rules, as config/gate.toml (the defaults)."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One rule of the gate, over the file; repeatable."
        ),
    ] = None,
    allow_unpaired: Annotated[
        bool,
        typer.Option(
            "--allow-unpaired",
            help="Publish also where a comparison with the current adapter "
            "on the same hold-out is impossible.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Publish though the gate says no; needs --reason."),
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(help="Why; recorded with the adapter, in the history and in the pointer."),
    ] = None,
    canary: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Put it on trial for this share of the keys (0.05: a twentieth) and leave the "
            "current one; again with another share to change it.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge and tell; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an adapter current in a store, if it passes the gate.

    The gate wants an evaluation of exactly this adapter on a whole hold-out; floors on accuracy,
    macro-F1 and every label's recall; no answer outside the label set; a small calibration error;
    and no significant regression against the adapter that is current now (McNemar's exact test on
    the same messages). Each criterion is a row: wanted, found, pass or fail. If any fails,
    nothing is changed and the exit code is 3.

    The adapter is copied beside its place, verified, renamed into it, and the pointer is moved
    last: a kill at any moment leaves the old adapter serving, and the same command again
    completes. Running workers whose model.adapter names the store try the new one and take it
    up within seconds, or refuse it and go on with the old one (clerk-worker adapters).

    Examples:

      clerk-trainer publish runs/one --store /adapters

      clerk-trainer publish runs/one --store /adapters --canary 0.05

      clerk-trainer publish runs/one --store /adapters --set label_recall=0.6 --dry-run

      clerk-trainer publish runs/one --store /adapters --force --reason "new label set"
    """
    with outcomes():
        from trainer.store.publish import carry_out, plan_publication
        from trainer.store.rules import load_rules

        console = make_console(as_json=as_json)
        if force and not (reason and reason.strip()):
            raise BadInput("--force needs --reason TEXT: it is recorded with the adapter")
        if canary == 0:
            raise BadInput("--canary 0 is no trial: clerk-trainer rollback ends one")
        plan = plan_publication(
            source,
            store,
            evaluation=evaluation,
            current_evaluation=current_evaluation,
            rules=load_rules(gate, sets or []),
            allow_unpaired=allow_unpaired,
            allow_unjudged=force,
        )
        passed = plan.verdict.passed
        nothing_to_do = plan.is_current and (not force or canary is not None)
        if not as_json and not nothing_to_do:
            _print_gate(plan, console)
        if nothing_to_do:
            outcome, pointer = "already_current", plan.current
        elif not passed and not force:
            outcome, pointer = "refused", plan.current
        elif dry_run:
            outcome, pointer = "would_publish", plan.current
        else:
            outcome = "published" if canary is None else "on_trial"
            pointer = carry_out(plan, force=force, reason=reason, canary_share=canary)
        show(
            _publication(plan, outcome, pointer),
            console,
            lambda console: _print_publication(plan, outcome, pointer, console),
            as_json=as_json,
        )
        if outcome == "refused":
            carry_out(plan)  # raises NotGoodEnough


def promote(
    store: Store,
    reason: Annotated[
        str | None, typer.Option(help="Why; recorded in the history and in the pointer.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the adapter that is on trial current, for every key.

    It is verified first, file by file. Workers that serve it as a canary go on with it without
    loading it again.

    Example: clerk-trainer promote --store /adapters --reason "three days at a tenth"
    """
    with outcomes():
        from trainer.store.promote import promote as promote_canary

        before, after = promote_canary(store, reason=reason)
        result = {
            "schema": "promotion/1",
            "store": str(store),
            "from": encode(before),
            "current": encode(after),
        }
        text = f"{_named(after)} is current; it was {_named(before)}"
        show(
            result,
            make_console(as_json=as_json),
            lambda console: console.print(escape(text), soft_wrap=True),
            as_json=as_json,
        )


def rollback(
    store: Store,
    reason: Annotated[str, typer.Option(help="Why; recorded in the history and in the pointer.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="DIGEST", help="The adapter to go to, by the beginning of its digest."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """End a trial if there is one; else make the previous adapter current again.

    With --to the adapter named becomes current, and a trial goes on. The adapter is verified
    first, file by file. A second rollback goes one further back, not forward again; in scripts,
    --to makes a repeated command harmless.

    Example: clerk-trainer rollback --store /adapters --reason "refunds go to the wrong desk"
    """
    with outcomes():
        from trainer.store.promote import end_canary
        from trainer.store.rollback import roll_back
        from worker.contract.store import read_canary

        if to is None and read_canary(store) is not None:
            _show_ended(store, end_canary(store, reason=reason), as_json=as_json)
            return
        before, after = roll_back(store, to=to, reason=reason)
        result = {
            "schema": "rollback/1",
            "store": str(store),
            "moved": before != after,
            "from": asdict(before),
            "current": asdict(after),
        }

        def tell(console: Console) -> None:
            if before == after:
                text = f"{_named(after)} is current already: nothing was changed"
            else:
                text = f"{_named(after)} is current; it was {_named(before)}"
            console.print(escape(text), soft_wrap=True)

        show(result, make_console(as_json=as_json), tell, as_json=as_json)


def list_adapters(store: Store, as_json: AsJson = False) -> None:
    """Show a store's adapters: when they came, how good they are, which one is current.

    The figures are those of the evaluation an adapter was published with, on its hold-out;
    adapters with another hold-out's digest are not comparable.

    Example: clerk-trainer list --store /adapters
    """
    with outcomes():
        from trainer.store.listing import list_store
        from worker.contract.store import read_canary

        pointer, adapters = list_store(store)
        canary = read_canary(store)
        result = {
            "schema": "store-list/1",
            "store": str(store),
            "current": asdict(pointer) if pointer else None,
            "canary": encode(canary),
            "adapters": [asdict(one) for one in adapters],
        }
        show(
            result,
            make_console(as_json=as_json),
            lambda console: _print_list(store, pointer, canary, adapters, console),
            as_json=as_json,
        )


def _show_ended(store: Path, canary: CanaryPointer, *, as_json: bool) -> None:
    result = {"schema": "trial-end/1", "store": str(store), "ended": encode(canary)}
    text = f"{_named(canary)} is on trial no more; what is current serves every key"
    show(
        result,
        make_console(as_json=as_json),
        lambda console: console.print(escape(text), soft_wrap=True),
        as_json=as_json,
    )


def _publication(plan: Plan, outcome: str, pointer: Pointer | None) -> dict[str, Any]:
    from trainer.store.record import gate_record

    judged = outcome != "already_current"
    forced = outcome in {"published", "on_trial"} and not plan.verdict.passed
    return {
        "schema": "publication/1",
        "outcome": outcome,
        "store": str(plan.store),
        "digest": plan.manifest.digest,
        "name": plan.manifest.name,
        "current": asdict(pointer) if pointer else None,
        "gate": gate_record(plan.verdict, plan.rules, forced=forced) if judged else None,
    }


def _print_gate(plan: Plan, console: Console) -> None:
    title = f"gate: {escape(plan.manifest.name)} ({plan.manifest.digest[:12]})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("criterion", "wanted", "found", ""):
        table.add_column(column, overflow="fold")
    for one in plan.verdict.criteria:
        mark = "[green]pass[/green]" if one.passed else "[bold red]FAIL[/bold red]"
        table.add_row(escape(one.name), escape(one.wanted), escape(one.found), mark)
    console.print(table)
    if plan.way_to_compare and not plan.verdict.passed:
        console.print(escape(plan.way_to_compare), soft_wrap=True)


def _print_publication(plan: Plan, outcome: str, pointer: Pointer | None, console: Console) -> None:
    new, store = f"{plan.manifest.name} ({plan.manifest.digest[:12]})", plan.store
    before = f"current is {_named(pointer)}" if pointer else "nothing is current"
    since = pointer.since if pointer else ""
    text = {
        "already_current": f"{new} is current in {store} already, since {since}: nothing to do",
        "refused": f"refused; {before}, as before",
        "would_publish": f"{new} would become current in {store}; {before} and stays so (dry run)",
        "on_trial": f"{new} is on trial in {store}; {before}, as before",
        "published": f"{new} is current in {store}"
        + ("" if plan.verdict.passed else ", by force; the reason is recorded"),
    }[outcome]
    console.print(escape(text), soft_wrap=True)


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
    for one in adapters:
        table.add_row(
            _mark(one, canary),
            one.digest[:12],
            escape(one.name),
            (one.published_at or "-")[:10],
            _accuracy(one),
            "-" if one.macro_f1 is None else f"{one.macro_f1:.3f}",
            one.gate,
            _holdout(one),
        )
    console.print(table)
    if pointer is None:
        console.print(escape(f"nothing is current in {store}"), soft_wrap=True)
        return
    why = f": {pointer.reason}" if pointer.reason else ""
    console.print(
        escape(f"* {_named(pointer)} is current since {pointer.since}, by {pointer.by}{why}"),
        soft_wrap=True,
    )
    if canary is not None:
        why = f": {canary.reason}" if canary.reason else ""
        console.print(
            escape(
                f"~ {_named(canary)} is on trial for {canary.share:g} of the keys since "
                f"{canary.since}, by {canary.by}{why}"
            ),
            soft_wrap=True,
        )


def _mark(one: Stored, canary: CanaryPointer | None) -> str:
    if one.current_since:
        return "*"
    return "~" if canary is not None and canary.digest == one.digest else ""


def _accuracy(one: Stored) -> str:
    if one.accuracy is None:
        return "-"
    if one.accuracy_interval_95 is None:
        return f"{one.accuracy:.1%}"
    low, high = one.accuracy_interval_95
    return f"{one.accuracy:.1%} ({low:.1%} to {high:.1%})"


def _holdout(one: Stored) -> str:
    if not one.holdout_sha256:
        return "-"
    return f"{one.holdout_sha256[:8]} ({'part, ' if one.limited else ''}{one.examples})"


def _named(pointer: Pointer | CanaryPointer) -> str:
    return f"{pointer.name} ({pointer.digest[:12]})"
