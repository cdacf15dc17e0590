"""``clerk-trainer publish``: an adapter into a store, past the gate."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.cli.shared import AsJson, Store, make_console, named, outcomes, print_text, show
from trainer.errors import BadInput

if TYPE_CHECKING:
    from trainer.store.plan import Plan
    from worker.contract.store import Pointer


class ProbeOption(StrEnum):
    """Whose messages workers try an adapter on."""

    WRITTEN = "written"
    VALIDATION = "validation"
    OFF = "off"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("publish")(publish)


def publish(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_ADAPTER",
            help="A run folder (its adapter/ and evaluation/ are used) or an adapter's directory.",
        ),
    ],
    *,
    store: Store,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with evaluation.json and predictions.jsonl of this adapter "
            "[default: evaluation/ in the run folder].",
        ),
    ] = None,
    current_evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Evaluation of the adapter that is current, on the same hold-out as the new "
            "adapter's [default: the evaluation it was published with].",
        ),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with the gate's rules, such as config/gate.toml (the defaults).",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A rule of the gate, over the file's. Repeatable."
        ),
    ] = None,
    allow_unpaired: Annotated[
        bool,
        typer.Option(
            "--allow-unpaired",
            help="Publish even where a comparison with the current adapter on the same hold-out is "
            "impossible.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Publish although the gate refuses; needs --reason.")
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(help="Why: recorded with the adapter, in the history and in the pointer."),
    ] = None,
    canary: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Make it a canary for this share of the keys (0.05: a twentieth) and leave the "
            "current adapter; repeated with another share, change the share.",
        ),
    ] = None,
    probes: Annotated[
        ProbeOption | None,
        typer.Option(
            help="Whose messages go into the store, as text, for workers to try the adapter on: "
            "'written', by somebody who knew (evaluate --probes); 'validation', of customers; or "
            "'off', none, and workers start it untried [default: what is there already, or written "
            "where the evaluation has some, else off]."
        ),
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What of the run's duel to publish: its adapter, an encoder that took part, or a "
            "baseline that a worker can serve, which is trained and evaluated first.",
        ),
    ] = "adapter",
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset", metavar="DIR", help="With --what: the dataset [default: the duel's]."
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="With --what: the embedding model [default: the installed one]."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge and report; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an adapter current in a store, if it passes the gate.

    The gate asks for an evaluation of exactly this adapter on a whole hold-out; floors on
    accuracy, macro-F1 and every label's recall (by the ends of their intervals); no answer outside
    the label set; a small calibration error; and proof that it is not worse than the adapter that
    is current now by non_inferiority_margin or more (on the same messages; too few of them prove
    nothing, and the row says how many it takes). Each criterion is a row: wanted, found, pass or
    fail. If any fails, nothing is changed and the exit code is 3.

    The adapter is copied beside its place, verified, renamed into it, and the pointer is moved
    last: a kill at any moment leaves the old adapter serving, and the same command again
    completes. Running workers whose model.adapter names the store try the new adapter and take
    it up within seconds, or refuse it and stay with the old one (clerk-worker adapters).

    --what NAME publishes another candidate of the run's duel through the same gate: an encoder that
    took part, or a baseline of sentence embeddings, which becomes a model of the kind
    embedding-linear in RUN/baselines/NAME and is evaluated there (the hold-out's opening is
    counted).

    Workers try an adapter on probes, messages whose labels are known. None of customers goes into
    the store unless --probes validation says so; the file of probes is for its owner and the
    group of the store's folder.

    Examples:

      clerk-trainer publish runs/one --store /adapters

      clerk-trainer publish runs/one --store /adapters --canary 0.05

      clerk-trainer publish runs/one --store /adapters --set label_recall=0.6 --dry-run

      clerk-trainer publish runs/one --store /adapters --what embeddings-sublabels

      clerk-trainer publish runs/one --store /adapters --force --reason "new label set"
    """
    with outcomes():
        from trainer.cli.what import choose_what
        from trainer.store.gate_rules import load_rules
        from trainer.store.plan import plan_publication

        if force and not (reason and reason.strip()):
            raise BadInput("--force needs --reason TEXT: it is recorded with the adapter")
        if canary == 0:
            raise BadInput("--canary 0 is no canary: clerk-trainer rollback ends one")
        run = choose_what(
            source,
            what,
            dataset=dataset,
            embeddings=embeddings,
            console=make_console(as_json=as_json),
        )
        plan = plan_publication(
            run,
            store,
            evaluation=evaluation,
            current_evaluation=current_evaluation,
            rules=load_rules(gate, sets or []),
            allow_unpaired=allow_unpaired,
            allow_unjudged=force,
            probes=probes.value if probes else None,
        )
        _carry_out(
            plan, force=force, reason=reason, canary=canary, dry_run=dry_run, as_json=as_json
        )


def _carry_out(
    plan: Plan,
    *,
    force: bool,
    reason: str | None,
    canary: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from trainer.store.probes import describe
    from trainer.store.publish import publish_adapter

    console = make_console(as_json=as_json)
    nothing_to_do = plan.is_current and (not force or canary is not None)
    if not as_json and not nothing_to_do:
        _print_gate(plan, console)
    if nothing_to_do:
        outcome, pointer = "already_current", plan.current
    elif not plan.verdict.passed and not force:
        outcome, pointer = "refused", plan.current
    elif dry_run:
        outcome, pointer = "would_publish", plan.current
    else:
        outcome = "published" if canary is None else "canary"
        pointer = publish_adapter(plan, force=force, reason=reason, canary_share=canary)
    if outcome in {"published", "canary", "would_publish"}:
        print_text(console, describe(plan.store, plan.manifest.digest, plan.probes))
    show(
        _result(plan, outcome, pointer),
        console,
        lambda console: print_text(console, _sentence(plan, outcome, pointer)),
        as_json=as_json,
    )
    if outcome == "refused":
        publish_adapter(plan)  # raises NotGoodEnough


def _result(plan: Plan, outcome: str, pointer: Pointer | None) -> dict[str, Any]:
    from trainer.store.record import make_gate_record

    forced = outcome in {"published", "canary"} and not plan.verdict.passed
    gate = make_gate_record(plan.verdict, plan.rules, forced=forced)
    return {
        "schema": "publication/2",
        "outcome": outcome,
        "store": str(plan.store),
        "digest": plan.manifest.digest,
        "name": plan.manifest.name,
        "current": asdict(pointer) if pointer else None,
        "probes": None
        if outcome == "already_current"
        else {"choice": plan.probes.choice, "count": plan.probes.count},
        "gate": None if outcome == "already_current" else gate.to_json(),
    }


def _print_gate(plan: Plan, console: Console) -> None:
    title = f"gate: {escape(plan.manifest.name)} ({plan.manifest.digest[:12]})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("criterion", "wanted", "found", ""):
        table.add_column(column, overflow="fold")
    for criterion in plan.verdict.criteria:
        mark = "[green]pass[/green]" if criterion.passed else "[bold red]FAIL[/bold red]"
        table.add_row(
            escape(criterion.name), escape(criterion.wanted), escape(criterion.found), mark
        )
    console.print(table)
    if plan.way_to_compare and not plan.verdict.passed:
        print_text(console, plan.way_to_compare)


def _sentence(plan: Plan, outcome: str, pointer: Pointer | None) -> str:
    new, store = f"{plan.manifest.name} ({plan.manifest.digest[:12]})", plan.store
    before = f"current is {named(pointer)}" if pointer else "nothing is current"
    since = pointer.since if pointer else ""
    by_force = "" if plan.verdict.passed else ", by force; the reason is recorded"
    return {
        "already_current": f"{new} is current in {store} already, since {since}: nothing to do",
        "refused": f"refused; {before}, as before",
        "would_publish": f"{new} would become current in {store}; {before} and stays so (dry run)",
        "canary": f"{new} is the canary in {store}; {before}, as before",
        "published": f"{new} is current in {store}{by_force}",
    }[outcome]
