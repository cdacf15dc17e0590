"""Deciding, one item at a time: the next one, a label, none, skip, flag, undo."""

from __future__ import annotations

from collections.abc import Collection

from desk.core.queue import Queue
from desk.errors import ClaimLost, NothingToUndo
from desk.service.concluding import Concluded, Said, conclude
from desk.service.context import Desk, require
from desk.service.tasks import Task, to_task
from desk.service.viewing import seen_how, task_for
from desk.store import claims, decisions, items, people
from desk.store.types import Person


def next_item(
    desk: Desk, person: Person, queue: Queue, *, beside: Collection[int] = ()
) -> Task | None:
    """Return an item of this queue for a person to decide, held for them; None where there is none.

    What they hold already comes first, so that a page that is loaded again shows the same;
    ``beside`` are items that are on their screen, so that a page can fetch the next one early.
    Raises NotAllowed, DatabaseAway.
    """
    require(person, "reviewer")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    with desk.database.write() as tx:
        item = claims.held_by(tx, person.id, now_ms, beside=beside, queue=queue)
        if item is not None:
            item = claims.claim(tx, item.id, person.id, now_ms, until_ms)
        if item is None:
            item = claims.claim_next(tx, person.id, queue, now_ms, until_ms)
        if item is None:
            return None
        how = seen_how(desk, person)
        people.log(tx, now_ms, person.id, "item.seen", item_id=item.id, detail=how)
        return task_for(desk, person, to_task(tx, item, until_ms))


def claim_item(desk: Desk, person: Person, item_id: int) -> Task:
    """Hold this item, or hold it on. Raises ClaimLost, NotAllowed."""
    require(person, "reviewer")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    with desk.database.write() as tx:
        item = claims.claim(tx, item_id, person.id, now_ms, until_ms)
        if item is None:
            raise ClaimLost("this item is not yours to decide: somebody else has or had it")
        how = seen_how(desk, person)
        people.log(tx, now_ms, person.id, "item.seen", item_id=item_id, detail=how)
        return task_for(desk, person, to_task(tx, item, until_ms))


def release_item(desk: Desk, person: Person, item_id: int) -> None:
    """Give an item back, for others to decide."""
    with desk.database.write() as tx:
        claims.release(tx, item_id, person.id)


def decide(
    desk: Desk,
    person: Person,
    item_id: int,
    label: str | None,
    *,
    request_id: str,
    note: str = "",
    seconds: float = 0.0,
) -> Concluded:
    """Give an item a label; None says that no label fits. Raises ClaimLost, Refused, NotAllowed."""
    require(person, "reviewer")
    said = Said.of_label(request_id, label, note, seconds)
    return conclude(desk, person, item_id, said, final=False)


def skip(
    desk: Desk, person: Person, item_id: int, *, request_id: str, seconds: float = 0.0
) -> Concluded:
    """Leave an item to others: this person is not asked again. Raises as ``decide``."""
    require(person, "reviewer")
    said = Said(request_id, "skip", seconds=seconds)
    return conclude(desk, person, item_id, said, final=False)


def flag(
    desk: Desk,
    person: Person,
    item_id: int,
    *,
    request_id: str,
    note: str = "",
    seconds: float = 0.0,
) -> Concluded:
    """Ask an adjudicator to look at an item. Raises as ``decide``."""
    require(person, "reviewer")
    said = Said(request_id, "flag", note=note, seconds=seconds)
    return conclude(desk, person, item_id, said, final=False)


def undo(desk: Desk, person: Person) -> Task:
    """Take back the last thing that a person did with an item, and give it to them again.

    A correction that waits is not published; one that is published stays true until the item is
    decided again, which replaces it. Raises NothingToUndo where somebody has gone on with the item.
    """
    require(person, "reviewer")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    with desk.database.write() as tx:
        last = decisions.last_of(tx, person.id)
        item = items.lock(tx, last.item_id) if last is not None else None
        if last is None or item is None:
            raise NothingToUndo("there is nothing to undo")
        if item.text_state != "here":
            raise NothingToUndo("the message has been deleted since")
        later = [each for each in decisions.on_item(tx, item.id) if each.id > last.id]
        if later:
            raise NothingToUndo("somebody has decided this item since")
        decisions.take_back(tx, last.id, person.id, now_ms)
        decisions.settle(tx, item, now_ms)
        held = claims.hold_again(tx, item, person.id, now_ms, until_ms)
        if not held:
            raise NothingToUndo("somebody else has this item on screen now")
        how = seen_how(desk, person)
        people.log(tx, now_ms, person.id, "item.undone", item_id=item.id, detail=how)
        return task_for(desk, person, to_task(tx, item, until_ms, show_machine=last.final))
