"""Search, similar messages, clusters, guidelines, counts."""

from __future__ import annotations

import pytest

from desk.core.items import Queue
from desk.errors import ClaimLost
from desk.service import browsing, queues, reviewing
from desk.store import decisions
from desk.store.types import Person
from tests.support.desk_world import DeskWorld


def decide_all(world: DeskWorld, person: Person, label: str | None) -> None:
    """Decide every item of a person the same way."""
    while (task := reviewing.next_item(world.desk, person, Queue())) is not None:
        world.decide(person, label, task.item_id)


def test_search_finds_all_words_in_any_order(world: DeskWorld) -> None:
    """Case does not matter, nor on SQLite do accents. The last word may be a prefix."""
    first = world.add("The KETTLE arrived broken yesterday")
    world.add("The kettle is fine")
    ann = world.person("ann")
    found = browsing.search(world.desk, ann, "broken kett")
    assert [each.task.item_id for each in found] == [first.id]
    assert len(browsing.search(world.desk, ann, "kettle")) == 2
    assert browsing.search(world.desk, ann, "?!") == []
    assert browsing.search(world.desk, ann, "kettle 'OR 1=1 -- \" *:&|!") == []


def test_search_by_label_does_not_tell_of_blind_items(world: DeskWorld) -> None:
    world.add("kettle", origin="audit", label="refund")
    ann = world.person("ann")
    assert browsing.search(world.desk, ann, "kettle", label="refund") == []
    (found,) = browsing.search(world.desk, ann, "kettle")
    assert found.task.machine is None
    decide_all(world, ann, "refund")
    (found,) = browsing.search(world.desk, ann, "kettle", label="refund")
    assert found.task.machine is not None


def test_neighbours_are_decided_and_alike(world: DeskWorld) -> None:
    ann = world.person("ann")
    world.add("my blue kettle never arrived")
    world.add("charged twice on my card")
    decide_all(world, ann, "delivery")
    world.add("the kettle never arrived either")
    item = world.add("blue kettle never arrived, where is it")
    found = browsing.neighbours(world.desk, ann, item.id)
    assert [each.label for each in found] == ["delivery"]
    assert found[0].task.text == "my blue kettle never arrived"


def test_what_shares_a_few_words_alone_is_no_neighbour(world: DeskWorld) -> None:
    """No similar message is better than a misleading one: reviewers would follow it."""
    ann = world.person("ann")
    world.add("I have been charged twice on my card and would like one of the two back")
    decide_all(world, ann, "payment")
    item = world.add("My blue kettle has not come and I would like to know where it is")
    assert browsing.neighbours(world.desk, ann, item.id) == []
    like = world.add("I would like to know where my blue kettle is that has not come")
    world.decide(ann, "delivery", like.id)
    assert [each.label for each in browsing.neighbours(world.desk, ann, item.id)] == ["delivery"]


def test_neighbours_are_looked_for_nearby_and_near_duplicates_everywhere(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page takes as long among a million messages as among a thousand."""
    monkeypatch.setattr("desk.store.browse.NEAR", 3)
    ann = world.person("ann")
    same = "Please tell me where the blue kettle is that I ordered from you last Tuesday evening"
    world.add(f"{same}!")
    world.add("a blue kettle that was far away in time")
    for n in range(3):
        world.add(f"charged twice on card {n}")
    world.add("the kettle came, and it is blue, thank you")
    decide_all(world, ann, "delivery")
    item = world.add(same)
    found = browsing.neighbours(world.desk, ann, item.id)
    assert [each.task.text for each in found] == [
        f"{same}!",
        "the kettle came, and it is blue, thank you",
    ]


def test_a_cluster_is_looked_at_and_decided_together(world: DeskWorld) -> None:
    """Items that others hold, blind and double ones are left out. Each has its own decision."""
    text = "Please confirm my booking number {} for the summer sale of garden chairs"
    ids = [world.add(text.format(n)).id for n in range(6)]
    world.add(text.format(7), origin="audit")
    world.add(text.format(8), opinions_wanted=2)
    world.add("something else altogether")
    ann, bob = world.person("ann"), world.person("bob")
    reviewing.claim_item(world.desk, bob, ids[0])
    (found,) = browsing.clusters(world.desk, ann)
    assert found.waiting == 7
    tasks = browsing.cluster(world.desk, ann, found.key)
    assert [task.item_id for task in tasks] == ids[1:]
    with pytest.raises(ClaimLost):
        browsing.decide_cluster(world.desk, ann, ids, "other", request_id="all")
    assert world.item(ids[1]).state == "open"
    browsing.decide_cluster(world.desk, ann, ids[1:], "other", request_id="all")
    with world.database.read() as tx:
        made = [decisions.on_item(tx, each) for each in ids[1:]]
    assert [[each.label for each in of_item] for of_item in made] == [["other"]] * 5


def test_figures_say_how_things_stand(world: DeskWorld) -> None:
    world.add_all([(f"message {n}", {"opinions_wanted": 2}) for n in range(2)])
    world.clock.move(120)
    assert queues.overview(world.desk).oldest_waiting_s == 120
    decide_all(world, world.person("ann"), "refund")
    bob = world.person("bob")
    world.decide(bob, "other")
    decide_all(world, bob, "refund")
    assert queues.overview(world.desk).items == {"decided": 1, "dispute": 1}
    assert queues.overview(world.desk).disputes == 1
