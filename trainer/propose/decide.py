"""What a person decided about a proposal, carried out once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.errors import BadInput, NotGoodEnough
from trainer.propose.steps import PROPOSAL, plan_proposed
from trainer.store.gate_rules import GateRules
from trainer.store.publish import publish_adapter
from worker.contract import AdapterRefused
from worker.contract.exchange import (
    CHANGES,
    Proposal,
    ProposalDecision,
    read_decision,
    read_proposal,
    write_decision,
)
from worker.contract.store import read_canary, read_pointer

DECISION = "decision.json"


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """What came of a decision: ``canary``, ``declined``, or ``already`` where it had been done."""

    outcome: str
    decision: ProposalDecision


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one of several decisions: as ``CarriedOut``, or ``refused`` and why."""

    proposal: str
    outcome: str
    why: str = ""


def carry_out_all(proposals: Path, store: Path, answers: Path, rules: GateRules) -> list[Told]:
    """Carry out each decision of the folder ``answers`` whose proposal lies in a folder of
    ``proposals`` and that was not carried out before, the oldest first.

    One that cannot be carried out any more (another adapter has become current since) is told and
    left, so that it does not stand in the way of the next. Raises RecordRefused for a file that is
    none, OSError.
    """
    lying = {
        read_proposal(path).id: path.parent for path in sorted(proposals.glob(f"*/{PROPOSAL}"))
    }
    found = [(read_decision(path), path) for path in sorted(answers.glob("*.json"))]
    told = []
    for decision, path in sorted(found, key=lambda pair: pair[0].decided_at):
        out = lying.get(decision.proposal)
        if out is None or (out / DECISION).is_file():
            continue
        try:
            outcome, why = carry_out(out, store, path, rules).outcome, ""
        except (AdapterRefused, BadInput, NotGoodEnough) as error:
            outcome, why = "refused", str(error)
        told.append(Told(decision.proposal, outcome, why))
    return told


def carry_out(out: Path, store: Path, decided: Path, rules: GateRules) -> CarriedOut:
    """Publish the proposal in ``out`` as a canary, or write down that it is not wanted.

    The decision is kept beside the proposal; the same one again changes nothing. Raises BadInput
    where the proposal was refused, where another decision was made before, or where another adapter
    has become current since; AdapterRefused and OSError as ``publish``.
    """
    proposal = read_proposal(out / PROPOSAL)
    decision = read_decision(decided, proposal)
    kept = out / DECISION
    if kept.is_file() and read_decision(kept, proposal) != decision:
        raise BadInput(f"{kept}: this proposal was decided otherwise already: make another one")
    if decision.publish and proposal.verdict == "refused":
        raise BadInput(
            f"{decided.name}: the proposal was refused ({proposal.headline}): nothing was "
            "published; clerk-trainer publish --force is there for who knows better"
        )
    if not decision.publish:
        write_decision(kept, decision)
        return CarriedOut("declined", decision)
    canary, current = read_canary(store), read_pointer(store)
    digest = proposal.adapter.digest
    if digest in {canary.digest if canary else "", current.digest if current else ""}:
        write_decision(kept, decision)
        return CarriedOut("already", decision)
    if current is None or proposal.current is None or current.digest != proposal.current.digest:
        raise BadInput(
            f"{store}: another adapter has become current since the proposal: propose again"
        )
    plan = plan_proposed(out, store, rules)
    share = proposal.canary_share if decision.share is None else decision.share
    publish_adapter(plan, reason=_reason(proposal, decision), canary_share=share)
    write_decision(kept, decision)
    return CarriedOut("canary", decision)


def _reason(proposal: Proposal, decision: ProposalDecision) -> str:
    """Return what history and model card say: what changed, why, and who decided."""
    changed = "; ".join(
        f"{count} {CHANGES.get(name, name)}" for name, count in proposal.changes.items() if count
    )
    text = f"proposal {proposal.id[:8]}: {proposal.headline} Changed: {changed}."
    own = f" {decision.reason.strip()}" if decision.reason.strip() else ""
    return f"{text} Decided by {decision.decided_by} at {decision.decided_at}.{own}"
