"""Deciding, one item at a time: the next one, a label, none, skip, flag, undo; disputes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Self

from desk.core.items import DecisionKind, Queue, State
from desk.errors import ClaimLost, NothingToUndo, Refused
from desk.service.context import Desk, require
from desk.service.viewing import Earlier, Task, seen_how, task_for, text_for, to_task
from desk.store import claims, decisions, items, outbox, people, projects
from desk.store.database import Tx
from desk.store.types import Decided, Item, Person
from worker.contract.records import Correction, MachineLabel, to_json
from worker.contract.records.identity import AdapterRef, Source, TaxonomyRef
from worker.contract.timestamps import rfc3339_from_ms

MAX_NOTE_CHARS = 2000

MAX_SECONDS = 3600.0

_ALLOWED: Mapping[bool, tuple[State, ...]] = {False: ("open", "second"), True: ("dispute",)}


@dataclass(frozen=True, slots=True)
class Concluded:
    """What came of a decision: its id, and where the item stands now."""

    decision_id: int
    item_id: int
    state: State


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
        return _seen(tx, desk, person, item, until_ms)


def count_left(
    desk: Desk, person: Person, queue: Queue, *, beside: Collection[int], most: int
) -> int:
    """Return how many items of this queue are left for a person, without those of ``beside``;
    ``most`` if there are more. Raises NotAllowed."""
    require(person, "reviewer")
    with desk.database.read() as tx:
        return claims.count_left(tx, person.id, queue, desk.clock(), beside=beside, most=most)


def claim_item(desk: Desk, person: Person, item_id: int) -> Task:
    """Hold this item, or hold it on. Raises ClaimLost, NotAllowed."""
    require(person, "reviewer")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    with desk.database.write() as tx:
        item = claims.claim(tx, item_id, person.id, now_ms, until_ms)
        if item is None:
            raise ClaimLost(
                "this message is decided, or on another reviewer's screen, or you have decided it"
            )
        return _seen(tx, desk, person, item, until_ms)


def whole_text(desk: Desk, person: Person, item_id: int) -> str:
    """Return an item's message as this person may see it; the log says that they did. Raises
    Refused where it is gone, NotAllowed."""
    require(person, "reviewer")
    with desk.database.write() as tx:
        text = items.text_of(tx, item_id)
        if text is None:
            raise Refused("this message has been deleted")
        how = seen_how(desk, person)
        people.log(tx, desk.clock(), person.id, "item.seen", item_id=item_id, detail=how)
    return text_for(desk, person, text)


def _seen(tx: Tx, desk: Desk, person: Person, item: Item, until_ms: int) -> Task:
    how = seen_how(desk, person)
    people.log(tx, desk.clock(), person.id, "item.seen", item_id=item.id, detail=how)
    skipped = claims.has_skipped(tx, item.id, person.id)
    return replace(task_for(desk, person, to_task(tx, item, until_ms)), skipped=skipped)


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
    """Leave an item to others; this person is asked again when nothing else is left for them.
    Raises as ``decide``."""
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
        task = task_for(desk, person, to_task(tx, item, until_ms, show_machine=last.final))
        return replace(task, earlier=Earlier(last.kind, last.label, last.note))


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


@dataclass(frozen=True, slots=True)
class Said:
    """What a person says of an item. ``label`` is None unless ``kind`` is "label".

    ``request_id`` is the page's: a request that is sent twice decides once. ``seconds`` is how
    long the item was on screen.
    """

    request_id: str
    kind: DecisionKind
    label: str | None = None
    note: str = ""
    seconds: float = 0.0

    @classmethod
    def of_label(
        cls, request_id: str, label: str | None, note: str = "", seconds: float = 0.0
    ) -> Self:
        """A label, or where it is None, that no label fits."""
        return cls(request_id, "none" if label is None else "label", label, note, seconds)


def conclude(desk: Desk, person: Person, item_id: int, said: Said, *, final: bool) -> Concluded:
    """Keep what a person who holds an item says of it. ``final``: as an adjudicator.

    Raises ClaimLost, Refused.
    """
    with desk.database.write() as tx:
        return conclude_in(tx, desk, person, item_id, said, final=final)


def conclude_in(
    tx: Tx, desk: Desk, person: Person, item_id: int, said: Said, *, final: bool
) -> Concluded:
    """Do the same in a transaction that is open: keep the decision, move the item on, put a
    correction into the outbox if the item came from Kafka, and write a line to the log."""
    _check(desk, said)
    now_ms = desk.clock()
    item = items.lock(tx, item_id)
    earlier = decisions.by_request(tx, said.request_id)
    if earlier is not None and item is not None and earlier.person_id == person.id:
        return Concluded(earlier.id, earlier.item_id, item.state)
    if item is None or item.state not in _ALLOWED[final]:
        raise ClaimLost("somebody else has decided this message meanwhile")
    if not claims.keep(tx, item, person.id, now_ms):
        raise ClaimLost("this message is on another reviewer's screen now")
    guideline = projects.current_guideline(tx)
    made = decisions.add(
        tx,
        item,
        decisions.NewDecision(
            request_id=said.request_id,
            person_id=person.id,
            kind=said.kind,
            label=said.label,
            note=said.note,
            final=final,
            taxonomy_digest=desk.taxonomy.digest,
            guideline_version=guideline.version if guideline is not None else None,
            seconds=min(max(said.seconds, 0.0), MAX_SECONDS),
        ),
        now_ms,
    )
    now, holds = decisions.settle(tx, item, now_ms)
    claims.release(tx, item_id)
    if holds is not None and holds.kind == "label" and item.batch_id is None:
        by = person if holds.person_id == person.id else people.get(tx, holds.person_id)
        _send(tx, desk, item, holds, by, now_ms)
    people.log(tx, now_ms, person.id, f"item.{said.kind}", item_id=item_id)
    return Concluded(made.id, item_id, now.state)


def _check(desk: Desk, said: Said) -> None:
    if (said.label is not None) != (said.kind == "label"):
        raise Refused("a label goes with a decision for a label, and with no other")
    if said.label is not None and said.label not in desk.taxonomy.names:
        raise Refused("there is no such label in this taxonomy")
    if len(said.note) > MAX_NOTE_CHARS:
        raise Refused(f"a note has {MAX_NOTE_CHARS} characters at most")
    if not 1 <= len(said.request_id) <= 100:
        raise Refused("a request needs an id of 1 to 100 characters")


def _send(tx: Tx, desk: Desk, item: Item, holds: Decided, by: Person, now_ms: int) -> None:
    """Put the correction, which ``by`` made, into the outbox, in the decision's transaction."""
    decided_at = rfc3339_from_ms(holds.decided_ms)
    assert decided_at is not None
    assert holds.label is not None
    version = holds.guideline_version
    correction = Correction(
        schema_version=1,
        id=item.result_id,
        source=Source(
            item.source_topic,
            item.source_partition,
            item.source_offset,
            rfc3339_from_ms(item.source_ms) if item.source_ms is not None else None,
        ),
        message_id=item.message_id,
        label=holds.label,
        taxonomy=TaxonomyRef(desk.taxonomy.name, desk.taxonomy.version, desk.taxonomy.digest),
        decided_at=decided_at,
        decided_by=by.pseudonym,
        guideline_version=str(version) if version is not None else None,
        machine=MachineLabel(
            item.label, item.confidence, AdapterRef(item.adapter_name, item.adapter_digest)
        ),
    )
    outbox.add(
        tx,
        item_id=item.id,
        decision_id=holds.id,
        # The input's key, as results have it, so that topics can be joined by it.
        key=item.record_key if item.record_key is not None else item.result_id.encode(),
        value=to_json(correction),
        due_ms=now_ms + desk.policy.publish_delay_ms,
    )
