"""The corrections topic agrees with the desk, whatever reviewers do with what they decided."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from desk.core.items import Queue
from desk.errors import ClaimLost, NotAllowed, NothingToUndo, Refused
from desk.outbox import OutboxPublisher
from desk.service import reviewing, upkeep
from desk.service.context import Policy
from desk.store.database import Database
from desk.store.types import Person
from desk.stream.fake import FakeCorrections
from desk.stream.port import Outgoing
from tests.support.desk_world import DeskWorld, said
from tests.support.topics import labels_of
from worker.contract.records import Correction, Retraction, read_correction
from worker.contract.taxonomy import Label

DAY_S = 86_400


class Topic:
    """The corrections topic, and what a router knows from it (docs/records.md)."""

    def __init__(self, world: DeskWorld) -> None:
        self._written: list[Outgoing] = []
        self._publisher = OutboxPublisher(
            world.database, FakeCorrections(self._written), world.clock, batch=3
        )
        self._world = world

    def records(self) -> list[Correction | Retraction]:
        """Publish what is due, and return all records so far."""
        while self._publisher.run_once():
            pass
        return [read_correction(record.value) for record in self._written]

    def said(self) -> list[str]:
        """The records' labels, or reasons in brackets."""
        return [
            each.label if isinstance(each, Correction) else f"({each.reason})"
            for each in self.records()
        ]

    def labels(self) -> dict[str, str]:
        """The reviewers' labels by id, as a router knows them."""
        return labels_of(self.records())


@pytest.fixture
def topic(world: DeskWorld) -> Topic:
    return Topic(world)


def reopen(world: DeskWorld, person: Person, item_id: int) -> str:
    return reviewing.reopen(world.desk, person, item_id, request_id=world.request())


def test_a_published_label_that_is_undone_is_retracted(world: DeskWorld, topic: Topic) -> None:
    """Named by who took it back; the next decision is a correction again."""
    item = world.add()
    ann = world.person("ann")
    world.decide(ann, "refund")
    assert topic.labels() == {item.result_id: "refund"}
    reviewing.undo(world.desk, ann)
    *_, retraction = topic.records()
    assert isinstance(retraction, Retraction)
    assert (retraction.id, retraction.message_id) == (item.result_id, item.message_id)
    assert retraction.retracted_by == ann.pseudonym
    world.decide(ann, "payment")
    assert topic.said() == ["refund", "(undone)", "payment"]


def test_what_has_not_left_the_desk_is_deleted_and_not_retracted(world: DeskWorld) -> None:
    """A correction within the delay, and a retraction that a new decision overtakes."""
    world = DeskWorld(world.database, policy=Policy(publish_delay_ms=5_000))
    topic, ann = Topic(world), world.person("ann")
    world.add()
    world.decide(ann, "refund")
    reviewing.undo(world.desk, ann)
    world.clock.move(10)
    assert topic.said() == []
    world.decide(ann, "refund")
    world.clock.move(10)
    assert topic.said() == ["refund"]
    reviewing.undo(world.desk, ann)
    world.decide(ann, "payment")
    world.clock.move(10)
    assert topic.said() == ["refund", "payment"]


def test_a_taxonomy_that_drops_a_label_retracts_it(world: DeskWorld, topic: Topic) -> None:
    """Those that are carried over keep the correction that names their own taxonomy."""
    ann = world.person("ann")
    for label in ("refund", "payment", "other", None):
        world.add()
        world.decide(ann, label)
    assert len(topic.labels()) == 3
    labels = (*world.taxonomy.labels[:2], Label("billing", "Paying."))
    new = replace(world.taxonomy, version="2", labels=labels)
    upkeep.change_taxonomy(world.database, new, {"payment": "billing"}, world.clock)
    assert topic.said() == ["refund", "payment", "other", "(taxonomy_changed)"]
    retraction = topic.records()[-1]
    assert isinstance(retraction, Retraction)
    assert retraction.retracted_by is None


def test_reviewers_reopen_what_they_decided(world: DeskWorld, topic: Topic) -> None:
    """However long ago; it is on their screen again. Twice sent is once done."""
    first, second = world.add(), world.add()
    ann, bob = world.person("ann"), world.person("bob")
    world.decide(ann, "refund")
    world.decide(ann, "payment")
    assert topic.said() == ["refund", "payment"]
    with pytest.raises(NotAllowed, match="adjudicator"):
        reopen(world, bob, first.id)
    for _ in range(2):
        assert reviewing.reopen(world.desk, ann, first.id, request_id="same") == "open"
    assert topic.labels() == {second.result_id: "payment"}
    assert reviewing.next_item(world.desk, bob, Queue()) is None
    assert world.decide(ann, "other") == first.id
    assert topic.said() == ["refund", "payment", "(reopened)", "other"]
    assert world.item(second.id).outcome_label == "payment"
    assert [each["action"] for each in world.log()].count("item.reopened") == 1


def test_of_two_opinions_the_other_one_stays(world: DeskWorld, topic: Topic) -> None:
    item = world.add(opinions_wanted=2)
    ann, bob = world.person("ann"), world.person("bob")
    for person in (ann, bob):
        world.decide(person, "refund")
    assert reopen(world, ann, item.id) == "second"
    assert topic.labels() == {}
    assert reviewing.next_item(world.desk, world.person("cy"), Queue()) is None
    world.decide(ann, "refund")
    assert topic.labels() == {item.result_id: "refund"}


def test_adjudicators_reopen_any_item_as_a_dispute(world: DeskWorld, topic: Topic) -> None:
    """With what the reviewers said; also one that an adjudicator had settled."""
    item = world.add()
    ann, eve = world.person("ann"), world.person("eve", "adjudicator")
    world.decide(ann, "refund")
    for label in ("payment", "other"):
        assert reopen(world, eve, item.id) == "dispute"
        assert topic.labels() == {}
        dispute = world.dispute(eve)
        assert [voice.label for voice in dispute.voices if voice.kind == "label"] == ["refund"]
        with pytest.raises(NothingToUndo, match="reopened"):
            reviewing.undo(world.desk, eve)
        reviewing.decide(
            world.desk,
            eve,
            item.id,
            said(world.request(), label),
            final=True,
        )
        assert topic.labels() == {item.result_id: label}
        with pytest.raises(NotAllowed):
            reopen(world, ann, item.id)


def test_a_blind_item_that_is_reopened_goes_to_an_adjudicator(world: DeskWorld) -> None:
    """Who decided it may have seen the model's label since: it would no longer be blind."""
    item = world.add(origin="audit", sample_share=0.02)
    ann = world.person("ann")
    world.decide(ann, "refund")
    assert reopen(world, ann, item.id) == "dispute"
    assert reviewing.next_item(world.desk, ann, Queue()) is None
    assert world.dispute(world.person("eve", "adjudicator")).task.item_id == item.id


def test_what_cannot_be_reopened_is_refused(world: DeskWorld) -> None:
    item, gone = world.add(), world.add(message_id="T-gone")
    eve = world.person("eve", "owner")
    with pytest.raises(Refused, match="decided item"):
        reopen(world, eve, item.id)
    with pytest.raises(Refused, match="no such item"):
        reopen(world, eve, 999)
    for _ in (item, gone):
        world.decide(eve, "refund")
    upkeep.purge_person(world.desk, message_ids=["T-gone"])
    with pytest.raises(Refused, match="deleted"):
        reopen(world, eve, gone.id)


class Chaos:
    """What a reviewer may do, at random."""

    def __init__(self, world: DeskWorld, topic: Topic, draw: random.Random, items: int) -> None:
        self._world, self._topic, self._draw = world, topic, draw
        kinds: list[dict[str, Any]] = [
            {},
            {"opinions_wanted": 2},
            {"origin": "audit", "sample_share": 0.1},
        ]
        self.items = [world.add(**draw.choice(kinds)).id for _ in range(items)]

    def _label(self) -> str | None:
        return self._draw.choice(("refund", "payment", None))

    def decide(self, person: Person) -> None:
        if (task := reviewing.next_item(self._world.desk, person, Queue())) is not None:
            item_id, request = task.item_id, self._world.request()
            reviewing.decide(
                self._world.desk,
                person,
                item_id,
                said(request, self._label()),
            )

    def flag(self, person: Person) -> None:
        if (task := reviewing.next_item(self._world.desk, person, Queue())) is not None:
            request = self._world.request()
            reviewing.decide(self._world.desk, person, task.item_id, said(request, "flag"))

    def undo(self, person: Person) -> None:
        reviewing.undo(self._world.desk, person)

    def reopen(self, person: Person) -> None:
        reopen(self._world, person, self._draw.choice(self.items))

    def adjudicate(self, person: Person) -> None:
        if (dispute := reviewing.next_dispute(self._world.desk, person)) is not None:
            item_id, request, label = dispute.task.item_id, self._world.request(), self._label()
            reviewing.decide(self._world.desk, person, item_id, said(request, label), final=True)

    def publish(self, _: Person) -> None:
        self._topic.records()

    def retain(self, _: Person) -> None:
        self._world.clock.move(31 * DAY_S)
        upkeep.apply_retention(self._world.desk, 100_000, 730)


WEIGHTS = {
    "decide": 8, "undo": 3, "reopen": 4, "flag": 1, "adjudicate": 4, "publish": 4, "retain": 0.2,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_whatever_reviewers_do_the_topic_agrees_with_the_database(
    database: Database, seed: int
) -> None:
    """Four reviewers, two of them adjudicators, do 600 things at random."""
    world = DeskWorld(database, policy=Policy(publish_delay_ms=5_000))
    topic, draw = Topic(world), random.Random(seed)
    chaos = Chaos(world, topic, draw, 12)
    team = [world.person(f"reviewer{n}", "adjudicator" if n < 2 else "reviewer") for n in range(4)]
    did: Counter[str] = Counter()
    for name in draw.choices(list(WEIGHTS), list(WEIGHTS.values()), k=600):
        world.clock.move(draw.uniform(0, 4))
        try:
            getattr(chaos, name)(draw.choice(team))
        except (ClaimLost, Refused, NotAllowed, NothingToUndo):
            continue
        did[name] += 1
    world.clock.move(10)
    decided = [world.item(item_id) for item_id in chaos.items]
    assert topic.labels() == {
        each.result_id: each.outcome_label for each in decided if each.outcome == "label"
    }
    assert min(did[name] for name in WEIGHTS) > 0
    assert did["reopen"] > 20
    assert any(isinstance(each, Retraction) for each in topic.records())
