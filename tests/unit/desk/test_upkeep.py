"""Retention, a customer's messages, exports for the trainer, a new taxonomy."""

from __future__ import annotations

import json
import random
import string
from dataclasses import replace
from pathlib import Path

import pytest

from desk.core.items import Queue
from desk.errors import SettingsError
from desk.service import browsing, circle, queues, reviewing, upkeep
from desk.service.context import open_desk
from desk.store import items, outbox
from tests.support.desk_world import DeskWorld
from worker.contract.exchange import Task, task_id
from worker.contract.records import to_json
from worker.contract.taxonomy import Label
from worker.contract.text import message_sha256

DAY_S = 86_400


def text_of(world: DeskWorld, item_id: int) -> str | None:
    with world.database.read() as tx:
        return items.text_of(tx, item_id)


def everything(world: DeskWorld) -> bytes:
    """Return all bytes of the database's files."""
    path = Path(str(world.database.engine.url.database))
    world.database.close()
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


def test_old_messages_are_deleted_decided_or_not(world: DeskWorld) -> None:
    """Decided items stay decided, others are closed, and search finds neither."""
    first, second = world.add("planted kettle"), world.add("planted kettle")
    ann = world.person("ann")
    world.decide(ann, "refund")
    world.clock.move(60 * DAY_S)
    new = world.add("planted kettle")
    world.clock.move(31 * DAY_S)
    assert upkeep.apply_retention(world.desk, 90, 730) == 2
    assert [world.item(each.id).state for each in (first, second, new)] == [
        "decided",
        "closed",
        "open",
    ]
    assert [text_of(world, each.id) for each in (first, second, new)] == [
        None,
        None,
        "planted kettle",
    ]
    found = browsing.search(world.desk, ann, "kettle")
    assert [each.task.item_id for each in found] == [new.id]
    assert world.item(first.id).message_sha256 is not None


def test_a_dispute_whose_message_is_deleted_waits_no_longer(world: DeskWorld) -> None:
    item = world.add()
    ann, eve = world.person("ann"), world.person("eve", "adjudicator")
    assert world.next(ann).item_id == item.id
    reviewing.decide(world.desk, ann, item.id, reviewing.Said("flag", "flag"))
    assert reviewing.is_dispute_waiting(world.desk, eve)
    world.clock.move(91 * DAY_S)
    assert upkeep.apply_retention(world.desk, 90, 730) == 1
    assert queues.overview(world.desk).disputes == 0
    assert not reviewing.is_dispute_waiting(world.desk, eve)


def test_a_persons_messages_leave_no_trace(world: DeskWorld) -> None:
    """Text, ids, keys, digest, notes and published records are deleted; on SQLite from the file's
    bytes too."""
    first = world.add("zanzibar kettle", message_id="T-planted-1")
    second = world.add("zanzibar kettle", record_key=b"customer-planted")
    other = world.add("another message")
    ann = world.person("ann")
    for label in ("refund", None):
        world.decide(ann, label, note="planted note")
    with world.database.write() as tx:
        outbox.give_sequence(tx, 0, 10)
        outbox.give_sequence(tx, world.clock(), 10)
        outbox.published(tx, 10, world.clock())
    count = upkeep.purge_person(
        world.desk, message_ids=["T-planted-1"], record_keys=[b"customer-planted"]
    )
    assert count == 2
    for each in (first, second):
        gone = world.item(each.id)
        assert (gone.message_id, gone.record_key, gone.message_sha256) == (None, None, None)
        assert text_of(world, each.id) is None
    assert text_of(world, other.id) == "another message"
    if world.database.is_sqlite:
        with world.database.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("BEGIN")
        left = everything(world)
        for word in (b"zanzibar", b"T-planted-1", b"customer-planted", b"planted note"):
            assert word not in left, word


def test_ids_and_keys_of_any_length_are_kept_and_found(world: DeskWorld) -> None:
    """A publisher chooses them. PostgreSQL's usual index refuses more than 2.7 kB, and a row that
    cannot be inserted would stop the inbox."""
    draw = random.Random(1)
    long_id, long_key = f"{draw.getrandbits(200_000):x}", draw.randbytes(9_000)
    world.add("kettle", message_id=long_id, record_key=long_key)
    assert upkeep.purge_person(world.desk, message_ids=[long_id], record_keys=[long_key]) == 1


def test_an_export_is_what_prepare_takes(world: DeskWorld, tmp_path: Path) -> None:
    """The trainer's own reader takes both files: a label, and a message that is dropped."""
    from trainer.dataset.folder import Row, number_copies
    from trainer.dataset.labels import apply_decisions, read_decisions

    world.add("give me my money  back", message_id="T-1")
    world.add("gibberish", message_id="T-2")
    world.add("undecided", message_id="T-3")
    ann = world.person("ann")
    world.decide(ann, "refund", note="=clear")
    world.decide(ann, None)
    count, (messages, decided) = upkeep.export(world.desk, tmp_path / "out", by_message_id=True)
    assert count == 2
    assert messages.stat().st_mode & 0o077 == 0
    rows = [json.loads(line) for line in messages.read_text("utf-8").splitlines()]
    known = world.desk.taxonomy.names
    made, undecided = read_decisions(decided, known)
    assert undecided == 0
    given = [Row(row["id"], row["message"], row["label"], None, "messages.jsonl:1") for row in rows]
    number_copies(given)
    applied = apply_decisions(given, {row["id"]: row["message"] for row in rows}, made)
    assert [(row.id, row.label) for row in applied.rows] == [("T-1", "refund")]


def unlike(draw: random.Random) -> str:
    """A message that is like no other."""
    words = ("".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(12))
    return " ".join(words)


def test_the_audit_sample_is_held_out_and_never_learned(world: DeskWorld, tmp_path: Path) -> None:
    """Drawn at random: held out, or validates. Chosen because a model doubted it: learned. A
    message that was drawn and also chosen, as a result or a task of a batch, counts as drawn."""
    from trainer.dataset.folder import Example, open_holdout, write_dataset
    from trainer.propose.version import make_version, read_new_messages, read_outcomes

    draw, labels = random.Random(7), world.taxonomy.names
    parts = {
        part: [Example(f"{part}-{n}", unlike(draw), labels[n % len(labels)]) for n in range(16)]
        for part in ("train", "validation", "holdout")
    }
    base = write_dataset(tmp_path / "base", name="d", taxonomy=world.taxonomy, splits=parts)
    drawn, chosen = ([unlike(draw) for _ in range(40)] for _ in range(2))
    sample = {"origin": "audit", "sample_share": 0.05, "reasons": ()}
    world.add_all([(text, dict(sample)) for text in drawn])
    world.add_all([(text, {}) for text in chosen])
    world.clock.move(60)  # decided later than the draw
    world.add_all([(drawn[0], {"message_id": "T-0"}), (drawn[1], {})])
    tasks = [learn_task(text) for text in (*drawn[2:5], chosen[0])]
    circle.load_task_file(world.desk, "".join(f"{each}\n" for each in tasks), "tasks.jsonl")
    ann = world.person("ann")
    for queue in (Queue(), Queue(batch_id=1)):
        while (task := reviewing.next_item(world.desk, ann, queue)) is not None:
            request = world.request()
            reviewing.decide(
                world.desk, ann, task.item_id, reviewing.Said(request, "label", "refund")
            )
            world.clock.move(1)
    written = [
        upkeep.export(world.desk, tmp_path / project, project=project, by_message_id=True)
        for project in ("inbox", "learn")
    ]
    new = make_version(
        base,
        read_outcomes([decisions for _, (_, decisions) in written]),
        read_new_messages([messages for _, (messages, _) in written]),
        tmp_path / "new",
    )
    held = {each.message for each in open_holdout(new, purpose="test", subject="test")}
    learned = {each.message for each in new.train}
    validates = {each.message for each in new.validation}
    assert learned & {*drawn, *chosen} == set(chosen)
    assert set(drawn) <= held | validates
    assert len(held & set(drawn)) > len(validates & set(drawn)) > 0


def learn_task(text: str) -> str:
    """A line of a file of tasks: a message whose label would teach most."""
    sha256 = message_sha256(text)
    task = Task(
        schema="tasks/1", id=task_id("d", "learn", sha256), message_id=f"t-{sha256[:8]}",
        message_sha256=sha256, text=text, purpose="learn", dataset="d", batch="learn",
    )  # fmt: skip
    return to_json(task).decode()


def test_a_new_taxonomy_maps_or_reopens(world: DeskWorld) -> None:
    """Labels that stay or are mapped are carried over. Other items, and those that waited for the
    new taxonomy, are open."""
    ann = world.person("ann")
    for n, label in enumerate(("refund", "payment", "other", None)):
        world.add(f"message {n}", opinions_wanted=1)
        world.decide(ann, label)
    labels = (*world.desk.taxonomy.labels[:2], Label("billing", "Paying."), Label("rest", "Else."))
    new = replace(world.desk.taxonomy, version="2", labels=labels)
    waiting = world.add("of the new one", taxonomy_digest=new.digest)
    with world.database.write() as tx:
        from desk.store.tables import items as table

        tx.execute(table.update().where(table.c.id == waiting.id).values(state="held"))
    with pytest.raises(SettingsError, match="--map"):
        upkeep.change_taxonomy(world.database, new, {"payment": "nothing"}, world.clock)
    counts = upkeep.change_taxonomy(world.database, new, {"payment": "billing"}, world.clock)
    assert counts == {"carried": 2, "reopened": 2, "left": 0, "opened": 1}
    desk = open_desk(world.database, taxonomy=new, policy=world.policy, clock=world.clock)
    assert [world.item(n).outcome_label for n in (1, 2, 3, 4)] == ["refund", "billing", None, None]
    assert [world.item(n).state for n in (3, 4, 5)] == ["open", "open", "open"]
    again = reviewing.next_item(desk, ann, Queue())
    assert again is not None
    assert again.item_id == 3
    reviewing.decide(desk, ann, 3, reviewing.Said("again", "label", "rest"))
