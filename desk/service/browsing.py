"""Search, similar messages, and clusters of near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from desk.core.items import State
from desk.errors import ClaimLost
from desk.service.context import Desk, require
from desk.service.reviewing import Said, decide_in, may_reopen
from desk.service.viewing import MOST_FOUND, Task, is_masked, seen_how, sees_words, to_task
from desk.store import browse, claims, items, people
from desk.store.browse import Cluster
from desk.store.database import Tx
from desk.store.types import Person

MOST_TOGETHER = 50
"""Most messages that are decided at once: a person has to look at each."""


@dataclass(frozen=True, slots=True)
class SearchHit:
    """An item that was found, and the reviewers' decision if there is one."""

    task: Task
    state: State
    outcome: Literal["label", "none"] | None
    label: str | None
    may_reopen: bool


def search(
    desk: Desk,
    person: Person,
    query: str,
    *,
    label: str | None = None,
    state: State | None = None,
    limit: int = 50,
    offset: int = 0,
) -> list[SearchHit]:
    """Return items whose message has all words of ``query``, best first; see
    ``desk.store.browse.search``. Raises NotAllowed.

    If the person sees masked texts, the words must be in the masked text: a search for a phone
    number would otherwise reveal whose message has it. They search only the best 500 items.
    """
    require(person, "reviewer")
    now_ms = desk.clock()
    with desk.database.read() as tx:
        if is_masked(desk, person):
            some = browse.search(tx, query, label=label, state=state, limit=MOST_FOUND)
            seen = [hit for hit in some if sees_words(desk, person, hit.text, query)]
            hits = seen[offset : offset + limit]
        else:
            hits = browse.search(tx, query, label=label, state=state, limit=limit, offset=offset)
        found = [_found(tx, desk, person, hit) for hit in hits]
    # Not in the transaction of the search: on SQLite all writers would wait for it.
    detail = {"items": [hit.item.id for hit in hits], **seen_how(desk, person)}
    with desk.database.write() as tx:
        people.log(tx, now_ms, person.id, "search", detail=detail)
    return found


def neighbours(desk: Desk, person: Person, item_id: int, limit: int = 5) -> list[SearchHit]:
    """Return decided items with similar messages, the most similar first. Raises NotAllowed."""
    require(person, "reviewer")
    with desk.database.read() as tx:
        text = items.text_of(tx, item_id)
        if text is None:
            return []
        near = browse.neighbours(tx, item_id, text, limit)
        return [_found(tx, desk, person, hit) for hit in near]


def clusters(desk: Desk, person: Person) -> list[Cluster]:
    """Return clusters of near-duplicates that wait, the largest first. Raises NotAllowed."""
    require(person, "reviewer")
    with desk.database.read() as tx:
        return browse.clusters(tx)


def cluster(desk: Desk, person: Person, key: str) -> list[Task]:
    """Hold the items of a cluster for a person, who looks at each before deciding all of them, and
    return them. Items that others hold, or that need two reviewers, are left out."""
    require(person, "reviewer")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    with desk.database.write() as tx:
        for hit in browse.members(tx, key):
            if hit.item.opinions_wanted == 1:
                claims.claim(tx, hit.item.id, person.id, now_ms, until_ms, wait=False)
    return held_cluster(desk, person, key)


def held_cluster(desk: Desk, person: Person, key: str) -> list[Task]:
    """Return the items of a cluster that a person holds; nothing is claimed."""
    require(person, "reviewer")
    with desk.database.write() as tx:
        return _held(tx, desk, person, browse.members(tx, key))


def _held(tx: Tx, desk: Desk, person: Person, hits: Sequence[browse.Hit]) -> list[Task]:
    """Return those of these items that a person holds; the log says that they saw them."""
    now_ms = desk.clock()
    mine = [hit.item for hit in hits if claims.holds(tx, hit.item.id, person.id, now_ms)]
    for item in mine:
        how = seen_how(desk, person)
        people.log(tx, now_ms, person.id, "item.seen", item_id=item.id, detail=how)
    return [to_task(tx, desk, person, item) for item in mine]


def is_cluster_waiting(desk: Desk, person: Person, key: str) -> bool:
    """Tell whether a cluster has an item that this person could decide with others."""
    require(person, "reviewer")
    now_ms = desk.clock()
    with desk.database.read() as tx:
        return any(
            hit.item.opinions_wanted == 1 and claims.is_free(tx, hit.item.id, person.id, now_ms)
            for hit in browse.members(tx, key)
        )


def together(
    desk: Desk, person: Person, query: str, *, label: str | None = None, claim: bool
) -> list[Task]:
    """Return the messages of a search that a person may decide at once; ``claim``: hold them first.

    Only messages that wait for one opinion. Blind ones are left out: the words of a search would be
    a hint. Raises NotAllowed.
    """
    require(person, "reviewer")
    now_ms = desk.clock()
    until_ms = now_ms + desk.policy.claim_ms
    tasks: list[Task] = []
    with desk.database.read() as tx:  # not in the transaction that claims: others would wait for it
        found = browse.search(tx, query, label=label, state="open", limit=MOST_FOUND)
    with desk.database.write() as tx:
        for hit in found:
            if hit.item.blind or hit.item.opinions_wanted > 1:
                continue
            if is_masked(desk, person) and not sees_words(desk, person, hit.text, query):
                continue
            if claim:
                claims.claim(tx, hit.item.id, person.id, now_ms, until_ms, wait=False)
            tasks += _held(tx, desk, person, [hit])
            if len(tasks) >= MOST_TOGETHER:
                break
    return tasks


def decide_cluster(
    desk: Desk,
    person: Person,
    item_ids: Sequence[int],
    label: str,
    *,
    request_id: str,
    seconds: float = 0.0,
) -> None:
    """Give one label to all these items, which the person holds; all or none. ``seconds`` is the
    time for all of them. Raises ClaimLost, Refused, NotAllowed."""
    require(person, "reviewer")
    each_s = seconds / max(1, len(item_ids))
    with desk.database.write() as tx:
        # Locked in the same order by everybody, so that there is no deadlock.
        for item_id in sorted(set(item_ids)):
            item = items.get(tx, item_id)
            if item is None or item.blind:
                raise ClaimLost("an item of the audit sample is decided by itself")
            said = Said(f"{request_id}.{item_id}", "label", label, seconds=each_s)
            decide_in(tx, desk, person, item_id, said)


def _found(tx: Tx, desk: Desk, person: Person, hit: browse.Hit) -> SearchHit:
    item = hit.item
    return SearchHit(
        to_task(tx, desk, person, item, show_machine=item.state == "decided", text=hit.text),
        item.state,
        item.outcome,
        item.outcome_label,
        may_reopen(tx, person, item),
    )
