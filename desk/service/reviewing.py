"""Deciding, one item at a time: the next one, a label, none, skip, flag, undo; disputes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

from desk.core.items import DecisionKind, Queue, State
from desk.errors import ClaimLost, NotAllowed, NothingToUndo, Refused
from desk.service import corrections
from desk.service.context import Desk, may, require
from desk.service.viewing import (
    MOST_FOUND,
    Earlier,
    Task,
    is_masked,
    seen_how,
    sees_words,
    text_for,
    to_task,
)
from desk.store import browse, claims, decisions, items, people, projects
from desk.store.database import Tx
from desk.store.decisions import Answer
from desk.store.types import Decided, Item, Person
from worker.contract.records.correction import RetractionReason

MAX_NOTE_CHARS = 2000

_LAST, _LAST_CHARS = 10, 120

MAX_SECONDS = 3600.0
"""A page that was on screen for longer was left open, not worked on."""

_ALLOWED: Mapping[bool, tuple[State, ...]] = {False: ("open", "second"), True: ("dispute",)}


@dataclass(frozen=True, slots=True)
class Said:
    """A person's decision on an item. ``label`` is None unless ``kind`` is "label". A skip leaves
    the item to others; this person is asked again when nothing else is left for them. A flag asks
    an adjudicator.

    ``request_id`` is the page's: a request that is sent twice decides once. ``seconds`` is how
    long the item was on screen.
    """

    request_id: str
    kind: DecisionKind
    label: str | None = None
    note: str = ""
    seconds: float = 0.0


def next_item(
    desk: Desk, person: Person, queue: Queue, *, excluding: Collection[int] = ()
) -> Task | None:
    """Return an item of this queue for a person to decide, held for them; None if there is none.

    What they hold already comes first, so that a page that is loaded again shows the same;
    ``excluding`` are items that are on their screen, so that a page can fetch the next one early.
    Raises NotAllowed, DatabaseUnavailable.
    """
    require(person, "reviewer")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    among = _among(desk, person, queue)  # not in the transaction that claims: others would wait
    with desk.database.write() as tx:
        item = claims.held_by(tx, person.id, now_ms, excluding=excluding, queue=queue, among=among)
        if item is not None:
            item = claims.claim(tx, item.id, person.id, now_ms, until_ms)
        if item is None:
            item = claims.claim_next(tx, person.id, queue, now_ms, until_ms, among=among)
        if item is None:
            return None
        return _shown(tx, desk, person, item, ahead=bool(excluding))


def count_left(
    desk: Desk, person: Person, queue: Queue, *, excluding: Collection[int], most: int
) -> int:
    """Return how many items of this queue are left for a person, without those of ``excluding``;
    ``most`` if there are more. Raises NotAllowed."""
    require(person, "reviewer")
    among = _among(desk, person, queue)
    with desk.database.read() as tx:
        return claims.count_left(
            tx, person.id, queue, desk.clock(), excluding=excluding, most=most, among=among
        )


def held_item(
    desk: Desk, person: Person, queue: Queue, *, item_id: int | None = None
) -> Task | None:
    """Return what a person holds: this item, or one of a queue. Nothing is claimed, so a page that
    is only loaded takes no message from others. Raises NotAllowed, DatabaseUnavailable."""
    require(person, "reviewer")
    now_ms = desk.clock()
    among = _among(desk, person, queue) if item_id is None else None
    # A transaction that writes, because the log says who saw the message.
    with desk.database.write() as tx:
        if item_id is None:
            item = claims.held_by(tx, person.id, now_ms, queue=queue, among=among)
        else:
            item = items.get(tx, item_id) if claims.holds(tx, item_id, person.id, now_ms) else None
        if item is None or item.state not in _ALLOWED[False]:
            return None
        return _shown(tx, desk, person, item)


def waiting_item(desk: Desk, person: Person, queue: Queue, *, item_id: int | None = None) -> bool:
    """Tell whether a person could claim this item, or one of a queue. Raises NotAllowed."""
    require(person, "reviewer")
    among = _among(desk, person, queue) if item_id is None else None
    with desk.database.read() as tx:
        if item_id is None:
            return claims.is_waiting(tx, person.id, queue, desk.clock(), among=among)
        return claims.is_free(tx, item_id, person.id, desk.clock())


def _among(desk: Desk, person: Person, queue: Queue) -> claims.Among:
    """Return the items that wait and have the words of a queue, the best 500, as a search finds
    them: for a person who sees masked texts the words must be in those."""
    if not queue.words:
        return None
    with desk.database.read() as tx:
        found = browse.waiting_with(tx, queue.words, limit=MOST_FOUND)
        if not is_masked(desk, person):
            return found
        texts = ((item_id, items.text_of(tx, item_id) or "") for item_id in found)
        return [item_id for item_id, text in texts if sees_words(desk, person, text, queue.words)]


def claim_item(desk: Desk, person: Person, item_id: int) -> Task:
    """Hold this item, or prolong the claim. Raises ClaimLost, NotAllowed."""
    require(person, "reviewer")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    with desk.database.write() as tx:
        item = claims.claim(tx, item_id, person.id, now_ms, until_ms)
        if item is None:
            raise ClaimLost(
                "this message is decided, or on another reviewer's screen, or you have decided it"
            )
        return _shown(tx, desk, person, item)


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


def _shown(
    tx: Tx,
    desk: Desk,
    person: Person,
    item: Item,
    *,
    show_machine: bool = False,
    ahead: bool = False,
) -> Task:
    """Return an item as this person sees it, and log that they do. ``ahead``: their browser has it
    while another message is on screen."""
    how = seen_how(desk, person)
    action = "item.fetched" if ahead else "item.seen"
    people.log(tx, desk.clock(), person.id, action, item_id=item.id, detail=how)
    task = to_task(tx, desk, person, item, show_machine=show_machine)
    return replace(task, skipped=claims.has_skipped(tx, item.id, person.id))


def release_item(desk: Desk, person: Person, item_id: int) -> None:
    """Give an item back, for others to decide."""
    with desk.database.write() as tx:
        claims.release(tx, item_id, person.id)


def undo(desk: Desk, person: Person) -> Task:
    """Take back a person's last decision, and give them the item again.

    A correction that waits is not published; a published one is retracted. Raises NothingToUndo if
    somebody else has decided the item since or has it on screen.
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
        # Of others too: undoing would change what their opinion was compared with.
        later = [each for each in decisions.on_item(tx, item.id) if each.id > last.id]
        if later:
            raise NothingToUndo("somebody has decided this item since")
        # An error from here on rolls the transaction back, and the decision stands.
        decisions.take_back(tx, last.id, person.id, now_ms)
        state, _ = decisions.settle(tx, item, now_ms)
        if state == "decided":
            raise NothingToUndo("this item was reopened: an adjudicator decides it")
        if item.state == "decided":
            _publish(tx, desk, item, None, by=person, reason="undone")
        held = claims.hold_again(tx, item, person.id, now_ms, until_ms)
        if not held:
            raise NothingToUndo("somebody else has this item on screen now")
        how = seen_how(desk, person)
        people.log(tx, now_ms, person.id, "item.undone", item_id=item.id, detail=how)
        task = to_task(tx, desk, person, item, show_machine=last.final)
        return replace(task, earlier=Earlier(last.kind, last.label, last.note))


def last_answers(desk: Desk, person: Person) -> list[Answer]:
    """Return a person's last ten labels, newest first, with the beginnings of the messages as they
    see them. Not logged: they decided these messages, which the log says."""
    with desk.database.read() as tx:
        # More than is shown, so that nothing is masked by half.
        found = decisions.answers_of(tx, person.id, _LAST, 4 * _LAST_CHARS)
    return [
        replace(each, text=text_for(desk, person, each.text, _LAST_CHARS)[:_LAST_CHARS])
        for each in found
    ]


def reopen(desk: Desk, person: Person, item_id: int, *, request_id: str) -> State:
    """Open a decided item again and return its state. The earlier decisions stay in the database.

    Reviewers may reopen what they decided themselves: their decision is taken back, and the item is
    held for them ("open", or "second" if another reviewer's opinion stays). Adjudicators may reopen
    any item: it becomes a dispute, with the reviewers' opinions. So does a blind item, for everyone
    may have seen the model's label since. A published correction is retracted.

    Sent twice, it does nothing more. Raises Refused, NotAllowed.
    """
    require(person, "reviewer")
    flag_it = Said(request_id, "flag")
    _check(desk, flag_it)
    now_ms = desk.clock()
    with desk.database.write() as tx:
        item = items.lock(tx, item_id)
        if item is None:
            raise Refused("there is no such item")
        if item.state != "decided":
            if claims.holds(tx, item.id, person.id, now_ms) or decisions.by_request(tx, request_id):
                return item.state  # by the first of two requests
            raise Refused("only a decided item can be reopened")
        if item.text_state != "here":
            raise Refused("the message has been deleted since")
        # An adjudicator takes back an adjudicator's decision, but not the reviewers' opinions: they
        # are evidence in the dispute, and count in the agreement of reviewers.
        mine, final = _deciding(tx, person, item)
        if not mine and not may(person, "adjudicator"):
            raise NotAllowed("somebody else decided this item: ask an adjudicator to reopen it")
        for each in mine or final:
            decisions.take_back(tx, each.id, person.id, now_ms)
        # A flag makes it a dispute. Taking the decision back alone would show a blind item to one
        # who may have seen the model's label since.
        if item.blind or not mine:
            _add(tx, desk, item, person, flag_it, final=False)
        state, _ = decisions.settle(tx, item, now_ms)
        _publish(tx, desk, item, None, by=person, reason="reopened")
        if state != "dispute" or may(person, "adjudicator"):
            claims.hold_again(tx, item, person.id, now_ms, now_ms + desk.policy.claim_ms)
        detail = {"taken_back": [each.id for each in mine or final]}
        people.log(tx, now_ms, person.id, "item.reopened", item_id=item.id, detail=detail)
        return state


def may_reopen(tx: Tx, person: Person, item: Item) -> bool:
    """Whether ``reopen`` would let this person reopen this item."""
    if item.state != "decided" or item.text_state != "here":
        return False
    return may(person, "adjudicator") or bool(_deciding(tx, person, item)[0])


def _deciding(tx: Tx, person: Person, item: Item) -> tuple[list[Decided], list[Decided]]:
    """Return the person's share in the decision of an item, and the adjudicator's if there is one.

    What a reviewer said before an adjudicator settled the item did not decide it.
    """
    opinions = [each for each in decisions.on_item(tx, item.id) if each.kind in {"label", "none"}]
    final = [each for each in opinions if each.final]
    return [each for each in final or opinions if each.person_id == person.id], final


@dataclass(frozen=True, slots=True)
class Voice:
    """An opinion on an item, or a flag. ``label`` is None for a flag, or if no label fits."""

    pseudonym: str
    kind: str
    label: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Dispute:
    """An item with the opinions on it, oldest first."""

    task: Task
    voices: tuple[Voice, ...]


def next_dispute(desk: Desk, person: Person, item_id: int | None = None) -> Dispute | None:
    """Return the dispute that an adjudicator holds, else the oldest, which they hold then; only
    that of an item if one is given.

    None if there is none. A dispute on which they gave an opinion themselves does not count. Raises
    NotAllowed.
    """
    require(person, "adjudicator")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    with desk.database.write() as tx:
        item = claims.held_dispute(tx, person.id, now_ms, item_id)
        if item is None:
            waiting = decisions.disputes(person.id, item_id)
            item = claims.claim_dispute(tx, person.id, now_ms, until_ms, waiting)
        return None if item is None else _dispute(tx, desk, person, item)


def held_dispute(desk: Desk, person: Person, item_id: int | None = None) -> Dispute | None:
    """Return the dispute that an adjudicator holds, of an item if one is given; nothing is claimed.
    Raises NotAllowed."""
    require(person, "adjudicator")
    with desk.database.write() as tx:
        item = claims.held_dispute(tx, person.id, desk.clock(), item_id)
        return None if item is None else _dispute(tx, desk, person, item)


def is_dispute_waiting(desk: Desk, person: Person) -> bool:
    """Tell whether there is a dispute for this adjudicator to claim. Raises NotAllowed."""
    require(person, "adjudicator")
    now_ms = desk.clock()
    with desk.database.read() as tx:
        return claims.is_dispute_free(tx, person.id, now_ms, decisions.disputes(person.id))


def is_disputed(desk: Desk, item_id: int) -> bool:
    """Tell whether an adjudicator is to decide an item."""
    with desk.database.read() as tx:
        item = items.get(tx, item_id)
    return item is not None and item.state == "dispute"


def _dispute(tx: Tx, desk: Desk, person: Person, item: Item) -> Dispute:
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
    return Dispute(_shown(tx, desk, person, item, show_machine=True), voices)


def decide(desk: Desk, person: Person, item_id: int, said: Said, *, final: bool = False) -> State:
    """Store the decision of a person who holds an item, and return the item's state. ``final``: as
    an adjudicator, which ends a dispute. Raises ClaimLost, Refused, NotAllowed."""
    require(person, "adjudicator" if final else "reviewer")
    with desk.database.write() as tx:
        return decide_in(tx, desk, person, item_id, said, final=final)


def decide_in(
    tx: Tx, desk: Desk, person: Person, item_id: int, said: Said, *, final: bool = False
) -> State:
    """Do the same in an open transaction: store the decision and the item's state, have the topic
    follow, and write a line to the log."""
    _check(desk, said)
    now_ms = desk.clock()
    item = items.lock(tx, item_id)
    # First of all: sent again, a request must succeed although the item is decided now.
    earlier = decisions.by_request(tx, said.request_id)
    if earlier is not None:
        if item is None or (earlier.item_id, earlier.person_id) != (item.id, person.id):
            raise Refused(decisions.SENT_BEFORE)
        return item.state
    if item is not None and any(
        made.person_id == person.id and made.final == final and made.kind in {"label", "none"}
        for made in decisions.on_item(tx, item.id)
    ):
        raise ClaimLost("you decided this message in another tab")
    if item is None or item.state not in _ALLOWED[final]:
        raise ClaimLost("somebody else has decided this message meanwhile")
    # Not holds(): a pause longer than the claim loses no decision while nobody else took the item.
    if not claims.is_kept(tx, item_id, person.id):
        raise ClaimLost("another reviewer has this message now, or you gave it back by signing out")
    _add(tx, desk, item, person, said, final=final)
    state, holds = decisions.settle(tx, item, now_ms)
    claims.release(tx, item_id)
    if holds is not None:
        _publish(tx, desk, item, holds, by=person, reason="no_label_fits")
    people.log(tx, now_ms, person.id, f"item.{said.kind}", item_id=item_id)
    return state


def _add(tx: Tx, desk: Desk, item: Item, person: Person, said: Said, *, final: bool) -> None:
    guideline = projects.current_guideline(tx)
    row = {
        **asdict(said),
        "seconds": min(max(said.seconds, 0.0), MAX_SECONDS),
        "person_id": person.id,
        "final": final,
        "taxonomy_digest": desk.taxonomy.digest,
        "guideline_version": guideline.version if guideline is not None else None,
    }
    decisions.add(tx, item, row, desk.clock())


def _check(desk: Desk, said: Said) -> None:
    if (said.label is not None) != (said.kind == "label"):
        raise Refused("a label goes with a decision for a label, and with no other")
    if said.label is not None and said.label not in desk.taxonomy.names:
        raise Refused("there is no such label in this taxonomy")
    if len(said.note) > MAX_NOTE_CHARS:
        raise Refused(f"a note has {MAX_NOTE_CHARS} characters at most")
    # Forms come from anywhere, and the id is kept in an index.
    if not 1 <= len(said.request_id) <= 100:
        raise Refused("a request needs an id of 1 to 100 characters")


def _publish(
    tx: Tx, desk: Desk, item: Item, holds: Decided | None, *, by: Person, reason: RetractionReason
) -> None:
    corrections.follow(
        tx,
        item,
        holds,
        taxonomy=desk.taxonomy,
        by=by,
        reason=reason,
        now_ms=desk.clock(),
        delay_ms=desk.policy.publish_delay_ms,
    )
