"""The view of an item: nothing of the model's on blind items, and personal data masked by role.

Every function of the service that returns texts passes them through here, so that no page can show
more than its reader may see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from desk.core.items import DecisionKind
from desk.service.context import Desk
from desk.store import batches, items
from desk.store.batches import Asked
from desk.store.browse import has_words
from desk.store.database import Tx
from desk.store.types import Item, Person
from worker.contract.redact import redact_head, redact_personal_data


@dataclass(frozen=True, slots=True)
class Earlier:
    """What this person said of the item before they took it back."""

    kind: DecisionKind
    label: str | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """An item on a screen. ``machine`` has the model's result; it is None for a blind item.

    ``text`` is the message, masked if the person's role sees it so; pages escape it. A task of a
    batch has ``asked`` in place of ``machine``; that of a blind task names no label, because its
    file cannot hold one. ``skipped``: this person has skipped it before.
    """

    item_id: int
    text: str
    message_id: str | None
    received_ms: int
    blind: bool
    truncated: bool
    machine: Item | None
    asked: Asked | None = None
    skipped: bool = False
    more_chars: int = 0
    earlier: Earlier | None = None


def to_task(
    tx: Tx,
    desk: Desk,
    person: Person,
    item: Item,
    *,
    show_machine: bool = False,
    text: str | None = None,
) -> Task:
    """Return an item with all its texts as this person may see them. ``show_machine`` shows the
    model's result of a blind item too: it is decided, or an adjudicator looks. ``text`` is the
    message, if it was read already."""
    asked = batches.asked(tx, item.id) if item.batch_id is not None else None
    if asked is not None:
        similar = (replace(each, text=text_for(desk, person, each.text)) for each in asked.similar)
        asked = replace(asked, similar=tuple(similar))
    text = (items.text_of(tx, item.id) or "") if text is None else text
    return Task(
        item_id=item.id,
        text=text_for(desk, person, text, SHOWN_CHARS),
        more_chars=max(0, len(text) - SHOWN_CHARS) if is_masked(desk, person) else 0,
        message_id=item.message_id,
        received_ms=item.received_ms,
        blind=item.blind,
        truncated=item.truncated,
        machine=item if asked is None and (show_machine or not item.blind) else None,
        asked=asked,
    )


def is_masked(desk: Desk, person: Person) -> bool:
    """Whether this person's role sees texts with personal data masked."""
    return person.role in desk.policy.masked_roles


def sees_words(desk: Desk, person: Person, text: str, words: str) -> bool:
    """Whether the words are in what a person sees of a message that is masked for them."""
    return has_words(text_for(desk, person, text, SHOWN_CHARS), words)


MOST_FOUND = 500
"""A search of masked texts, and a queue of a search, go through so many of the best."""

SHOWN_CHARS = 10_000
"""What a page shows of a message: five printed pages."""


def text_for(desk: Desk, person: Person, text: str, most: int | None = None) -> str:
    """Return a text as this person may see it, masked by the rules of ``prepare``; of a masked one
    the first ``most`` characters, because masking a megabyte takes two seconds."""
    if not is_masked(desk, person):
        return text
    if most is not None and len(text) > most:
        return redact_head(text, most)
    return redact_personal_data(text)[0]


def seen_how(desk: Desk, person: Person) -> Mapping[str, Any]:
    """Return what the log adds if some roles see masked texts: whether this person does."""
    return {"unmasked": not is_masked(desk, person)} if desk.policy.masked_roles else {}
