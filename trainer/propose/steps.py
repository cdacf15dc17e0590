"""Make a proposal, step by step. Each step writes a whole folder or file, or nothing.

    request.json   the digests of the inputs; other inputs in the same folder are refused
    dataset/       the new version of the dataset
    run/           the new adapter, and its evaluation on the new hold-out
    before/        the evaluation of the new adapter on the earlier dataset's hold-out
    current/       the evaluation of the adapter in service on the same
    anchor/        the evaluation of the first adapter of its series on the same, if it differs
    grown/         the evaluation of the adapter in service on the new hold-out, if it differs
    proposal.json, proposal.html   written last
    decision.json  the operator's decision

If it is killed, running it again continues with the unfinished step, and the training with its
checkpoint. Decisions are always applied to the earlier dataset, never to the remains of a killed
attempt, so that none counts twice. With too few decisions the folder is emptied, so that it can be
used when there are more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER
from trainer.artifacts.files import write_json
from trainer.artifacts.training import TRAINING
from trainer.dataset.folder import MANIFEST, Dataset, list_openings, open_dataset
from trainer.dataset.folder import read_manifest as read_dataset_manifest
from trainer.errors import BadInput, NotGoodEnough
from trainer.evaluation.evaluate import EvaluationRequest, evaluate_once
from trainer.model.bases import resolve_base
from trainer.propose.compare import compare, judge
from trainer.propose.page import PAGE, write_proposal_page
from trainer.propose.version import APPLIED, make_version, read_new_messages, read_outcomes
from trainer.store.publish import Plan, plan_publication, publish_adapter
from trainer.store.record import find_anchor, stored_evidence
from trainer.store.rules import GateRules
from trainer.training.recipe import Recipe
from trainer.training.train import train
from worker.contract import AdapterRefused, Manifest, read_manifest
from worker.contract.digest import sha256_file, sha256_json
from worker.contract.exchange import (
    CHANGES,
    AdapterName,
    GateRow,
    Proposal,
    ProposalDecision,
    read_decision,
    read_proposal,
    write_decision,
    write_proposal,
)
from worker.contract.store import read_canary, read_pointer
from worker.contract.timestamps import rfc3339_now

REQUEST, PROPOSAL = "request.json", "proposal.json"
NEW, RUN, BEFORE, CURRENT, GROWN = "dataset", "run", "before", "current", "grown"
ANCHOR = "anchor"


@dataclass(frozen=True, slots=True)
class Request:
    """The inputs of a proposal. ``datasets`` are folders of datasets or of earlier proposals; one
    holds the dataset of the adapter in service. ``recipe`` names the folders of the new version and
    of the run. ``current_base`` is the base of the adapter in service; None or "auto": the
    recipe's, or another of this machine's with the manifest's digests.
    ``redact_names`` is the model by which names in the dataset were redacted."""

    store: Path
    datasets: tuple[Path, ...]
    decisions: tuple[Path, ...]
    messages: tuple[Path, ...]
    out: Path
    recipe: Recipe
    rules: GateRules
    canary_share: float
    least_decisions: int
    current_base: str | Path | None
    redact_names: str | None = None


class TooFewDecisions(BadInput):
    """Too few decisions change the dataset to justify a training."""


def propose(request: Request, console: Console) -> Proposal:
    """Go through the steps, and return the proposal.

    Raises BadInput if an unfinished proposal in ``out`` has other inputs, or no adapter is current
    in the store; TooFewDecisions, and empties ``out``, if fewer than ``least_decisions`` change the
    dataset.
    """
    base, current = _open_before(request)
    current_base = resolve_base(request.current_base, current, others=(request.recipe.base,))
    in_service = request.store / current.digest, current_base
    identity = _identify(request, base, current)
    _claim(request.out, identity)
    if (request.out / PROPOSAL).is_file():
        return read_proposal(request.out / PROPOSAL)
    try:
        new = _version(request, base, console)
    except TooFewDecisions:
        _release(request.out)
        raise
    if TRAINING.read_if_present(request.out / RUN) is None:
        train(request.recipe, console, resume=True, replace=False)
    old, grown = _evaluate(request, base, new, in_service, console)
    _evaluate_anchor(request, base, current.digest, console)
    outcomes = read_outcomes(request.decisions)
    compared = compare(old, grown, outcomes)
    plan = plan_proposed(request.out, request.store, request.rules)
    # Adapters and not openings: repeating an evaluation after a kill tells nothing new.
    tried = {each["subject"] for each in list_openings(base) if each["purpose"] == "evaluate"}
    judged = judge(compared, plan.verdict, new.record["version"]["changes"], len(tried))
    version, manifest = new.record["version"], read_manifest(request.out / RUN / "adapter")
    proposal = Proposal(
        schema="proposal/1",
        id=sha256_json([identity, manifest.digest])[:32],
        created_at=rfc3339_now(),
        verdict=judged.verdict,
        headline=judged.headline,
        reasons_for=judged.reasons_for,
        reasons_against=judged.reasons_against,
        adapter=AdapterName(manifest.name, manifest.digest, manifest.kind),
        current=AdapterName(current.name, current.digest, current.kind),
        dataset_name=new.name,
        dataset=new.digest,
        dataset_before=base.digest,
        changes={"decisions": version["decisions"], **version["changes"]},
        figures=tuple(each.figure for each in compared),
        gate=tuple(GateRow(r.name, r.wanted, r.found, r.passed) for r in plan.verdict.criteria),
        canary_share=request.canary_share,
    )
    taught = EVALUATION.read(request.out / BEFORE).taught
    write_proposal_page(request.out / PAGE, proposal, taught)
    write_proposal(request.out / PROPOSAL, proposal)
    return proposal


Judged = tuple[Path, Path | None]
"""An adapter and its base."""


def _evaluate(
    request: Request, base: Dataset, new: Dataset, in_service: Judged, console: Console
) -> tuple[tuple[Path, Path], tuple[Path, Path] | None]:
    """Evaluate the proposed adapter and the one in service; return the folders of both, on the
    earlier hold-out, and on the new one if it differs."""
    proposed = request.out / RUN / "adapter", request.recipe.base

    def evaluate(
        judged: Judged, on: Dataset, name: Path | str, trained_on: Dataset | None = None
    ) -> Path:
        out = request.out / name
        evaluation = EvaluationRequest(
            judged[0],
            on.directory,
            judged[1],
            out,
            trained_on=trained_on.directory if trained_on else None,
            # On the earlier hold-out too: the gate judges there, and refuses what it was not given.
            steering=judged == proposed,
        )
        evaluate_once(evaluation, console)
        return out

    newest = evaluate(proposed, new, Path(RUN) / EVALUATION_FOLDER)
    old = evaluate(proposed, base, BEFORE, new), evaluate(in_service, base, CURRENT)
    if new.holdout_sha256 == base.holdout_sha256:
        return old, None
    return old, (newest, evaluate(in_service, new, GROWN, base))


def _evaluate_anchor(request: Request, base: Dataset, current: str, console: Console) -> None:
    """Evaluate the first adapter of the series on the earlier hold-out, unless the store has that
    already. Raises BadInput if the dataset that it was trained on is not among the request's."""
    anchor = find_anchor(request.store, current)
    kept = stored_evidence(request.store, anchor)
    if anchor == current or (
        kept and kept.evaluation.dataset.holdout_sha256 == base.holdout_sha256
    ):
        return
    adapter = request.store / anchor
    manifest = read_manifest(adapter)
    evaluation = EvaluationRequest(
        adapter,
        base.directory,
        resolve_base(None, manifest, others=(request.recipe.base,)),
        request.out / ANCHOR,
        trained_on=find_dataset(request.datasets, str(manifest.data.get("digest"))).directory,
        steering=False,
    )
    evaluate_once(evaluation, console)


def plan_proposed(out: Path, store: Path, rules: GateRules) -> Plan:
    """Judge the proposed adapter as ``publish`` does, on the earlier dataset's hold-out, where the
    adapter in service was evaluated too."""
    return plan_publication(
        out / RUN,
        store,
        evaluation=out / BEFORE,
        earlier=[out / name for name in (CURRENT, ANCHOR) if (out / name).is_dir()],
        rules=rules,
    )


def _open_before(request: Request) -> tuple[Dataset, Manifest]:
    pointer = read_pointer(request.store)
    if pointer is None:
        raise BadInput(
            f"{request.store}: no adapter is current: publish the first one with clerk-trainer "
            "publish"
        )
    current = read_manifest(request.store / pointer.digest)
    return find_dataset(request.datasets, str(current.data.get("digest"))), current


def find_dataset(folders: Sequence[Path], digest: str) -> Dataset:
    """Return the dataset with this digest: one of ``folders``, or of a proposal in one of them.
    Raises BadInput if there is none."""
    seen: list[str] = []
    for folder in folders:
        own = (folder / MANIFEST).is_file()
        inside = sorted(path.parent for path in folder.glob(f"*/{NEW}/{MANIFEST}"))
        for each in [folder] if own or not inside else inside:
            found = str(read_dataset_manifest(each)["digest"])
            if found == digest:
                return open_dataset(each)
            seen.append(f"{each} is dataset {found[:12]}…")
    raise BadInput(
        f"{', '.join(seen)}, but the adapter in service was trained on {digest[:12]}…: name its "
        "folder"
    )


def _identify(request: Request, base: Dataset, current: Manifest) -> dict[str, Any]:
    """Return the proposal's inputs by their digests, independent of their paths."""
    return {
        "schema": "proposal-request/1",
        "dataset": base.digest,
        "current": current.digest,
        "decisions": sorted(sha256_file(path) for path in request.decisions),
        "messages": sorted(sha256_file(path) for path in request.messages),
        "recipe": request.recipe.to_record(),
    }


def _claim(out: Path, identity: dict[str, Any]) -> None:
    """Write the request into an empty folder, or check that the folder has the same one. Remove
    half-written files of a killed attempt. Raises BadInput."""
    path = out / REQUEST
    for name in (REQUEST, PAGE, PROPOSAL):
        for leftover in out.glob(f".{name}.*"):
            leftover.unlink()
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{path}: cannot be read: name another --out") from error
        # Through JSON, as the file was, where tuples are lists.
        if found != json.loads(json.dumps(identity)):
            differ = [name for name, value in identity.items() if found.get(name) != value]
            raise BadInput(
                f"{out}: has a proposal from other inputs ({', '.join(differ)}): name another --out"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out}: is not empty: name another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, identity)


def _version(request: Request, base: Dataset, console: Console) -> Dataset:
    target = request.out / NEW
    if not (target / MANIFEST).is_file():
        for leftover in request.out.glob(f".{NEW}.*"):  # of a killed attempt
            shutil.rmtree(leftover)
        outcomes = read_outcomes(request.decisions)
        _refuse_few(len(outcomes), request.least_decisions)
        messages = read_new_messages(request.messages)
        make_version(base, outcomes, messages, target, names=request.redact_names)
    new = open_dataset(target)
    changes = new.record["version"]["changes"]
    _refuse_few(sum(changes.get(name, 0) for name in APPLIED), request.least_decisions)
    console.print(f"dataset {new.digest[:12]}: {changes}", soft_wrap=True)
    return new


def _release(out: Path) -> None:
    """Empty the folder, unless a training with a lower bound has begun there. The request is
    removed last, so that the same command finishes a release that was killed."""
    if (out / RUN).exists():
        return
    if (out / NEW).exists():
        gone = out / f".{NEW}.released"  # half of a dataset under its own name would pass for one
        (out / NEW).rename(gone)
        shutil.rmtree(gone)
    (out / REQUEST).unlink()


def _refuse_few(count: int, least: int) -> None:
    if count < least:
        raise TooFewDecisions(
            f"{count} decisions change the dataset, fewer than {least}: wait for more, or lower "
            "--least-decisions"
        )


# Decisions about proposals, each carried out once.

DECISION = "decision.json"


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """The result of one of several decisions: an outcome of ``carry_out``, or ``refused`` and
    why."""

    proposal: str
    outcome: str
    why: str = ""


def carry_out_all(
    proposals: Path, store: Path, answers: Path, rules: GateRules, sign_key: Path | None = None
) -> list[CarriedOut]:
    """Carry out each decision in the folder ``answers`` whose proposal is in a folder of
    ``proposals`` and that was not carried out before, the oldest first.

    A decision that can no longer be carried out (another adapter has become current) is reported
    and skipped, so that it does not block the next one. Raises RecordRefused and OSError.
    """
    folders = {
        read_proposal(path).id: path.parent for path in sorted(proposals.glob(f"*/{PROPOSAL}"))
    }
    found = [(read_decision(path), path) for path in sorted(answers.glob("*.json"))]
    done = []
    for decision, path in sorted(found, key=lambda pair: pair[0].decided_at):
        out = folders.get(decision.proposal)
        if out is None or (out / DECISION).is_file():
            continue
        try:
            (outcome, _), why = carry_out(out, store, path, rules, sign_key), ""
        except (AdapterRefused, BadInput, NotGoodEnough) as error:
            outcome, why = "refused", str(error)
        done.append(CarriedOut(decision.proposal, outcome, why))
    return done


def carry_out(
    out: Path, store: Path, decided: Path, rules: GateRules, sign_key: Path | None = None
) -> tuple[str, ProposalDecision]:
    """Publish the proposal in ``out`` as a canary, or record that it is declined.

    Return the outcome (``canary``, ``declined``, or ``already`` if the adapter is in service) and
    the decision, which is kept next to the proposal; repeating it changes nothing. Raises BadInput
    if the proposal was refused, if another decision was made before, or if another adapter has
    become current; AdapterRefused and OSError as ``publish``.
    """
    proposal = read_proposal(out / PROPOSAL)
    decision = read_decision(decided, proposal)
    kept = out / DECISION
    if kept.is_file() and read_decision(kept, proposal) != decision:
        raise BadInput(f"{kept}: this proposal has another decision already: make another one")
    if decision.publish and proposal.verdict == "refused":
        raise BadInput(
            f"{decided.name}: the proposal was refused ({proposal.headline}): nothing was "
            "published; to overrule it, use clerk-trainer publish --force"
        )
    if not decision.publish:
        write_decision(kept, decision)
        return "declined", decision
    canary, current = read_canary(store), read_pointer(store)
    digest = proposal.adapter.digest
    if digest in {canary.digest if canary else "", current.digest if current else ""}:
        write_decision(kept, decision)
        return "already", decision
    if current is None or proposal.current is None or current.digest != proposal.current.digest:
        raise BadInput(
            f"{store}: another adapter has become current since the proposal: propose again"
        )
    plan = plan_proposed(out, store, rules)
    share = proposal.canary_share if decision.share is None else decision.share
    reason = _reason(proposal, decision)
    publish_adapter(plan, reason=reason, canary_share=share, sign_key=sign_key)
    # Last: after a kill before this line the command is repeated and ends at "already" above.
    write_decision(kept, decision)
    return "canary", decision


def _reason(proposal: Proposal, decision: ProposalDecision) -> str:
    """Return the reason for history and model card: what changed, why, and who decided."""
    changed = "; ".join(
        f"{count} {CHANGES.get(name, name)}" for name, count in proposal.changes.items() if count
    )
    text = f"proposal {proposal.id[:8]}: {proposal.headline} Changed: {changed}."
    own = f" {decision.reason.strip()}" if decision.reason.strip() else ""
    return f"{text} Decided by {decision.decided_by} at {decision.decided_at}.{own}"
