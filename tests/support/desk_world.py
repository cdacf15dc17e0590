"""A desk with people and items, and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from desk.core.items import Queue
from desk.core.texts import band_keys
from desk.service import people, reviewing
from desk.service.context import Desk, Policy, open_desk
from desk.service.reviewing import Dispute, Said
from desk.service.viewing import Task
from desk.store import items
from desk.store import people as store
from desk.store.database import Database
from desk.store.items import NewItem
from desk.store.types import Item, Person, Role
from worker.contract.records import record_id
from worker.contract.taxonomy import Label, Taxonomy
from worker.contract.text import message_sha256

START_MS = 1_770_000_000_000
TOPIC = "support.messages"
Command = Callable[..., str]

TAXONOMY = Taxonomy(
    "shop",
    "1",
    "What customers write about.",
    (
        Label("refund", "Money back."),
        Label("delivery", "Where a parcel is."),
        Label("payment", "Paying."),
        Label("other", "Anything else."),
    ),
)


def said(request_id: str, label: str | None, **more: Any) -> Said:
    """A decision for a label; None says that no label fits."""
    return Said(request_id, "none" if label is None else "label", label, **more)


@dataclass
class FakeClock:
    """Stands still until it is moved."""

    now_ms: int = START_MS

    def __call__(self) -> int:
        return self.now_ms

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += int(seconds * 1000)


@dataclass
class DeskWorld:
    """An open desk. ``add`` puts items on it whose texts are here."""

    database: Database
    policy: Policy = field(default_factory=lambda: Policy(publish_delay_ms=0))
    clock: FakeClock = field(default_factory=FakeClock)
    taxonomy: Taxonomy = TAXONOMY

    def __post_init__(self) -> None:
        self.desk: Desk = open_desk(
            self.database, taxonomy=self.taxonomy, policy=self.policy, clock=self.clock
        )
        self._offset = 0
        self._requests = 0

    def person(self, name: str, role: Role = "reviewer") -> Person:
        """Somebody who works here."""
        return people.arrive(self.desk, name, name.title(), role=role)

    def request(self) -> str:
        """The id of another request."""
        self._requests += 1
        return f"request-{self._requests}"

    def next(self, person: Person, **queue: Any) -> Task:
        """The next item of a queue, which the person holds then."""
        task = reviewing.next_item(self.desk, person, Queue(**queue))
        assert task is not None
        return task

    def decide(
        self, person: Person, label: str | None, item_id: int | None = None, **more: Any
    ) -> int:
        """Have a person decide an item, the next one unless one is named; return its id."""
        if item_id is None:
            item_id = self.next(person).item_id
        else:
            reviewing.claim_item(self.desk, person, item_id)
        request_id = more.pop("request_id", None) or self.request()
        reviewing.decide(self.desk, person, item_id, said(request_id, label, **more))
        return item_id

    def dispute(self, person: Person, item_id: int | None = None) -> Dispute:
        """The next dispute for a person, or this one, which they hold then."""
        found = reviewing.next_dispute(self.desk, person, item_id)
        assert found is not None
        return found

    def add(self, text: str = "Where is my parcel?", **changes: Any) -> Item:
        """Add an item whose text is here."""
        return self.add_all([(text, changes)])[0]

    def add_all(self, messages: Sequence[tuple[str, dict[str, Any]]]) -> list[Item]:
        """Add items at once: their texts, and what is particular about each."""
        new = [self.new_item(**changes) for _, changes in messages]
        with self.database.write() as tx:
            items.add(tx, new, self.clock())
            ids = items.ids_of(tx, [each.result_id for each in new])
            added = [ids[each.result_id] for each in new]
            found = [
                items.FoundText(id_, text, None, message_sha256(text), band_keys(text))
                for id_, (text, _) in zip(added, messages, strict=True)
            ]
            items.texts_arrived(tx, found, self.clock())
            return [item for id_ in added if (item := items.get(tx, id_)) is not None]

    def new_item(self, **changes: Any) -> NewItem:
        """A result that the machine doubted, at the next offset."""
        offset = changes.pop("offset", self._offset)
        self._offset = max(self._offset, offset) + 1
        values: dict[str, Any] = {
            "result_id": record_id(TOPIC, 0, offset),
            "source_topic": TOPIC,
            "source_partition": 0,
            "source_offset": offset,
            "source_ms": START_MS,
            "record_key": f"customer-{offset}".encode(),
            "message_id": f"T-{offset}",
            "label": "delivery",
            "confidence": 0.4,
            "scores": {"delivery": 0.4, "refund": 0.3, "payment": 0.2, "other": 0.1},
            "off_label_mass": 0.01,
            "reasons": ("low_confidence",),
            "truncated": False,
            "adapter_name": "shop",
            "adapter_digest": "a" * 64,
            "taxonomy_digest": self.taxonomy.digest,
            "labelled_ms": START_MS,
            "origin": "review",
            "sample_share": None,
            "opinions_wanted": 1,
        }
        return NewItem(**{**values, **changes})

    def item(self, item_id: int) -> Item:
        """An item as it is now."""
        with self.database.read() as tx:
            found = items.get(tx, item_id)
        assert found is not None
        return found

    def people(self) -> list[Person]:
        """All who are known here."""
        with self.database.read() as tx:
            return store.everybody(tx)

    def log(self) -> list[dict[str, Any]]:
        """The log, newest first."""
        with self.database.read() as tx:
            return store.log_entries(tx, store.LogQuery())
