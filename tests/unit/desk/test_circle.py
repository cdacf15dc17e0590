"""The trainer's files at the desk, by the pages' functions and by commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from desk.errors import NotAllowed, Refused, SettingsError
from desk.service import circle, upkeep
from desk.service.context import Policy
from tests.support.desk_files import make_advice, make_proposal, make_task, task_file
from tests.support.desk_world import Command, DeskWorld
from worker.common.review_files import read_answers
from worker.contract.codec import encode
from worker.contract.exchange import Advice, Neighbour, Proposal, read_decision

SECRET = "my scarlet teapot"


def as_file(record: Advice | Proposal) -> str:
    return json.dumps(encode(record))


def actions(world: DeskWorld) -> list[str]:
    return [each["action"] for each in world.log()]


def test_advice_is_kept_once_and_its_messages_apart(world: DeskWorld) -> None:
    """The same file is the same advice. The log says who saw its messages."""
    file = as_file(make_advice(SECRET, "another", None))
    id_, is_new = circle.load_advice(world.desk, file, "advice.json")
    assert is_new
    assert circle.load_advice(world.desk, file, "advice.json") == (id_, False)
    (given,) = circle.all_advice(world.desk)
    assert SECRET not in repr(given)
    owner = world.person("owner", "owner")
    _, finding, shown = circle.messages(world.desk, owner, id_, 0)
    assert finding.kind == "confused"
    assert [each.text for each in shown] == [SECRET, "another", None]
    assert "advice.seen" in actions(world)
    with pytest.raises(NotAllowed):
        circle.messages(world.desk, world.person("ann", "adjudicator"), id_, 0)


def test_a_text_that_the_file_leaves_out_is_found_at_the_desk(world: DeskWorld) -> None:
    """By id and digest. Another text under that id is not used."""
    world.add(SECRET, message_id="row-0")
    world.add("another", message_id="row-1")
    advice = make_advice(SECRET, "not this")
    finding = advice.findings[0]
    bare = tuple(replace(each, text=None) for each in finding.messages)
    file = as_file(replace(advice, findings=(replace(finding, messages=bare),)))
    id_, _ = circle.load_advice(world.desk, file, "advice.json")
    _, _, shown = circle.messages(world.desk, world.person("owner", "owner"), id_, 0)
    assert [each.text for each in shown] == [SECRET, None]


def test_messages_of_advice_are_deleted_as_all_others(world: DeskWorld) -> None:
    """By age, and with their customer's messages, even if they are not items."""
    owner = world.person("owner", "owner")
    id_, _ = circle.load_advice(world.desk, as_file(make_advice(SECRET, "another")), "a")

    def texts() -> list[str | None]:
        return [each.text for each in circle.messages(world.desk, owner, id_, 0)[2]]

    upkeep.purge_person(world.desk, message_ids=["row-0"])
    assert texts() == [None, "another"]
    world.clock.move(91 * 86_400)
    upkeep.apply_retention(world.desk, 90, 730)
    assert texts() == [None, None]


def test_masked_roles_see_no_personal_data_beside_either(world: DeskWorld) -> None:
    mail = "write to jo@example.org"
    policy = Policy(masked_roles=frozenset({"reviewer", "owner"}))
    masked = DeskWorld(world.database, policy=policy, clock=world.clock)
    desk = masked.desk
    file = task_file([make_task("A", neighbours=(Neighbour(mail, "delivery"),))])
    batch = circle.load_task_file(desk, file, "t").batches[0]
    task = masked.next(world.person("ann"), batch_id=batch)
    assert task.asked is not None
    id_, _ = circle.load_advice(desk, as_file(make_advice(mail)), "a")
    _, _, shown = circle.messages(desk, world.person("owner", "owner"), id_, 0)
    texts = [each.text for each in task.asked.similar] + [each.text for each in shown]
    for text in texts:
        assert text is not None
        assert "jo@example.org" not in text


@pytest.mark.parametrize("file", ["{", '{"schema": "advice/2"}', as_file(make_proposal())])
def test_what_is_no_advice_is_refused(world: DeskWorld, file: str) -> None:
    with pytest.raises(Refused, match=r"advice.json: .* it was not loaded"):
        circle.load_advice(world.desk, file, "advice.json")
    with pytest.raises(Refused, match=r"p.json: .* it was not loaded"):
        circle.load_proposal(world.desk, as_file(make_advice()), "p.json")
    assert circle.all_advice(world.desk) == []


def test_a_proposal_is_answered_once(world: DeskWorld, tmp_path: Path) -> None:
    """The same answer again changes nothing; another is refused. The trainer reads the export."""
    proposal = make_proposal()
    assert circle.load_proposal(world.desk, as_file(proposal), "p") == (proposal.id, True)
    assert circle.load_proposal(world.desk, as_file(proposal), "p") == (proposal.id, False)
    owner = world.person("owner", "owner")
    assert len(upkeep.export(world.desk, tmp_path, by_message_id=True)[1]) == 2
    with pytest.raises(NotAllowed):
        circle.decide_proposal(
            world.desk, proposal.id, publish=True, person=world.person("a", "adjudicator")
        )
    first = circle.decide_proposal(
        world.desk, proposal.id, publish=True, reason="clear", person=owner
    )
    world.clock.move(60)
    assert circle.decide_proposal(world.desk, proposal.id, publish=True, person=owner) == first
    with pytest.raises(Refused, match="the other answer"):
        circle.decide_proposal(world.desk, proposal.id, publish=False, person=owner)
    _, (_, _, path) = upkeep.export(world.desk, tmp_path, by_message_id=True)
    decision = read_decision(path, proposal)
    assert (decision.publish, decision.reason) == (True, "clear")
    assert decision.decided_by == owner.pseudonym
    assert actions(world).count("proposal.decided") == 1


def test_what_the_gate_refuses_is_not_published(world: DeskWorld) -> None:
    """ "Yes" is refused, also on the command line. "No" is an answer."""
    proposal = make_proposal(verdict="refused")
    circle.load_proposal(world.desk, as_file(proposal), "p")
    with pytest.raises(Refused, match="the gate refuses"):
        circle.decide_proposal(world.desk, proposal.id, publish=True)
    decided = circle.decide_proposal(world.desk, proposal.id, publish=False).decision
    assert decided is not None
    assert (decided.publish, decided.decided_by) == (False, "operator")
    with pytest.raises(Refused, match="no such proposal"):
        circle.decide_proposal(world.desk, "9" * 32, publish=False)


def test_the_circle_by_commands_alone(world: DeskWorld, command: Command, tmp_path: Path) -> None:
    """Each step says what it did and what comes next. The files are the trainer's."""
    files = {
        "tasks.jsonl": task_file([make_task("A"), make_task("B")]),
        "advice.json": json.dumps(encode(make_advice("C", None))),
        "proposal.json": json.dumps(encode(make_proposal(headline="Yes:\x1b[31m better."))),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert "2 tasks loaded, 0 were loaded before; batch 1" in command(
        "tasks", "load", str(tmp_path / "tasks.jsonl")
    )
    ann = world.person("ann")
    world.decide(ann, "refund", world.next(ann, batch_id=1).item_id)
    assert "1\tcheck\t2\t1\t1\tdddddddddddd\tcheck of monday" in command("tasks", "list")
    status = command("tasks", "status", "1")
    assert "1 of 2 decided, 1 waiting" in status
    assert "1 of 1 labels of the dataset were kept" in status
    assert "advice 1 is loaded" in command("advice", "load", str(tmp_path / "advice.json"))
    assert "1 tasks made, 0 were made before; batch 2" in command("advice", "ask", "1.1")
    assert "is loaded" in command("proposal", "load", str(tmp_path / "proposal.json"))
    listed = command("proposal", "list")
    assert "publish\twaiting" in listed
    assert "\x1b" not in listed
    assert "decided: yes" in command("proposal", "decide", "1111", "yes", "--note", "clear")
    out = tmp_path / "out"
    exported = command("export", "--out", str(out), "--project", "check of monday")
    assert "1 decisions" in exported
    (answer,) = read_answers(out / "decisions.csv")
    assert (answer.decision, answer.decided_by) == ("accept", ann.pseudonym)
    decision = read_decision(out / "proposals" / f"{'1' * 32}.json")
    assert (decision.publish, decision.reason) == (True, "clear")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tasks", "load", "nowhere.jsonl"), "nowhere.jsonl"),
        (("tasks", "status", "7"), "no batch 7"),
        (("advice", "ask", "7"), "write NUMBER.FINDING"),
        (("advice", "ask", "7.1"), "no such finding"),
        (("proposal", "decide", "7", "yes"), "no proposal's id begins with 7"),
        (("export", "--out", "out", "--project", "unheard"), "no batch unheard"),
    ],
)
def test_what_cannot_be_done_is_said(command: Command, words: tuple[str, ...], says: str) -> None:
    with pytest.raises((SettingsError, Refused), match=says):
        command(*words)
