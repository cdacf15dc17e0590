"""Proposals of the trainer: loaded, shown to an owner, decided once."""

from __future__ import annotations

from dataclasses import dataclass

from desk.core.storable import storable, storable_json
from desk.errors import Refused
from desk.service.concluding import MAX_NOTE_CHARS
from desk.service.context import Desk, require
from desk.store import people, proposals
from desk.store.proposals import StoredProposal
from desk.store.types import Person
from worker.contract.codec import decode, encode
from worker.contract.errors import RecordRefused
from worker.contract.exchange import Proposal, ProposalDecision
from worker.contract.records.identity import read_json
from worker.contract.timestamps import rfc3339_from_ms

OPERATOR = "operator"
"""The pseudonym of whoever decides by the command line."""


@dataclass(frozen=True, slots=True)
class ProposalStatus:
    """A proposal and what was decided of it; ``decision`` is None until then."""

    proposal: Proposal
    loaded_ms: int
    decision: ProposalDecision | None


def load(desk: Desk, text: str, name: str, person: Person | None = None) -> tuple[str, bool]:
    """Keep the proposal of a file (its text and its name); return its id and whether it is new.
    Raises Refused, NotAllowed."""
    if person is not None:
        require(person, "owner")
    try:
        proposal = read_json(Proposal, text, name)
    except RecordRefused as error:
        raise Refused(f"{error}: make it anew, it was not loaded") from None
    now_ms = desk.clock()
    by = person.id if person is not None else None
    with desk.database.write() as tx:
        body = storable_json(encode(proposal))
        is_new = proposals.add(tx, proposal.id, body, person_id=by, now_ms=now_ms)
        if is_new:
            people.log(tx, now_ms, by, "proposal.loaded", detail={"proposal": proposal.id})
    return proposal.id, is_new


def everything(desk: Desk) -> list[ProposalStatus]:
    """Return all proposals, newest first."""
    with desk.database.read() as tx:
        return [_status(kept) for kept in proposals.everything(tx)]


def decide(
    desk: Desk, proposal_id: str, *, publish: bool, reason: str = "", person: Person | None = None
) -> ProposalStatus:
    """Say whether the proposed adapter becomes a canary. Saying the same again changes nothing.

    ``person`` is None for the command line. Raises Refused where there is no such proposal, where
    the gate refuses what is to be published, or where it has been decided otherwise; NotAllowed.
    """
    if person is not None:
        require(person, "owner")
    if len(reason) > MAX_NOTE_CHARS:
        raise Refused(f"a note has {MAX_NOTE_CHARS} characters at most")
    now_ms = desk.clock()
    by = person.id if person is not None else None
    with desk.database.write() as tx:
        found = proposals.find(tx, proposal_id)
        if found is None:
            raise Refused("there is no such proposal at this desk: load its file first")
        if publish and _status(found).proposal.verdict == "refused":
            raise Refused("the gate refuses this adapter: it cannot be published from here")
        first = proposals.decide(
            tx,
            proposal_id,
            publish=publish,
            reason=storable(reason),
            person_id=by,
            now_ms=now_ms,
        )
        now = proposals.find(tx, proposal_id)
        assert now is not None
        if not first and now.publish != publish:
            raise Refused("it has been decided otherwise: one decision counts, and is not changed")
        if first:
            detail = {"proposal": proposal_id, "publish": publish}
            people.log(tx, now_ms, by, "proposal.decided", detail=detail)
    return _status(now)


def _status(kept: StoredProposal) -> ProposalStatus:
    proposal = decode(Proposal, kept.body, "the proposal", skip_unknown=True)
    if kept.publish is None or kept.decided_ms is None:
        return ProposalStatus(proposal, kept.loaded_ms, None)
    decided_at = rfc3339_from_ms(kept.decided_ms)
    assert decided_at is not None
    decision = ProposalDecision(
        schema="proposal-decision/1",
        proposal=proposal.id,
        adapter=proposal.adapter.digest,
        publish=kept.publish,
        decided_by=kept.by or OPERATOR,
        decided_at=decided_at,
        reason=kept.reason,
    )
    return ProposalStatus(proposal, kept.loaded_ms, decision)
