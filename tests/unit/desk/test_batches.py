"""Files of tasks: loaded once, decided like messages, exported, and never in Kafka."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from desk.core.items import Queue
from desk.errors import Refused
from desk.service import circle, queues, reviewing, upkeep
from desk.service.context import Desk, Policy
from desk.store import batches, outbox
from desk.store.types import Person
from tests.support.desk_files import DATASET, make_task, task_file
from tests.support.desk_world import DeskWorld
from worker.common.review_files import read_answers
from worker.contract.exchange import Neighbour

TEXTS = ("Where is it?", "Give it back", "I paid twice")


def load(world: DeskWorld, *texts: str, purpose: str = "check") -> int:
    """Load tasks with these messages; return their batch."""
    tasks = [make_task(text, purpose) for text in texts]  # type: ignore[arg-type]
    return circle.load_task_file(world.desk, task_file(tasks), "tasks.jsonl").batches[0]


def decide_next(world: DeskWorld, person: Person, batch_id: int, label: str | None) -> int:
    return world.decide(person, label, world.next(person, batch_id=batch_id).item_id)


def counts(world: DeskWorld, batch_id: int) -> tuple[int, int, int]:
    """Tasks, decided, waiting."""
    found = {each.id: each.progress for each in circle.all_progress(world.desk)}[batch_id]
    return found.tasks, found.decided, found.waiting


def test_a_file_is_loaded_once(world: DeskWorld) -> None:
    """However often it is loaded, also after decisions. A longer file adds the rest."""
    file = task_file([make_task(text) for text in TEXTS])
    first = circle.load_task_file(world.desk, file, "tasks.jsonl")
    assert (first.new, first.known) == (3, 0)
    ann = world.person("ann")
    decide_next(world, ann, first.batches[0], "refund")
    again = circle.load_task_file(world.desk, file, "tasks.jsonl")
    assert (again.new, again.known, again.batches) == (0, 3, first.batches)
    longer = file + task_file([make_task("And this?")])
    assert circle.load_task_file(world.desk, longer, "tasks.jsonl").new == 1
    assert counts(world, first.batches[0]) == (4, 1, 3)


def test_a_file_of_several_batches_makes_several_queues(world: DeskWorld) -> None:
    """Each has its own tasks and none of the inbox's messages. The inbox has no tasks."""
    inbox = world.add("From Kafka")
    check, learn = load(world, "A"), load(world, "B", purpose="learn")
    ann = world.person("ann")
    found = [reviewing.next_item(world.desk, ann, Queue(batch_id=id_)) for id_ in (check, learn)]
    assert [task.text for task in found if task is not None] == ["A", "B"]
    everything = world.next(ann)
    assert everything.item_id == inbox.id
    decided = reviewing.decide(
        world.desk, ann, inbox.id, reviewing.Said(world.request(), "label", "refund")
    )
    assert decided == "decided"
    assert reviewing.next_item(world.desk, ann, Queue()) is None
    assert queues.waiting(world.desk).all == 0


def test_suspects_come_first(world: DeskWorld) -> None:
    """By the probability that their label is wrong; otherwise in the file's order."""
    doubts = {"A": 0.6, "B": 0.95, "C": 0.8}
    tasks = [make_task(text, confidence=doubt) for text, doubt in doubts.items()]
    batch = circle.load_task_file(world.desk, task_file(tasks), "t").batches[0]
    for order, expected in (("doubtful", "B"), ("oldest", "A")):
        assert world.next(world.person(order), batch_id=batch, order=order).text == expected


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("no JSON", "tasks.jsonl:2"),
        (task_file([make_task("A", label="unheard of")]), "tasks.jsonl:2: a label is none of"),
        (task_file([make_task(TEXTS[0])]), "tasks.jsonl:2: the task .* twice"),
        (
            task_file([make_task("A", "audit")]).replace('"label": null', '"label": "refund"'),
            "tasks.jsonl:2: .*blind",
        ),
    ],
)
def test_a_bad_line_is_refused_and_nothing_is_loaded(
    world: DeskWorld, wrong: str, says: str
) -> None:
    """The error names file and line, and does not repeat the content."""
    file = task_file([make_task(TEXTS[0])]) + wrong + "\n" + task_file([make_task(TEXTS[1])])
    with pytest.raises(Refused, match=says) as caught:
        circle.load_task_file(world.desk, file, "tasks.jsonl")
    assert "unheard" not in str(caught.value)
    assert circle.all_progress(world.desk) == []
    with pytest.raises(Refused, match="no task"):
        circle.load_task_file(world.desk, "\n", "tasks.jsonl")


def test_a_load_that_is_cut_off_is_finished_by_the_next(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of its transactions: no task is lost or there twice."""
    file = task_file([make_task(f"Message {n}") for n in range(450)])
    add = batches.add
    for turn in (2, 1, 2):
        left = [turn]

        def ending(*given: Any, left: list[int] = left) -> Any:
            done = add(*given)
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return done

        monkeypatch.setattr(batches, "add", ending)
        with pytest.raises(KeyboardInterrupt):
            circle.load_task_file(world.desk, file, "tasks.jsonl")
        found = circle.all_progress(world.desk)[0]
        assert (found.progress.tasks, found.loaded_ms) == (100, None)
    monkeypatch.setattr(batches, "add", add)
    done = circle.load_task_file(world.desk, file, "tasks.jsonl")
    assert (done.new, done.known) == (350, 100)
    found = circle.all_progress(world.desk)[0]
    assert found.progress.tasks == 450
    assert found.loaded_ms is not None


def test_tasks_make_no_corrections(world: DeskWorld) -> None:
    """The corrections topic is about results. Decisions on tasks are exported."""
    batch = load(world, *TEXTS)
    ann = world.person("ann")
    decide_next(world, ann, batch, "refund")
    decide_next(world, ann, batch, None)
    with world.database.read() as tx:
        assert outbox.backlog(tx)[0] == 0


def test_tasks_are_undone_doubled_and_adjudicated(world: DeskWorld) -> None:
    world.desk = reopened(world, Policy(publish_delay_ms=0, double_share=1.0))
    batch = load(world, TEXTS[0])
    ann, bob, cy = world.person("ann"), world.person("bob"), world.person("cy", "adjudicator")
    first = decide_next(world, ann, batch, "refund")
    assert reviewing.undo(world.desk, ann).item_id == first
    reviewing.decide(world.desk, ann, first, reviewing.Said(world.request(), "label", "refund"))
    assert reviewing.next_item(world.desk, ann, Queue(batch_id=batch)) is None
    decide_next(world, bob, batch, "delivery")
    dispute = world.dispute(cy)
    assert dispute.task.asked is not None
    assert dispute.task.asked.given == "refund"
    reviewing.decide(
        world.desk, cy, first, reviewing.Said(world.request(), "label", "delivery"), final=True
    )
    far = circle.all_progress(world.desk)[0].progress
    assert (far.decided, far.given, far.kept, far.followed) == (1, 1, 0, 1)
    assert (far.doubly, far.agreed) == (1, 0)


def test_the_audit_is_blind(world: DeskWorld) -> None:
    """An audit task names no label, and no queue by label or doubt holds it."""
    batch = load(world, TEXTS[0], purpose="audit")
    ann = world.person("ann")
    for queue in (
        Queue(batch_id=batch, label="refund"),
        Queue(batch_id=batch, order="doubtful"),
        Queue(batch_id=batch, reason="low_confidence"),
    ):
        assert reviewing.next_item(world.desk, ann, queue) is None
    task = world.next(ann, batch_id=batch)
    assert task.blind
    assert task.machine is None
    assert task.asked is not None
    assert (task.asked.given, task.asked.suggested, task.asked.similar) == (None, None, ())


def test_decisions_go_back_with_where_they_come_from(world: DeskWorld, tmp_path: Path) -> None:
    """Task, purpose, batch, pseudonym. Two reviewers give one outcome and two opinions."""
    world.desk = reopened(world, Policy(publish_delay_ms=0, double_share=1.0))
    batch = load(world, TEXTS[0])
    world.add("From Kafka", message_id="T-9")
    ann, bob = world.person("ann"), world.person("bob")
    decide_next(world, ann, batch, "refund")
    decide_next(world, bob, batch, "refund")
    count, (messages, decisions) = upkeep.export(
        world.desk, tmp_path, project=DATASET[:8], by_message_id=False
    )
    task = make_task(TEXTS[0])
    answers = read_answers(decisions)
    assert count == 1
    assert [(each.role, each.decision) for each in answers] == [
        ("outcome", "accept"),
        ("opinion", "accept"),
        ("opinion", "accept"),
    ]
    assert {each.task_id for each in answers} == {task.id}
    assert {each.id for each in answers} == {task.message_id}
    assert {(each.purpose, each.batch, each.label_source) for each in answers} == {
        ("check", "check of monday", "person")
    }
    assert {each.decided_by for each in answers[1:]} == {ann.pseudonym, bob.pseudonym}
    row = json.loads(messages.read_text("utf-8"))
    assert row == {
        "id": task.message_id, "message": TEXTS[0], "label": "refund", "label_source": "export",
    }  # fmt: skip
    assert upkeep.export(world.desk, tmp_path, project="inbox", by_message_id=True)[0] == 0
    with pytest.raises(Refused, match="there is no batch unheard"):
        upkeep.export(world.desk, tmp_path, project="unheard", by_message_id=True)


def test_of_two_decisions_on_one_message_the_later_counts(world: DeskWorld, tmp_path: Path) -> None:
    """The earlier one is exported as an opinion, so that prepare does not get two outcomes."""
    ann = world.person("ann")
    second = load(world, TEXTS[0], purpose="learn")
    first = load(world, TEXTS[0])
    decide_next(world, ann, first, "refund")
    world.clock.move(60)
    decide_next(world, ann, second, "payment")
    _, (_, decisions) = upkeep.export(world.desk, tmp_path, project=DATASET, by_message_id=True)
    answers = read_answers(decisions)
    assert [(each.role, each.decision, each.new_label) for each in answers] == [
        ("outcome", "relabel", "payment"),
        ("opinion", "accept", ""),
    ]


def test_texts_of_tasks_are_deleted_as_all_others(world: DeskWorld) -> None:
    """By age and with their customer's messages, also where they are similar to another message."""
    near = Neighbour("a yellow umbrella", "delivery", "row-other")
    tasks = [make_task("a purple umbrella", neighbours=(near,)), make_task("a pink umbrella")]
    batch = circle.load_task_file(world.desk, task_file(tasks), "t").batches[0]
    assert upkeep.purge_person(world.desk, message_ids=["row-other"]) == 0
    task = world.next(world.person("ann"), batch_id=batch)
    assert task.asked is not None
    assert task.asked.similar == ()
    assert upkeep.purge_person(world.desk, message_ids=[tasks[0].message_id]) == 1
    assert counts(world, batch) == (2, 0, 1)
    assert circle.load_task_file(world.desk, task_file(tasks), "t").new == 0
    world.clock.move(91 * 86_400)
    assert upkeep.apply_retention(world.desk, 90, 730) == 1
    assert counts(world, batch) == (2, 0, 0)


def reopened(world: DeskWorld, policy: Policy) -> Desk:
    """The same desk under another policy."""
    return DeskWorld(world.database, policy=policy, clock=world.clock).desk
