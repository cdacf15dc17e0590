"""Search, similar messages, clusters, guidelines, counts."""

from __future__ import annotations

import pytest

from desk.accuracy.figures import accuracy_figures
from desk.core.items import Queue
from desk.errors import ClaimLost, NotAllowed, Refused
from desk.service import browsing, guidelines, people, queues, reviewing
from desk.store.types import Person
from tests.support.desk_world import DeskWorld


def decide_all(world: DeskWorld, person: Person, label: str | None) -> None:
    """Decide every item of a person the same way."""
    while (task := reviewing.next_item(world.desk, person, Queue())) is not None:
        reviewing.decide(
            world.desk, person, task.item_id, label, request_id=world.request(), seconds=4
        )


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
    """They are found by label once they are decided."""
    world.add("kettle", origin="audit", label="refund")
    ann = world.person("ann")
    assert browsing.search(world.desk, ann, "kettle", label="refund") == []
    (found,) = browsing.search(world.desk, ann, "kettle")
    assert found.task.machine is None
    decide_all(world, ann, "refund")
    (found,) = browsing.search(world.desk, ann, "kettle", label="refund")
    assert found.task.machine is not None


def test_neighbours_are_decided_and_alike(world: DeskWorld) -> None:
    """The most similar first, with the reviewers' labels."""
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
    world.add("The voucher that you sent me does not work in the app")
    decide_all(world, ann, "payment")
    item = world.add("My blue kettle has not come and I would like to know where it is")
    assert browsing.neighbours(world.desk, ann, item.id) == []
    like = world.add("I would like to know where my blue kettle is that has not come")
    reviewing.claim_item(world.desk, ann, like.id)
    reviewing.decide(world.desk, ann, like.id, "delivery", request_id=world.request())
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


def test_a_long_message_is_not_the_likest_for_its_length(world: DeskWorld) -> None:
    """It has nearly every word."""
    ann = world.person("ann")
    world.add("the kettle is broken " + "and much more was said about this and that " * 50)
    world.add("the kettle is broken")
    decide_all(world, ann, "refund")
    item = world.add("my kettle is broken")
    first, _ = browsing.neighbours(world.desk, ann, item.id)
    assert first.task.text == "the kettle is broken"


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
    done = browsing.decide_cluster(world.desk, ann, ids[1:], "other", request_id="all")
    assert {each.state for each in done} == {"decided"}
    assert len({each.decision_id for each in done}) == 5


def test_guidelines_have_versions(world: DeskWorld) -> None:
    """Decisions name the newest. The second of two who save at once is refused."""
    owner, ann = world.person("owner", "owner"), world.person("ann")
    with pytest.raises(NotAllowed):
        guidelines.save(world.desk, ann, "# Refund\nMoney.", "first", based_on=None)
    first = guidelines.save(world.desk, owner, "# Refund\nMoney.", "first", based_on=None)
    guidelines.save(world.desk, owner, "# Refund\nMoney back.", "clearer", based_on=first.version)
    with pytest.raises(Refused, match="meanwhile"):
        guidelines.save(world.desk, owner, "...", "late", based_on=first.version)
    assert guidelines.for_label(guidelines.current(world.desk), "refund") == "Money back."
    assert [each.note for each in guidelines.versions(world.desk)] == ["clearer", "first"]


def test_figures_say_how_things_stand(world: DeskWorld) -> None:
    """States, age, disputes, agreement."""
    world.add_all([(f"message {n}", {"opinions_wanted": 2}) for n in range(4)])
    world.add("audited", origin="audit", sample_share=0.02)
    world.clock.move(120)
    assert queues.overview(world.desk).oldest_waiting_s == 120
    ann, bob = world.person("ann"), world.person("bob")
    for person, labels in ((ann, ("refund", "other")), (bob, ("refund", "refund"))):
        for n in range(5):
            task = reviewing.next_item(world.desk, person, Queue())
            if task is not None:
                label = labels[n % 2]
                request = world.request()
                reviewing.decide(
                    world.desk, person, task.item_id, label, request_id=request, seconds=3
                )
    found = accuracy_figures(world.desk).agreement
    assert (found.items, found.agreed) == (4, 2)
    assert found.alpha is not None
    assert queues.overview(world.desk).items == {"decided": 3, "dispute": 2}
    assert queues.overview(world.desk).disputes == 2


def test_what_people_saw_and_did_is_logged(world: DeskWorld) -> None:
    """Owners read it. It holds nothing of a message's text."""
    world.add("planted text")
    owner = world.person("owner", "owner")
    decide_all(world, owner, None)
    browsing.search(world.desk, owner, "planted")
    entries = people.audit_log(world.desk, owner)
    actions = [entry["action"] for entry in entries]
    assert actions[:3] == ["search", "item.none", "item.seen"]
    assert "planted" not in str(entries)
    with pytest.raises(NotAllowed):
        people.audit_log(world.desk, world.person("ann"))
