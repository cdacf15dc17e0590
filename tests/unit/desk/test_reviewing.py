"""Deciding: who gets which item, and what a decision and undo do."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from desk.core.items import Queue
from desk.errors import ClaimLost, NotAllowed, NothingToUndo, Refused
from desk.service import people, reviewing
from desk.store import decisions, outbox
from desk.store.types import Person
from tests.support.desk_world import DeskWorld, said
from worker.contract.records import Correction, read_correction

EVERYTHING = Queue()


def take(world: DeskWorld, person: Person, queue: Queue = EVERYTHING) -> int | None:
    """Return the id of the next item for a person, which they hold then."""
    task = reviewing.next_item(world.desk, person, queue)
    return None if task is None else task.item_id


def decide(world: DeskWorld, person: Person, item_id: int, label: str | None) -> str:
    """Decide an item, and return its state."""
    return reviewing.decide(world.desk, person, item_id, said(world.request(), label))


def corrections(world: DeskWorld) -> list[tuple[str, str]]:
    """Return the corrections that wait: result ids and labels."""
    with world.database.write() as tx:
        outbox.give_sequence(tx, world.clock(), 1000)
        waiting = outbox.pending(tx, 1000)
    read = [read_correction(value) for _, _, value in waiting]
    return [(each.id, each.label) for each in read if isinstance(each, Correction)]


def test_two_people_never_hold_the_same_item(world: DeskWorld) -> None:
    """When the claim expires, it is another reviewer's, and the first one cannot decide it."""
    item = world.add()
    ann, bob = world.person("ann"), world.person("bob")
    assert take(world, ann) == item.id
    assert take(world, bob) is None
    with pytest.raises(ClaimLost):
        reviewing.claim_item(world.desk, bob, item.id)
    world.clock.move(901)
    assert take(world, bob) == item.id
    with pytest.raises(ClaimLost):
        decide(world, ann, item.id, "refund")
    assert decide(world, bob, item.id, "delivery") == "decided"


def test_a_second_tab_of_one_person_is_told_so(world: DeskWorld) -> None:
    """Also where another opinion is wanted, so that the item still waits."""
    ann = world.person("ann")
    for item in (world.add(), world.add(opinions_wanted=2)):
        reviewing.claim_item(world.desk, ann, item.id)
        decide(world, ann, item.id, "refund")
        with pytest.raises(ClaimLost, match="you decided this message in another tab"):
            decide(world, ann, item.id, "delivery")


def test_what_is_given_back_is_anybodys(world: DeskWorld) -> None:
    item = world.add()
    ann, bob = world.person("ann"), world.person("bob")
    assert take(world, ann) == item.id
    reviewing.release_item(world.desk, bob, item.id)  # not theirs to give
    assert take(world, bob) is None
    reviewing.release_item(world.desk, ann, item.id)
    assert take(world, bob) == item.id
    people.leave(world.desk, bob)
    assert take(world, ann) == item.id


@pytest.mark.slow
def test_ten_people_at_once_get_no_item_twice(world: DeskWorld) -> None:
    world.add_all([(f"message {n}", {}) for n in range(200)])
    done: list[int] = []
    failed: list[BaseException] = []
    team = [world.person(f"person{n}") for n in range(10)]

    def work(person: Person) -> None:
        try:
            while (task := reviewing.next_item(world.desk, person, EVERYTHING)) is not None:
                request = f"{person.id}.{task.item_id}"
                reviewing.decide(
                    world.desk, person, task.item_id, reviewing.Said(request, "label", "other")
                )
                done.append(task.item_id)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(person,)) for person in team]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(done) == len(set(done)) == 200
    assert len(corrections(world)) == 200


def test_people_who_disagree_open_an_adjudication(world: DeskWorld) -> None:
    """An adjudicator settles it, but not one who is part of it."""
    item = world.add(opinions_wanted=2)
    ann, bob = world.person("ann", "adjudicator"), world.person("bob")
    eve = world.person("eve", "adjudicator")
    take(world, ann)
    decide(world, ann, item.id, "refund")
    take(world, bob)
    assert decide(world, bob, item.id, None) == "dispute"
    assert corrections(world) == []
    assert reviewing.next_dispute(world.desk, ann) is None
    dispute = world.dispute(eve)
    assert [voice.label for voice in dispute.voices] == ["refund", None]
    done = reviewing.decide(
        world.desk, eve, item.id, reviewing.Said("last", "label", "payment"), final=True
    )
    assert done == "decided"
    assert corrections(world) == [(item.result_id, "payment")]
    assert reviewing.next_dispute(world.desk, eve) is None


def test_what_is_skipped_is_for_others(world: DeskWorld) -> None:
    """The same person is asked again when nothing else is left, the oldest skip first; what they
    have decided is never asked again."""
    first, second, third = (world.add().id for _ in range(3))
    ann, bob = world.person("ann"), world.person("bob")
    for item in (first, second):
        assert take(world, ann) == item
        reviewing.decide(world.desk, ann, item, reviewing.Said(f"skip-{item}", "skip"))
    assert take(world, ann) == third
    assert take(world, bob) == first
    decide(world, ann, third, "refund")
    assert take(world, ann) == second
    reviewing.decide(world.desk, ann, second, reviewing.Said("again", "skip"))
    assert take(world, ann) == second
    decide(world, ann, second, "refund")
    assert take(world, ann) is None
    reviewing.release_item(world.desk, bob, first)
    assert take(world, ann) == first


def test_what_is_flagged_goes_to_an_adjudicator(world: DeskWorld) -> None:
    """It may be the one who flagged it: there may be nobody else."""
    item = world.add()
    ann = world.person("ann", "owner")
    take(world, ann)
    done = reviewing.decide(
        world.desk, ann, item.id, reviewing.Said("flag", "flag", note="two matters")
    )
    assert done == "dispute"
    dispute = world.dispute(ann)
    assert dispute.voices[0].note == "two matters"
    reviewing.decide(world.desk, ann, item.id, reviewing.Said("last", "label", "other"), final=True)
    assert world.item(item.id).state == "decided"


def test_an_adjudicator_can_choose_a_dispute(world: DeskWorld) -> None:
    """Not the oldest one, if another is asked for by its address."""
    bob, eve = world.person("bob"), world.person("eve", "adjudicator")
    items = [world.add().id for _ in range(2)]
    for item in items:
        assert take(world, bob) == item
        reviewing.decide(world.desk, bob, item, reviewing.Said(f"flag-{item}", "flag"))
    dispute = world.dispute(eve, items[1])
    assert dispute.task.item_id == items[1]


def test_nobody_undoes_what_others_have_gone_on_with(world: DeskWorld) -> None:
    """Another reviewer has given an opinion, or has the item on screen."""
    item = world.add(opinions_wanted=2)
    ann, bob = world.person("ann"), world.person("bob")
    take(world, ann)
    decide(world, ann, item.id, "refund")
    take(world, bob)
    with pytest.raises(NothingToUndo, match="on screen"):
        reviewing.undo(world.desk, ann)
    decide(world, bob, item.id, "refund")
    with pytest.raises(NothingToUndo, match="decided"):
        reviewing.undo(world.desk, ann)
    assert world.item(item.id).state == "decided"


def test_a_request_that_is_sent_twice_decides_once(world: DeskWorld) -> None:
    item = world.add()
    ann = world.person("ann")
    take(world, ann)
    first = reviewing.decide(world.desk, ann, item.id, reviewing.Said("same", "label", "refund"))
    again = reviewing.decide(world.desk, ann, item.id, reviewing.Said("same", "label", "refund"))
    assert first == again
    assert len(corrections(world)) == 1


def test_the_request_id_of_another_decision_is_refused(world: DeskWorld) -> None:
    """It was a 500 for another reviewer, and for the same one a success that decided nothing."""
    first, second = world.add(), world.add("Another")
    ann, bob = world.person("ann"), world.person("bob")
    take(world, ann)
    reviewing.decide(world.desk, ann, first.id, reviewing.Said("same", "label", "refund"))
    take(world, ann)
    with pytest.raises(Refused, match="reload the page"):
        reviewing.decide(world.desk, ann, second.id, reviewing.Said("same", "label", "refund"))
    reviewing.release_item(world.desk, ann, second.id)
    take(world, bob)
    with pytest.raises(Refused, match="reload the page"):
        reviewing.decide(world.desk, bob, second.id, reviewing.Said("same", "label", "refund"))
    row = {"request_id": "same", "person_id": bob.id, "kind": "none", "note": "", "seconds": 0.0}
    row |= {"final": False, "taxonomy_digest": world.taxonomy.digest}
    with pytest.raises(Refused, match="reload the page"), world.database.write() as tx:
        decisions.add(tx, second, row, world.clock())  # of two requests at once
    assert world.item(second.id).state == "open"


def test_blind_items_tell_nothing_of_the_machine(world: DeskWorld) -> None:
    """A queue by the model's label or doubt does not hold them either."""
    item = world.add(origin="audit", sample_share=0.02, confidence=0.99, reasons=())
    ann = world.person("ann")
    for queue in (Queue(label="delivery"), Queue(reason="low_confidence"), Queue(order="doubtful")):
        assert take(world, ann, queue) is None
    task = world.next(ann)
    assert (task.item_id, task.blind, task.machine) == (item.id, True, None)


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        (Queue(), 0),
        (Queue(order="newest"), 3),
        (Queue(order="doubtful"), 2),
        (Queue(label="refund"), 1),
        (Queue(reason="off_label_mass"), 2),
        (Queue(adapter_digest="b" * 64), 3),
        (Queue(min_age_s=60, order="newest"), 1),
        (Queue(label="refund", adapter_digest="b" * 64), None),
        (Queue(label="delivery", reason="off_label_mass"), 2),
        (Queue(origin="audit"), None),
    ],
)
def test_queues_choose(world: DeskWorld, queue: Queue, expected: int | None) -> None:
    """By label, reason, adapter, age, or several of these, in the given order."""
    changes: list[dict[str, Any]] = [
        {"confidence": 0.5},
        {"label": "refund", "confidence": 0.6},
        {"reasons": ("low_confidence", "off_label_mass"), "confidence": 0.1},
        {"adapter_digest": "b" * 64, "confidence": 0.3},
    ]
    added = []
    for each in changes:
        added.append(world.add("a message", **each).id)
        world.clock.move(25)
    found = take(world, world.person("ann"), queue)
    assert found == (None if expected is None else added[expected])


def test_the_search_for_the_next_item_begins_at_the_facets(world: DeskWorld) -> None:
    """One step for each facet, not for each item: a million items take no longer."""
    from desk.store.claims import candidates

    for label in ("refund", "payment", "other"):
        world.add_all([(f"{label} {n}", {"label": label}) for n in range(3)])
    for queue, facets in ((Queue(), 3), (Queue(order="newest"), 3), (Queue(label="other"), 1)):
        with world.database.read() as tx:
            given = {"person_id": 1, "now_ms": world.clock(), "skip": 0}
            found = tx.execute(candidates(queue), given).scalars().all()
        assert len(found) == facets


def test_what_cannot_be_is_refused(world: DeskWorld) -> None:
    """An unknown label, an item that is not held, a note that is too long, a closed account."""
    item = world.add()
    ann, owner = world.person("ann"), world.person("owner", "owner")
    with pytest.raises(ClaimLost):
        decide(world, ann, item.id, "refund")
    take(world, ann)
    with pytest.raises(Refused, match="no such label"):
        decide(world, ann, item.id, "planted")
    with pytest.raises(Refused, match="note"):
        reviewing.decide(
            world.desk, ann, item.id, reviewing.Said("long", "label", "refund", note="x" * 2001)
        )
    closed = people.change(world.desk, owner, ann.id, active=False)
    with pytest.raises(NotAllowed):
        take(world, closed)
    assert take(world, owner) == item.id


def test_shares_of_a_queue_are_parts_of_it(world: DeskWorld) -> None:
    """Each message is in one part; a reviewer is given theirs alone, also what they skipped."""
    added = {world.add().id for _ in range(7)}
    found = []
    for part, name in enumerate(("ann", "bob", "cleo"), start=1):
        person, queue = world.person(name), Queue(share=(part, 3))
        left = reviewing.count_left(world.desk, person, queue, excluding=(), most=100)
        mine = []
        while (item_id := take(world, person, queue)) is not None:
            mine.append(item_id)
            decide(world, person, item_id, "refund")
        assert len(mine) == left
        found += mine
    assert sorted(found) == sorted(added)
