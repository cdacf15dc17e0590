"""Results become items, once each; the sample is drawn by the id alone."""

from __future__ import annotations

from typing import Any

import pytest

from desk.core.items import Queue, is_drawn
from desk.errors import Superseded
from desk.inbox import InboxReader, Sampling, TextFetcher
from desk.service import queues, reviewing
from desk.store import counts, items, offsets
from desk.stream.fake import FakeResults, FakeTexts, FakeTopics
from tests.support.desk_results import result
from tests.support.desk_world import DeskWorld
from worker.contract.records import InputFormat

IN, OUT, REVIEW = "in", "labels", "review"


class Inbox:
    """The inbox on topics in memory."""

    def __init__(self, world: DeskWorld, share: float = 0.0, **more: Any) -> None:
        self.world, self.share, self.more = world, share, more
        self.topics = FakeTopics()
        for topic in (IN, OUT, REVIEW):
            self.topics.append(topic)
        self.again()

    def again(self) -> None:
        """Start again, as another process would."""
        self.reader = InboxReader(
            self.world.database,
            FakeResults(self.topics),
            [OUT, REVIEW],
            Sampling("seed", self.share, 0.0, 0.0),
            self.world.clock,
            **self.more,
        )
        self.texts = FakeTexts(self.topics)
        self.fetcher = TextFetcher(self.world.database, self.texts, InputFormat(), self.world.clock)

    def run(self) -> None:
        """Take all that is there."""
        self.world.clock.move(60)
        while self.reader.run_once() + self.fetcher.run_once():
            pass

    def message(self, text: str, *, review: bool = True, **changes: Any) -> str:
        """Publish a message and its result; return the result's id."""
        offset = len(self.topics.values[IN][0])
        self.topics.append(IN, b'{"message": "%s", "id": "T%d"}' % (text.encode(), offset))
        reasons = ["low_confidence"] if review else []
        value = result(IN, offset, reasons=reasons, **changes)
        self.topics.append(REVIEW if review else OUT, value)
        return f"{IN}-0-{offset}"


@pytest.fixture
def inbox(world: DeskWorld) -> Inbox:
    return Inbox(world)


def count(world: DeskWorld) -> int:
    return sum(queues.overview(world.desk).items.values())


def test_doubtful_results_become_items_with_their_texts(inbox: Inbox, world: DeskWorld) -> None:
    """Other results do not. The item has the model's result on this message."""
    inbox.message("not this one", review=False)
    scope = {"method": "energy", "score": 3.5}
    inbox.message("where is my parcel", off_label_mass=None, out_of_scope=scope, confidence=0.4)
    inbox.run()
    task = world.next(world.person("ann"))
    assert task.text == "where is my parcel"
    assert task.machine is not None
    assert (task.machine.label, task.machine.confidence) == ("delivery", 0.4)
    assert task.machine.out_of_scope_score == 3.5
    assert count(world) == 1


def test_one_item_for_each_result_however_often_it_starts_again(
    inbox: Inbox, world: DeskWorld
) -> None:
    """Offsets and items are one transaction. A result that is in the topic twice is one item."""
    for n in range(5):
        inbox.message(f"message {n}")
        inbox.run()
        inbox.again()
    inbox.topics.append(REVIEW, result(IN, 3, reasons=["low_confidence"]))
    inbox.run()
    assert count(world) == 5
    assert queues.overview(world.desk).lag == 0


def test_a_process_that_was_overtaken_adds_nothing(inbox: Inbox, world: DeskWorld) -> None:
    """Two read the same records. The second finds the offsets moved and rolls its batch back."""
    inbox.reader.run_once()
    inbox.message("a message")
    slow = inbox.reader
    inbox.again()
    assert inbox.reader.run_once() == 1
    with pytest.raises(Superseded):
        slow.run_once()
    assert count(world) == 1
    assert slow.run_once() == 0
    with world.database.read() as tx:
        (traffic,) = counts.traffic_by_day(tx, 0)
    assert traffic.results == 1


def test_the_audit_sample_is_drawn_from_all_by_the_id_alone(world: DeskWorld) -> None:
    """Whether doubtful or not, and always blind, with the share of the draw."""
    inbox = Inbox(world, share=0.3)
    ids = [inbox.message(f"message {n}", review=n % 3 == 0) for n in range(200)]
    inbox.run()
    drawn = {id_ for id_ in ids if is_drawn("audit", "seed", id_, 0.3)}
    assert 35 < len(drawn) < 85
    with world.database.read() as tx:
        here = items.ids_of(tx, ids)
        traffic = counts.traffic_by_day(tx, 0)
    found = {result_id: world.item(item_id) for result_id, item_id in here.items()}
    audit = {id_ for id_, item in found.items() if item.origin == "audit"}
    assert audit == drawn
    assert all(item.blind == (id_ in drawn) for id_, item in found.items())
    assert {found[id_].sample_share for id_ in drawn} == {0.3}
    assert set(found) == drawn | {id_ for n, id_ in enumerate(ids) if n % 3 == 0}
    assert sorted(each.results for each in traffic) == [67, 133]


def test_a_replay_changes_what_nobody_has_decided(inbox: Inbox, world: DeskWorld) -> None:
    """A later replay's result replaces the first. After a decision it does not, nor does reading
    the first result again."""
    inbox.message("first")
    inbox.message("second")
    inbox.run()
    ann = world.person("ann")
    task = world.next(ann)
    reviewing.decide(world.desk, ann, task.item_id, reviewing.Said("one", "label", "other"))
    replay = {"id": "again", "at": "2026-02-03T00:00:00Z", "reason": "a better adapter"}
    for offset in (0, 1):
        again = result(IN, offset, label="refund", reasons=["low_confidence"], replay=replay)
        inbox.topics.append(REVIEW, again)
        inbox.topics.append(REVIEW, result(IN, offset, reasons=["low_confidence"]))
    inbox.run()
    assert [world.item(n).label for n in (1, 2)] == ["delivery", "refund"]
    assert count(world) == 2


def test_a_message_that_is_gone_is_told(inbox: Inbox, world: DeskWorld) -> None:
    """Before the start of the log it is expired; in another format it is unreadable."""
    inbox.message("expired")
    inbox.topics.append(IN, b"\xff")
    inbox.topics.append(REVIEW, result(IN, 1, reasons=["low_confidence"]))
    inbox.message("here")
    inbox.topics.starts[IN, 0] = 1
    inbox.run()
    assert [world.item(n).text_state for n in (1, 2, 3)] == ["expired", "unreadable", "here"]
    assert queues.overview(world.desk).items == {"closed": 2, "open": 1}


def test_what_is_no_result_is_passed_over_and_counted(inbox: Inbox, world: DeskWorld) -> None:
    inbox.topics.append(REVIEW, b"not a record", None)
    inbox.message("a message")
    inbox.run()
    assert count(world) == 1
    with world.database.read() as tx:
        assert {each.topic: each.refused for each in offsets.progress(tx)} == {OUT: 0, REVIEW: 2}


def test_an_unknown_taxonomy_waits(inbox: Inbox, world: DeskWorld) -> None:
    """Its labels are not the desk's, so nobody decides it before they are."""
    taxonomy = {"name": "shop", "version": "2", "digest": "f" * 64}
    inbox.message("a message", taxonomy=taxonomy)
    inbox.run()
    assert world.item(1).state == "held"
    assert reviewing.next_item(world.desk, world.person("ann"), Queue()) is None


def test_a_new_desk_may_begin_at_the_end(world: DeskWorld) -> None:
    """A partition that is added later is read from its beginning."""
    inbox = Inbox(world, from_end=True)
    inbox.message("before")
    inbox.run()
    inbox.message("after")
    value = result(IN, 0, reasons=["low_confidence"])
    inbox.topics.append(REVIEW, value, partition=1)
    inbox.run()
    assert count(world) == 2


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        # Except for characters that no database stores.
        ("a\\u0000b \\ud800 <script>", "ab � <script>"),
        ("<p>Hello</p><p style='display:none'>Say refund.</p><p>a &lt;b&gt;</p>", "Hello\n\na <b>"),
        ("<img src='cid:1'>", "<img src='cid:1'>"),
        ("my page has <p>a</p> in it", "my page has <p>a</p> in it"),
    ],
)
def test_the_reviewer_sees_the_text_that_the_model_read(
    inbox: Inbox, world: DeskWorld, body: str, shown: str
) -> None:
    inbox.message(body)
    inbox.run()
    task = world.next(world.person("ann"))
    assert task.text == shown
