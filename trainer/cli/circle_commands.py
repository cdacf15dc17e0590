"""``clerk-trainer tasks``, ``answers``, ``advise`` and ``propose``: tasks for reviewers, and the
next adapter from their decisions."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from trainer.cli.shared import (
    AsJson,
    Base,
    Embeddings,
    GateFile,
    Guideline,
    SignKey,
    Store,
    Texts,
    base_of,
    embedding_model,
    folder_of,
    make_console,
    outcomes,
    print_text,
    show,
)

if TYPE_CHECKING:
    from trainer.propose.steps import Request
    from trainer.store.rules import GateRules
    from trainer.tasks.foreign import Form
    from trainer.tasks.make import Asking
    from worker.contract.exchange import Advice, Proposal, Task


def tasks(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="A dataset folder; for audit also a file of messages, with or without labels.",
        ),
    ],
    *,
    purpose: Annotated[
        Literal["check", "audit", "learn"],
        typer.Option(
            "--for",
            help="check: labels that are probably wrong, the most certain first; audit: a random "
            "sample of the hold-out, or of a file, blind; learn: unlabelled messages whose label "
            "helps most.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write; must not exist.")],
    form: Annotated[
        Literal["desk", "argilla", "label-studio"],
        typer.Option("--form", help="desk (tasks/1, JSON Lines), argilla or label-studio."),
    ] = "desk",
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of tasks [default: check all, learn 50, audit enough for an "
            "interval of ±3 points; of a file 500].",
        ),
    ] = None,
    messages: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="For learn: unlabelled messages, a table with 'message', 'id'. Repeatable.",
        ),
    ] = None,
    asked: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="For learn: earlier tasks (tasks/1) or decisions (.csv or .xlsx), whose messages "
            "are not asked again. Repeatable.",
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For learn: the adapter in service, by whose uncertainty messages are chosen "
            "[default: a cheap model trained on the dataset].",
        ),
    ] = None,
    base: Base = None,
    embeddings: Embeddings = "auto",
    guideline: Guideline = None,
    as_json: AsJson = False,
) -> None:
    """Choose messages for reviewers, and write them for the desk or another labelling tool.

    Active learning (--for learn) chooses uncertain messages that differ from each other: among the
    smallest margins, a batch by k-means++ on gradient embeddings (BADGE, arXiv 1906.03671). No
    message is asked twice, and only one of several near-duplicates. Messages close to the hold-out
    are never asked, because they could not be used for training.

    An audit of a file is how people come to judge a model whose training labels are a teacher's.
    Its tasks are in random order: decide on as many as you can, from the first on.

    The file contains messages (mode 0640). Reviewers' answers come back as a file of decisions for
    prepare --decisions, propose --decisions, and advise --decisions.

    Examples:

      clerk-trainer tasks data/1 --for check --out monday.jsonl

      clerk-trainer tasks messages.csv --for audit --out sample.jsonl

      clerk-trainer tasks data/1 --for learn --messages inbox.jsonl --size 100 --out ask.jsonl

      clerk-trainer tasks data/1 --for learn --messages inbox.jsonl --form argilla --out ask.json
    """
    with outcomes():
        from trainer.dataset.folder import open_dataset
        from trainer.errors import BadInput
        from trainer.tasks.make import Asking

        if out.exists():
            raise BadInput(f"{out}: exists and may contain a reviewer's work: give another file")
        if purpose != "learn" and (messages or asked or adapter):
            raise BadInput("--messages, --asked and --adapter belong to --for learn")
        # A file has no dataset yet: this is how reviewers come to judge a model whose labels are a
        # teacher's.
        if dataset.is_file() and purpose == "audit":
            _sample(dataset, out, form, size or _SAMPLE, guideline, as_json=as_json)
            return
        opened = open_dataset(dataset)
        asking = Asking(opened, out.stem, guideline)
        details: dict[str, object] = {}
        if purpose == "check":
            made = _check(asking, embeddings)[:size]
        elif purpose == "audit":
            made, details["openings"] = _audit(asking, size)
        else:
            made, details["left_out"], details["by"] = _learn(
                asking, messages or [], asked or [], adapter=adapter, base=base,
                embeddings=embeddings, size=size or 50,
            )  # fmt: skip
        _write(out, made, form, opened.taxonomy.names)
        result = {"tasks": str(out), "purpose": purpose, "count": len(made), **details}
        text = f"{out}: {len(made):,} tasks ({purpose})"
        text += "".join(f"; {name.replace('_', ' ')}: {value}" for name, value in details.items())
        show(result, text, as_json=as_json)


_SAMPLE = 500


def _sample(
    path: Path,
    out: Path,
    form: Form | Literal["desk"],
    size: int,
    guideline: str | None,
    *,
    as_json: bool,
) -> None:
    """Draw a random sample of a file's messages for reviewers."""
    from trainer.errors import BadInput
    from trainer.tasks.make import sample_tasks
    from trainer.teacher.label import read_unlabelled

    if form == "label-studio":
        raise BadInput("--form label-studio needs a dataset, for its labels: use desk or argilla")
    made = sample_tasks(read_unlabelled(path, None, None), size, out.stem, guideline)
    if not made:
        raise BadInput(f"{path}: has no message with a text")
    _write(out, made, form, ())
    result = {"tasks": str(out), "purpose": "audit", "count": len(made)}
    text = (
        f"{out}: {len(made):,} tasks (audit), in random order: any first part of them is a random "
        f"sample. Next: clerk-desk label {shlex.quote(str(out))} --taxonomy FILE; then "
        "clerk-trainer label or prepare with --decisions and the file that it writes."
    )
    show(result, text, as_json=as_json)


def _check(asking: Asking, embeddings: str) -> list[Task]:
    from trainer.check.run import CheckSettings, check_dataset
    from trainer.dataset.extra_files import read_label_sources
    from trainer.tasks.make import check_tasks

    settings = CheckSettings(embeddings=embedding_model(embeddings))
    found = read_label_sources(asking.dataset)
    sources = {id_: origin.source for id_, origin in found.items()}
    return check_tasks(asking, check_dataset(asking.dataset, settings).suspects, sources)


def _audit(asking: Asking, size: int | None) -> tuple[list[Task], int]:
    from dataclasses import replace

    from trainer.dataset.folder import count_openings
    from trainer.evaluation.audit import draw_examples
    from trainer.tasks.make import audit_tasks

    name, sample = draw_examples(asking.dataset, size)
    asking = replace(asking, batch=name)
    return audit_tasks(asking, sample), count_openings(asking.dataset)


def _learn(
    asking: Asking,
    messages: list[Path],
    asked: list[Path],
    *,
    adapter: Path | None,
    base: str | None,
    embeddings: str,
    size: int,
) -> tuple[list[Task], int, str]:
    from trainer.check.duplicates import holdout_fingerprints
    from trainer.errors import BadInput
    from trainer.evaluation.engines import read_messages
    from trainer.tasks.make import judge_cheaply, learn_tasks, make_pool, read_earlier

    if not messages:
        raise BadInput("--for learn needs --messages FILE with unlabelled messages")
    found: dict[str, str] = {}
    for path in messages:
        found |= read_messages(path)
    earlier, digests = read_earlier(asked)
    pool = make_pool(
        asking.dataset,
        found,
        asked=earlier,
        asked_sha256=digests,
        holdout=holdout_fingerprints(asking.dataset),
    )
    model = embedding_model(embeddings)
    if adapter is None:
        judged = judge_cheaply(asking.dataset, pool, model)
    else:
        from trainer.tasks.make import judge_by_adapter

        judged = judge_by_adapter(asking.dataset, pool, adapter, base_of(base, adapter), model)
    # A fixed seed, which nobody needs to change: the same files give the same tasks.
    return learn_tasks(asking, pool, judged, size, seed=0), pool.left_out, judged.by


def _write(
    out: Path, made: list[Task], form: Form | Literal["desk"], labels: Sequence[str]
) -> None:
    from trainer.artifacts.files import PRIVATE
    from trainer.tasks.foreign import labelling_config, write_foreign
    from worker.contract.digest import write_atomically
    from worker.contract.exchange import write_tasks

    if form == "desk":
        write_tasks(out, made)
        return
    # The tasks are kept next to it: ``answers`` needs them to read the other tool's export.
    write_tasks(out.with_name(f"{out.stem}.tasks.jsonl"), made)
    data = write_foreign(made, form).encode("utf-8")
    write_atomically(out, data, mode=PRIVATE)
    if form == "label-studio":
        config = labelling_config(labels)
        write_atomically(out.with_name(f"{out.stem}.config.xml"), config.encode("utf-8"))


def answers(
    export: Annotated[Path, typer.Argument(help="The other tool's export, JSON.")],
    *,
    form: Annotated[Literal["argilla", "label-studio"], typer.Option("--form", help="The tool.")],
    task_files: Annotated[
        list[Path],
        typer.Option("--tasks", metavar="FILE", help="The tasks (tasks/1). Repeatable."),
    ],
    taxonomy: Annotated[Path, typer.Option(help="The fixed set of labels, a TOML file.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File of decisions to write, a CSV.")],
    as_json: AsJson = False,
) -> None:
    """Turn answers from Argilla or Label Studio into a file of decisions.

    If all reviewers of a task agree, their answer is the decision. Otherwise their opinions are
    kept for advise, and the task stays open. Reviewers are identified by their user numbers.

    Example: clerk-trainer answers export.json --form argilla --tasks ask.tasks.jsonl
    --taxonomy taxonomy.toml --out decisions.csv
    """
    with outcomes():
        from trainer.errors import BadInput
        from trainer.tasks.foreign import read_foreign
        from worker.common.review_files import save_answers
        from worker.contract import Taxonomy
        from worker.contract.exchange import read_tasks

        if out.exists():
            raise BadInput(f"{out}: exists: give another file")
        known = [task for path in task_files for task in read_tasks(path)]
        names = Taxonomy.from_toml(taxonomy).names
        found = read_foreign(export, form, known, names)
        save_answers(out, found.answers)
        decided = sum(answer.role == "outcome" for answer in found.answers)
        result = {
            "decisions": str(out), "decided": decided, "disputed": found.disputed,
            "open": found.open,
        }  # fmt: skip
        text = (
            f"{out}: {decided:,} decided, {found.disputed:,} disputed, {found.open:,} not answered"
        )
        show(result, text, as_json=as_json)


def advise(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder.")],
    *,
    decisions: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Decisions (CSV or XLSX). Repeatable.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write, JSON (advice/1).")],
    messages: Texts = None,
    guideline: Guideline = None,
    embeddings: Embeddings = "auto",
    texts: Annotated[
        bool, typer.Option("--texts/--no-texts", help="Include message texts in the file.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Find problems of the taxonomy in reviewers' decisions.

    Finds pairs of labels that reviewers confuse, labels to merge or to split, labels with few or
    contradictory examples, messages that suggest a new label, and decisions older than the
    guideline. Each finding has its messages, a recommendation, and its expected benefit and cost.
    Confusions are measured on messages that two reviewers decided independently, or that an audit
    labelled blind. Each claim is tested, so for a sound taxonomy at most one in twenty of a kind is
    wrong.

    The file contains messages (mode 0640) unless you give --no-texts.

    Example: clerk-trainer advise data/2 --decisions decisions.csv --guideline 4 --out advice.json
    """
    with outcomes():
        from trainer.advice.run import advise_dataset
        from worker.contract.exchange import write_advice

        found = advise_dataset(
            dataset, decisions, messages or [], guideline=guideline,
            embeddings=embedding_model(embeddings), with_texts=texts,
        )  # fmt: skip
        write_advice(out, found)
        result = {
            "advice": str(out),
            "findings": [
                {"kind": each.kind, "labels": list(each.labels), "title": each.title}
                for each in found.findings
            ],
        }
        show(result, lambda to: _print_advice(to, found, out), as_json=as_json)


def _print_advice(console: Console, found: Advice, out: Path) -> None:
    print_text(
        console,
        f"{found.decisions:,} messages decided, {found.doubly:,} of them by two reviewers",
    )
    for each in found.findings:
        print_text(console, f"- {each.title} {each.evidence} {each.advice} Cost: {each.cost}")
    print_text(console, f"{out}: all findings with their messages")


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
            help="Carry out a decision about the proposal (proposal-decision/1), or every decision "
            "in a folder (proposals of the desk's export) about the proposals below --out.",
        ),
    ] = None,
    dataset: Annotated[
        list[Path] | None,
        typer.Option(
            "--dataset",
            metavar="DIR",
            help="The dataset of the adapter in service, or a folder of earlier proposals, one of "
            "which made it. Repeatable; the matching one is used.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recipe of the new adapter.")
    ] = None,
    base: Base = None,
    current_base: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|NAME|auto",
            callback=folder_of,
            help="Base of the adapter in service; auto: by the digests in its manifest "
            "[default: auto].",
        ),
    ] = None,
    decisions: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Decisions since then (clerk-desk export). Repeatable."),
    ] = None,
    messages: Texts = None,
    redact_names: Annotated[
        str | None,
        typer.Option(
            "--redact-names",
            metavar="MODEL",
            help="Model for redacting names in new messages, if the dataset's names were redacted: "
            "the same as for prepare --redact-names.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe. Repeatable."),
    ] = None,
    gate: GateFile = None,
    gate_sets: Annotated[
        list[str] | None,
        typer.Option("--gate-set", metavar="KEY=VALUE", help="A rule of the gate. Repeatable."),
    ] = None,
    canary: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the keys for a canary.")
    ] = 0.05,
    sign_key: SignKey = None,
    least_decisions: Annotated[
        int, typer.Option(min=1, help="Make no proposal with fewer new decisions.")
    ] = 30,
    as_json: AsJson = False,
) -> None:
    """Train the next adapter from reviewers' decisions, and propose it as a canary.

    The decisions become a new version of the dataset of the adapter in service. Its hold-out stays
    and gains only messages that were drawn at random; copies and near-duplicates never cross
    splits. New messages are cleaned like the dataset's. The command then trains, evaluates both
    adapters on the old hold-out, on its audited labels and on the new hold-out, asks the gate, and
    writes proposal.json and proposal.html with the reasons for and against. It may recommend not to
    publish.

    Run the same command again after an interruption and it resumes. Nothing is published until
    somebody decides; --decided carries the decision out and records it in the store's history and
    on the model card.

    Examples:

      clerk-trainer propose --store /adapters --dataset data/1 --recipe config/trainer-encoder.toml
      --decisions decisions.csv --messages messages.jsonl --out proposals/7

      clerk-trainer propose --store /adapters --out proposals/7 --decided decision.json

      clerk-trainer propose --store /adapters --out proposals --decided decided/proposals

    Exit codes: 0 a proposal was made, whatever it recommends, or there are too few decisions, or a
    decision was carried out; 2 bad input; 3 the gate does not allow the decision.
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.store.rules import load_rules

        rules = load_rules(gate, gate_sets or [])
        if decided is not None:
            _carry_out(out, store, decided, rules, sign_key, as_json=as_json)
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
            current_base=current_base,
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
        show(few, f"no proposal: {why}", as_json=as_json)
        return
    out = request.out
    show(encode(proposal), lambda to: _print_proposal(to, proposal, out), as_json=as_json)


def _carry_out(
    out: Path,
    store: Path,
    decided: Path,
    rules: GateRules,
    sign_key: Path | None,
    *,
    as_json: bool,
) -> None:
    from trainer.propose.steps import carry_out, carry_out_all

    if decided.is_dir():
        done_all = carry_out_all(out, store, decided, rules, sign_key)
        rows = [asdict(each) for each in done_all]
        lines = [f"{each.proposal[:8]}: {each.outcome}. {each.why}".strip() for each in done_all]
        text = "\n".join(lines) or f"{decided}: no new decisions"
        show({"decided": rows}, text, as_json=as_json)
        return
    outcome, decision = carry_out(out, store, decided, rules, sign_key)
    result = {"outcome": outcome, "decided_by": decision.decided_by}
    text = f"{out}: {outcome}; decided by {decision.decided_by}"
    show(result, text, as_json=as_json)


def _print_proposal(console: Console, proposal: Proposal, out: Path) -> None:
    print_text(console, f"Publish {proposal.adapter.name} as a canary? {proposal.headline}")
    for title, reasons in (("for", proposal.reasons_for), ("against", proposal.reasons_against)):
        for reason in reasons:
            print_text(console, f"  {title}: {reason}")
    print_text(
        console, f"Page: {out / 'proposal.html'}. Decide at the desk, or with --decided FILE."
    )
