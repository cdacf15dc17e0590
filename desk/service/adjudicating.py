"""Disputes: people disagreed, or somebody asked for help; an adjudicator has the last word."""

from __future__ import annotations

from dataclasses import dataclass

from desk.service.concluding import Concluded, Said, conclude
from desk.service.context import Desk, require
from desk.service.tasks import Task, to_task
from desk.service.viewing import seen_how, task_for, text_for
from desk.store import claims, decisions, people
from desk.store.types import Person


@dataclass(frozen=True, slots=True)
class Voice:
    """What somebody said of the item. ``label`` is None where no label fits, or for a flag."""

    pseudonym: str
    kind: str
    label: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Dispute:
    """An item with what was said of it, in the order in which it was said."""

    task: Task
    voices: tuple[Voice, ...]


def next_dispute(desk: Desk, person: Person) -> Dispute | None:
    """Return the oldest dispute for an adjudicator, held for them; None where there is none.

    Not one on which they have given an opinion themselves. Raises NotAllowed.
    """
    require(person, "adjudicator")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    with desk.database.write() as tx:
        waiting = decisions.disputes(person.id, now_ms)
        item = claims.claim_dispute(tx, person.id, now_ms, until_ms, waiting)
        if item is None:
            return None
        how = seen_how(desk, person)
        people.log(tx, now_ms, person.id, "item.seen", item_id=item.id, detail=how)
        voices = tuple(
            Voice(
                people.get(tx, made.person_id).pseudonym,
                made.kind,
                made.label,
                text_for(desk, person, made.note),
            )
            for made in decisions.on_item(tx, item.id)
            if made.kind != "skip"
        )
        task = to_task(tx, item, until_ms, show_machine=True)
        return Dispute(task_for(desk, person, task), voices)


def adjudicate(
    desk: Desk,
    person: Person,
    item_id: int,
    label: str | None,
    *,
    request_id: str,
    note: str = "",
    seconds: float = 0.0,
) -> Concluded:
    """End a dispute with a label; None says that no label fits. Raises ClaimLost, Refused,
    NotAllowed."""
    require(person, "adjudicator")
    said = Said.of_label(request_id, label, note, seconds)
    return conclude(desk, person, item_id, said, final=True)
