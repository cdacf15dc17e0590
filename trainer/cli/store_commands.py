"""``clerk-trainer publish``, ``promote``, ``rollback`` and ``list``: adapters in a store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.artifacts.duel import BASELINES_FOLDER, DUEL, DUEL_FOLDER, CandidateFigures, DuelRecord
from trainer.artifacts.evaluation import EVALUATION_FOLDER
from trainer.artifacts.training import TRAINING
from trainer.cli.shared import (
    AsJson,
    GateFile,
    GateSets,
    SignKey,
    Store,
    folder_of,
    make_console,
    named,
    outcomes,
    print_text,
    show,
)
from trainer.errors import BadInput
from worker.contract.codec import encode

if TYPE_CHECKING:
    from trainer.store.publish import Plan
    from trainer.store.record import Stored
    from trainer.training.recipe import Recipe
    from worker.contract.store import CanaryPointer, Pointer


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
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Evaluation of the current adapter, or of the first of its series, on the new "
            "adapter's hold-out [default: the evaluation it was published with]. Repeatable.",
        ),
    ] = None,
    gate: GateFile = None,
    sets: GateSets = None,
    allow_unpaired: Annotated[
        bool,
        typer.Option(
            "--allow-unpaired",
            help="Publish even if the current adapter was not measured on the same hold-out.",
        ),
    ] = False,
    accept_promise: Annotated[
        float | None,
        typer.Option(
            metavar="PRECISION",
            min=0.0,
            max=1.0,
            help="Accept that the adapter promises this precision for labels without review, "
            "though the current one promises another (0: it promises none).",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Publish even if the gate refuses; needs --reason.")
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(help="The reason, recorded with the adapter, in the history and the pointer."),
    ] = None,
    canary: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Make it a canary for this share of the keys (0.05: a twentieth) and keep the "
            "current adapter. Run again with another share to change it.",
        ),
    ] = None,
    probes: Annotated[
        Literal["written", "validation", "off"] | None,
        typer.Option(
            help="Messages, as text, that go into the store as probes on which workers try the "
            "adapter: 'written' (evaluate --probes), 'validation' (customers' messages), or 'off': "
            "none, workers start it untried [default: unchanged if the store has some, else "
            "written if the evaluation has some, else off]."
        ),
    ] = None,
    sign_key: SignKey = None,
    oci: Annotated[
        str | None,
        typer.Option(
            metavar="REGISTRY/NAME",
            help="Push the adapter into this repository too, before it becomes current, and print "
            "its references by digest, for image volumes.",
        ),
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The candidate of the run's duel to publish: its adapter, another adapter, or a "
            "baseline that a worker can serve, which is trained and evaluated first.",
        ),
    ] = "adapter",
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset", metavar="DIR", help="With --what: the dataset [default: the duel's]."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="DIR|NAME|auto",
            callback=folder_of,
            help="With --what and a baseline: the embedding model of the duel; auto: the installed "
            "one [default: auto].",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the gate's result; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an adapter current in a store, if it passes the gate.

    The gate requires an evaluation of this adapter on a complete hold-out; minimum accuracy,
    macro-F1 and recall of every label (by the ends of their intervals); no answer that is not a
    label; a small calibration error; and proof that on the same messages it is hardly worse than
    the current adapter, and than the first of its series: in right answers, in right ones without
    review, and in wrong ones without review. Each criterion is a row: wanted, found, pass or fail.
    If any fails, nothing is changed and the exit code is 3. Each adapter that is tried on the same
    hold-out must be shown at a stricter level.

    The adapter is copied, verified and renamed into place, and the pointer is moved last. After a
    kill at any moment the old adapter still serves, and the same command completes. Running workers
    whose model.adapter is the store try the new adapter and switch to it within seconds, or refuse
    it and keep the old one (clerk-worker adapters).

    --what NAME publishes another candidate of the run's duel through the same gate: another
    adapter, or a baseline of sentence embeddings. The baseline becomes an embedding-linear model in
    RUN/baselines/NAME and is evaluated there (the hold-out's opening is counted).

    Workers try an adapter on probes, messages with known labels. Customers' messages go into the
    store only with --probes validation. The file of probes is for its owner and the group of the
    store's folder.

    Examples:

      clerk-trainer publish runs/one --store /adapters

      clerk-trainer publish runs/one --store /adapters --canary 0.05

      clerk-trainer publish runs/one --store /adapters --set label_recall=0.6 --dry-run

      clerk-trainer publish runs/one --store /adapters --what embeddings-sublabels

      clerk-trainer publish runs/one --store /adapters --force --reason "new label set"
    """
    with outcomes():
        from trainer.store.publish import plan_publication
        from trainer.store.rules import load_rules

        if force and not (reason and reason.strip()):
            raise BadInput("--force needs --reason TEXT, which is recorded with the adapter")
        if canary == 0:
            raise BadInput("--canary 0: give a share above 0, or end a canary with rollback")
        run = choose_what(
            source,
            what,
            dataset=dataset,
            base=base,
            console=make_console(as_json=as_json),
        )
        plan = plan_publication(
            run,
            store,
            evaluation=evaluation,
            earlier=current_evaluation or (),
            rules=load_rules(gate, sets or []),
            allow_unpaired=allow_unpaired,
            accept_promise=accept_promise,
            allow_unjudged=force,
            probes=probes,
        )
        _carry_out(
            plan,
            force=force,
            reason=reason,
            canary=canary,
            sign_key=sign_key,
            oci=oci,
            dry_run=dry_run,
            as_json=as_json,
        )


def _carry_out(
    plan: Plan,
    *,
    force: bool,
    reason: str | None,
    canary: float | None,
    sign_key: Path | None,
    oci: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from trainer.store.oci import push
    from trainer.store.publish import publish_adapter
    from trainer.store.record import describe

    console = make_console(as_json=as_json)
    nothing_to_do = plan.is_current and (not force or canary is not None)
    if not as_json and not nothing_to_do:
        _print_gate(plan, console)
    pushed = None
    if oci and not dry_run and (nothing_to_do or plan.verdict.passed or force):
        pushed = push(plan.source, plan.manifest, oci)
    if nothing_to_do:
        outcome, pointer = "already_current", plan.current
    elif not plan.verdict.passed and not force:
        outcome, pointer = "refused", plan.current
    elif dry_run:
        outcome, pointer = "would_publish", plan.current
    else:
        outcome = "published" if canary is None else "canary"
        pointer = publish_adapter(
            plan, force=force, reason=reason, canary_share=canary, sign_key=sign_key
        )
    if outcome in {"published", "canary", "would_publish"}:
        print_text(console, describe(plan.store, plan.manifest.digest, plan.probes))
    if pushed:
        print_text(console, f"image for volumes   {pushed.image}")
        print_text(console, f"ModelPack artifact  {pushed.artifact}")
    show(
        {**_result(plan, outcome, pointer), **({"oci": asdict(pushed)} if pushed else {})},
        lambda console: print_text(console, _sentence(plan, outcome, pointer)),
        as_json=as_json,
    )
    # Last, so that the result is printed for a refused adapter too, with --json as well.
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
        style = "green" if criterion.passed else "yellow" if criterion.undecided else "bold red"
        mark = f"[{style}]{criterion.verdict}[/{style}]"
        table.add_row(
            escape(criterion.name), escape(criterion.wanted), escape(criterion.found), mark
        )
    console.print(table)
    if plan.way_to_compare and not plan.verdict.passed:
        print_text(console, plan.way_to_compare)


def _sentence(plan: Plan, outcome: str, pointer: Pointer | None) -> str:
    new, store = f"{plan.manifest.name} ({plan.manifest.digest[:12]})", plan.store
    answers = plan.evidence.answers if plan.evidence else ()
    filed = sum(not each.review for each in answers)
    files = f"; of {len(answers):,} held-out messages it files {filed:,}" if answers else ""
    before = f"current is {named(pointer)}" if pointer else "nothing is current"
    since = pointer.since if pointer else ""
    by_force = "" if plan.verdict.passed else ", by force; the reason is recorded"
    return {
        "already_current": f"{new} is current in {store} already, since {since}: nothing to do",
        "refused": f"refused; {before}, as before",
        "would_publish": f"dry run: {new} would become current in {store}{files}; {before}, as "
        "before",
        "canary": f"{new} is the canary in {store}{files}; {before}, as before",
        "published": f"{new} is current in {store}{by_force}{files}",
    }[outcome]


ADAPTER = "adapter"

_MOST_TOKENS = 192


def choose_what(
    run: Path, what: str, *, dataset: Path | None, base: str | None, console: Console
) -> Path:
    """Return the run folder to publish: ``run`` for its own adapter, that of another adapter of its
    duel, or a new one for a baseline, which is trained and evaluated if it was not yet. ``dataset``
    and ``base`` are folders, by default the duel's dataset and the installed embedding model.

    Raises BadInput if there is no such candidate, or no worker can serve it.
    """
    if what == ADAPTER:
        return run
    record = DUEL.read(run / DUEL_FOLDER)
    found = _find(record, what)
    if found.served_as is None:
        served = [other.name for other in record.candidates if other.served_as is not None]
        raise BadInput(
            f"--what {what}: {found.not_served}: choose one of {', '.join(served) or ADAPTER}"
        )
    if found.adapter is not None:
        return Path(found.adapter.path).parent
    target = run / BASELINES_FOLDER / what
    data = dataset or Path(record.dataset.directory)
    recipe = _train(found, target, data, Path(base or "auto"), console)
    _evaluate(target, data, recipe.base, console)
    return target


def _find(record: DuelRecord, what: str) -> CandidateFigures:
    for candidate in record.candidates:
        if candidate.name == what:
            return candidate
    names = ", ".join(candidate.name for candidate in record.candidates)
    raise BadInput(f"--what {what}: the duel has no such candidate: choose one of {names}")


def _train(
    found: CandidateFigures, target: Path, dataset: Path, base: Path, console: Console
) -> Recipe:
    """Train a baseline of a duel as a model (takes seconds), unless that was done. Return its
    recipe, with the base's directory."""
    from trainer.duel.baselines import SUBLABELS_SUFFIX
    from trainer.model.prompt import most_message_tokens
    from trainer.training.recipe import Recipe, with_base
    from trainer.training.train import train

    assert found.served_as == "embedding-linear"
    recipe = with_base(
        Recipe(
            kind="embedding-linear",
            base=base,
            dataset=dataset,
            run=target,
            sublabel_weight=1.0 if found.name.endswith(SUBLABELS_SUFFIX) else 0.0,
        )
    )
    most = min(_MOST_TOKENS, most_message_tokens(recipe.base))
    recipe = recipe.model_copy(update={"max_message_tokens": most})
    if TRAINING.read_if_present(target) is None:
        train(recipe, console, replace=True)
    return recipe


def _evaluate(target: Path, dataset: Path, base: Path, console: Console) -> None:
    from trainer.evaluation.evaluate import EvaluationRequest, evaluate_once

    out = target / EVALUATION_FOLDER
    evaluate_once(EvaluationRequest(target / "adapter", dataset, base, out), console)


def promote(
    store: Store,
    reason: Annotated[
        str | None, typer.Option(help="The reason, recorded in the history and the pointer.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the canary current, for every key.

    Its files are verified first. Workers that serve it as a canary do not load it again.

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
        show(result, text, as_json=as_json)


def rollback(
    store: Store,
    reason: Annotated[
        str, typer.Option(help="The reason, recorded in the history and the pointer.")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="DIGEST", help="The adapter to return to, by the start of its digest."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """End the canary if there is one; otherwise make the previous adapter current again.

    With --to the given adapter becomes current, and a canary stays. The adapter's files are
    verified first. A second rollback goes one adapter further back, not forward; in scripts use
    --to, which can be repeated safely.

    Example: clerk-trainer rollback --store /adapters --reason "refunds go to the wrong desk"
    """
    with outcomes():
        from trainer.store import moves
        from worker.contract.store import read_canary

        if to is None and read_canary(store) is not None:
            canary = moves.end_canary(store, reason=reason)
            result = {"schema": "canary-end/1", "store": str(store), "ended": encode(canary)}
            text = f"{named(canary)} is no longer the canary; the current adapter serves every key"
            show(result, text, as_json=as_json)
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
        show(result, text, as_json=as_json)


def list_adapters(store: Store, as_json: AsJson = False) -> None:
    """Show a store's adapters: when they were published, their accuracy, and which is current.

    The figures are from the evaluation that an adapter was published with. Do not compare adapters
    whose hold-outs have different digests.

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
            lambda console: _print_list(store, pointer, canary, adapters, console),
            as_json=as_json,
        )


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
    return f"{adapter.holdout_sha256[:8]} ({adapter.examples})"
