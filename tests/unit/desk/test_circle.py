"""Advice and proposals: loaded once, shown to owners, answered once, handed back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from desk.core.queue import Queue
from desk.errors import NotAllowed, Refused
from desk.service import advising, batches, exporting, people, proposing, reviewing, upkeep
from desk.service.context import Policy
from tests.support.desk_files import make_advice, make_proposal, make_task, task_file
from tests.support.desk_world import DeskWorld
from worker.contract.codec import encode
from worker.contract.exchange import Advice, Neighbour, Proposal, read_decision

SECRET = "my scarlet teapot"


def as_file(record: Advice | Proposal) -> str:
    return json.dumps(encode(record))


def actions(world: DeskWorld) -> list[str]:
    """What the log has, newest first."""
    owner = world.person("owner", "owner")
    return [each["action"] for each in people.audit_log(world.desk, owner)]


def test_advice_is_kept_once_and_its_messages_apart(world: DeskWorld) -> None:
    """The same file is the same advice; who saw its messages is in the log."""
    file = as_file(make_advice(SECRET, "another", None))
    id_, is_new = advising.load(world.desk, file, "advice.json")
    assert is_new
    assert advising.load(world.desk, file, "advice.json") == (id_, False)
    (given,) = advising.everything(world.desk)
    assert list(given.counts) == [3]
    assert SECRET not in repr(given)
    owner = world.person("owner", "owner")
    _, finding, shown = advising.messages(world.desk, owner, id_, 0)
    assert finding.kind == "confused"
    assert [each.text for each in shown] == [SECRET, "another", None]
    assert "advice.seen" in actions(world)
    with pytest.raises(NotAllowed):
        advising.messages(world.desk, world.person("ann", "adjudicator"), id_, 0)
    for number in (-1, 1):
        with pytest.raises(Refused, match="no such finding"):
            advising.messages(world.desk, owner, id_, number)


def test_a_text_that_the_file_leaves_out_is_found_at_the_desk(world: DeskWorld) -> None:
    """By its id and its digest; another text under that id is not it."""
    world.add(SECRET, message_id="row-0")
    world.add("another", message_id="row-1")
    advice = make_advice(SECRET, "not this")
    finding = advice.findings[0]
    bare = tuple(replace(each, text=None) for each in finding.messages)
    file = as_file(replace(advice, findings=(replace(finding, messages=bare),)))
    id_, _ = advising.load(world.desk, file, "advice.json")
    _, _, shown = advising.messages(world.desk, world.person("owner", "owner"), id_, 0)
    assert [each.text for each in shown] == [SECRET, None]


def test_people_are_asked_about_a_finding_once(world: DeskWorld) -> None:
    """Its messages become a batch; asked again, the same. Those without a text are left out."""
    owner, ann = world.person("owner", "owner"), world.person("ann")
    id_, _ = advising.load(world.desk, as_file(make_advice(SECRET, "another", None)), "a")
    asked = advising.ask(world.desk, owner, id_, 0)
    assert (asked.new, asked.known) == (2, 0)
    again = advising.ask(world.desk, None, id_, 0)
    assert (again.new, again.batches) == (0, asked.batches)
    task = reviewing.next_item(world.desk, ann, Queue(batch_id=asked.batches[0]))
    assert task is not None
    assert task.asked is not None
    assert (task.text, task.asked.given) == (SECRET, "refund")
    assert batches.all_progress(world.desk)[0].batch.name == "People confuse refund and payment."
    with pytest.raises(NotAllowed):
        advising.ask(world.desk, ann, id_, 0)
    nothing, _ = advising.load(world.desk, as_file(make_advice(None)), "b")
    with pytest.raises(Refused, match="none of these messages"):
        advising.ask(world.desk, owner, nothing, 0)


def test_messages_of_advice_are_deleted_as_all_others(world: DeskWorld) -> None:
    """With their person, also where they are no items here, and by age."""
    owner = world.person("owner", "owner")
    id_, _ = advising.load(world.desk, as_file(make_advice(SECRET, "another")), "a")

    def texts() -> list[str | None]:
        return [each.text for each in advising.messages(world.desk, owner, id_, 0)[2]]

    upkeep.purge_person(world.desk, message_ids=["row-0"])
    assert texts() == [None, "another"]
    world.clock.move(91 * 86_400)
    upkeep.apply_retention(world.desk, 90)
    assert texts() == [None, None]


def test_masked_roles_see_no_personal_data_beside_either(world: DeskWorld) -> None:
    """Nor in messages that a task or advice brings along."""
    mail = "write to jo@example.org"
    policy = Policy(masked_roles=frozenset({"reviewer", "owner"}))
    desk = DeskWorld(world.database, policy=policy, clock=world.clock).desk
    file = task_file([make_task("A", neighbours=(Neighbour(mail, "delivery"),))])
    batch = batches.load(desk, file, "t").batches[0]
    task = reviewing.next_item(desk, world.person("ann"), Queue(batch_id=batch))
    assert task is not None
    assert task.asked is not None
    id_, _ = advising.load(desk, as_file(make_advice(mail)), "a")
    _, _, shown = advising.messages(desk, world.person("owner", "owner"), id_, 0)
    texts = [each.text for each in task.asked.similar] + [each.text for each in shown]
    for text in texts:
        assert text is not None
        assert "jo@example.org" not in text


@pytest.mark.parametrize("file", ["{", "[]", '{"schema": "advice/2"}', as_file(make_proposal())])
def test_what_is_no_advice_is_refused(world: DeskWorld, file: str) -> None:
    """With its name; nothing is kept."""
    with pytest.raises(Refused, match=r"advice.json: .* it was not loaded"):
        advising.load(world.desk, file, "advice.json")
    with pytest.raises(Refused, match=r"p.json: .* it was not loaded"):
        proposing.load(world.desk, as_file(make_advice()), "p.json")
    assert advising.everything(world.desk) == []


def test_a_proposal_is_answered_once(world: DeskWorld, tmp_path: Path) -> None:
    """The same answer again changes nothing, another is refused; the export is the trainer's."""
    proposal = make_proposal()
    assert proposing.load(world.desk, as_file(proposal), "p") == (proposal.id, True)
    assert proposing.load(world.desk, as_file(proposal), "p") == (proposal.id, False)
    owner = world.person("owner", "owner")
    assert exporting.export(world.desk, tmp_path, by_message_id=True).proposals == ()
    with pytest.raises(NotAllowed):
        proposing.decide(
            world.desk, proposal.id, publish=True, person=world.person("a", "adjudicator")
        )
    first = proposing.decide(world.desk, proposal.id, publish=True, reason="clear", person=owner)
    world.clock.move(60)
    assert proposing.decide(world.desk, proposal.id, publish=True, person=owner) == first
    with pytest.raises(Refused, match="decided otherwise"):
        proposing.decide(world.desk, proposal.id, publish=False, person=owner)
    (path,) = exporting.export(world.desk, tmp_path, by_message_id=True).proposals
    decision = read_decision(path, proposal)
    assert (decision.publish, decision.reason) == (True, "clear")
    assert decision.decided_by == owner.pseudonym
    assert actions(world).count("proposal.decided") == 1


def test_what_the_gate_refuses_is_not_published(world: DeskWorld) -> None:
    """Nobody can say yes to it here; no is an answer, also by the command line."""
    proposal = make_proposal(verdict="refused")
    proposing.load(world.desk, as_file(proposal), "p")
    with pytest.raises(Refused, match="the gate refuses"):
        proposing.decide(world.desk, proposal.id, publish=True)
    decided = proposing.decide(world.desk, proposal.id, publish=False).decision
    assert decided is not None
    assert (decided.publish, decided.decided_by) == (False, "operator")
    with pytest.raises(Refused, match="no such proposal"):
        proposing.decide(world.desk, "9" * 32, publish=False)
