"""``clerk-trainer propose``: the next adapter, and whether it is worth a trial."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from trainer.cli.shared import AsJson, OptionalBase, Store, make_console, outcomes, print_text, show

if TYPE_CHECKING:
    from trainer.propose.steps import Request
    from trainer.store.gate_rules import GateRules
    from worker.contract.circle import Proposal


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("propose")(propose)


def propose(
    *,
    store: Store,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the proposal, all its steps.")
    ],
    decided: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What a person decided about it (proposal-decision/1), carried out; of a folder "
            "of such files (proposals of the desk's export) each, for the proposals below --out.",
        ),
    ] = None,
    dataset: Annotated[
        list[Path] | None,
        typer.Option(
            "--dataset",
            metavar="DIR",
            help="The dataset of the adapter in service, or a folder of earlier proposals, one of "
            "which made it. Repeatable: the right one is found.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recipe of the new adapter.")
    ] = None,
    base: OptionalBase = None,
    current_base: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Base of the adapter in service [default: --base]."),
    ] = None,
    decisions: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Decisions since then (clerk-desk export). Repeatable."),
    ] = None,
    messages: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Texts of messages that the dataset does not hold: tasks, or messages.jsonl of "
            "the desk's export. Repeatable.",
        ),
    ] = None,
    redact_names: Annotated[
        str | None,
        typer.Option(
            "--redact-names",
            metavar="MODEL",
            help="Where names in the dataset were redacted: the model that did it (prepare "
            "--redact-names), for those in new messages.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe. Repeatable."),
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with the gate's rules.")
    ] = None,
    gate_sets: Annotated[
        list[str] | None,
        typer.Option("--gate-set", metavar="KEY=VALUE", help="A rule of the gate. Repeatable."),
    ] = None,
    canary: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the keys for a canary.")
    ] = 0.05,
    least_decisions: Annotated[
        int, typer.Option(min=1, help="Fewer decisions with something new are not worth it.")
    ] = 30,
    as_json: AsJson = False,
) -> None:
    """Make the next adapter of what people decided, and ask whether to publish it as a canary.

    Decisions since the dataset of the adapter in service become a new version of it: its hold-out
    stays and gains only messages that were drawn at random; copies and near-duplicates never cross.
    New messages are cleaned as the dataset's were. Then:
    train, evaluate both adapters on the hold-out of the dataset before, on what an audit said of
    it, and on the grown one, ask the gate, and write proposal.json and proposal.html with the
    reasons for and against. The answer may be: as good, so not worth it; or: worse, so refused.

    Killed anywhere, the same command goes on where it was. Nothing is published: a person decides,
    and --decided carries the decision out, with what changed and why in the store's history and on
    the model card.

    Examples:

      clerk-trainer propose --store /adapters --dataset data/1 --recipe config/trainer-encoder.toml
      --base models/minilm --decisions decisions.csv --messages messages.jsonl --out proposals/7

      clerk-trainer propose --store /adapters --out proposals/7 --decided decision.json

      clerk-trainer propose --store /adapters --out proposals --decided decided/proposals

    Exit codes: 0 a proposal was made, whatever it says, or there are too few decisions for one, or
    a decision was carried out; 2 bad input; 3 a decision that the gate does not allow.
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.store.gate_rules import load_rules

        rules = load_rules(gate, gate_sets or [])
        if decided is not None:
            _carry_out(out, store, decided, rules, console, as_json=as_json)
            return
        from trainer.errors import BadInput
        from trainer.propose.steps import NEW, RUN, Request
        from trainer.training.recipe import load_recipe, parse_assignments

        if not dataset or recipe is None or not decisions:
            raise BadInput("a proposal needs --dataset, --recipe and --decisions")
        named: dict[str, Any] = {"dataset": out / NEW, "run": out / RUN}
        named |= {"base": base} if base is not None else {}
        flags = parse_assignments(sets or []) | named
        settings = load_recipe(recipe, flags)
        request = Request(
            store=store,
            datasets=tuple(dataset),
            decisions=tuple(decisions),
            messages=tuple(messages or ()),
            out=out,
            recipe=settings,
            rules=rules,
            canary_share=canary,
            least_decisions=least_decisions,
            current_base=current_base or settings.base,
            redact_names=redact_names,
        )
        _make(request, console, as_json=as_json)


def _make(request: Request, console: Console, *, as_json: bool) -> None:
    from trainer.propose.steps import TooFewDecisions, propose
    from worker.contract.codec import encode

    try:
        proposal = propose(request, console)
    except TooFewDecisions as error:
        why = str(error)
        few = {"outcome": "too_few_decisions", "why": why}
        show(few, console, lambda to: print_text(to, f"no proposal: {why}"), as_json=as_json)
        return
    out = request.out
    show(encode(proposal), console, lambda to: _tell(to, proposal, out), as_json=as_json)


def _carry_out(
    out: Path, store: Path, decided: Path, rules: GateRules, console: Console, *, as_json: bool
) -> None:
    from trainer.propose.decide import carry_out, carry_out_all

    if decided.is_dir():
        told = carry_out_all(out, store, decided, rules)
        rows = [asdict(each) for each in told]
        lines = [f"{each.proposal[:8]}: {each.outcome}. {each.why}".strip() for each in told]
        text = "\n".join(lines) or f"{decided}: nothing new is decided"
        show({"decided": rows}, console, lambda to: print_text(to, text), as_json=as_json)
        return
    done = carry_out(out, store, decided, rules)
    result = {"outcome": done.outcome, "decided_by": done.decision.decided_by}
    text = f"{out}: {done.outcome}; decided by {done.decision.decided_by}"
    show(result, console, lambda to: print_text(to, text), as_json=as_json)


def _tell(console: Console, proposal: Proposal, out: Path) -> None:
    print_text(console, f"Publish {proposal.adapter.name} as a canary? {proposal.headline}")
    for title, reasons in (("for", proposal.reasons_for), ("against", proposal.reasons_against)):
        for reason in reasons:
            print_text(console, f"  {title}: {reason}")
    print_text(
        console, f"Page: {out / 'proposal.html'}; decide at the desk, or with --decided FILE"
    )
