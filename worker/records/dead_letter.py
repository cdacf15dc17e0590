"""Dead letters: the record as it came, with headers that say why it has no label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from worker.records.types import Headers, Outgoing, Record, Rejected

HeaderStyle = Literal["clerk", "connect"]


@dataclass(frozen=True, slots=True)
class DeadLetterEncoder:
    """Turns a rejected record into a record for the dead-letter topic."""

    topic: str
    worker_version: str
    adapter_digest: str
    style: HeaderStyle = "clerk"

    def encode(self, record: Record, rejected: Rejected) -> Outgoing:
        """Keep the raw key, value and headers, and add the reason as headers."""
        added = self._clerk(record, rejected)
        if self.style == "connect":
            added = self._connect(record, rejected)
        return Outgoing(
            self.topic,
            record.key,
            record.value,
            record.headers + tuple((name, value.encode()) for name, value in added.items()),
        )

    def without_payload(self, record: Record, rejected: Rejected) -> Outgoing:
        """The dead letter of a record that the dead-letter topic has no room for.

        It has no value, no key and no headers of the record's own: the record stays in the
        source topic, at the offset that the headers name.
        """
        bare = replace(record, key=None, value=None, headers=())
        letter = self.encode(bare, rejected)
        omitted: Headers = (("clerk.payload.omitted.bytes", str(record.size_bytes).encode()),)
        return replace(letter, headers=letter.headers + omitted)

    def _clerk(self, record: Record, rejected: Rejected) -> dict[str, str]:
        return {
            "clerk.reason": rejected.reason,
            "clerk.stage": rejected.stage,
            "clerk.error": rejected.detail,
            "clerk.source.topic": record.source.topic,
            "clerk.source.partition": str(record.source.partition),
            "clerk.source.offset": str(record.offset),
            "clerk.source.timestamp": (
                "" if record.timestamp_ms is None else str(record.timestamp_ms)
            ),
            "clerk.attempt": str(rejected.attempts),
            "clerk.worker.version": self.worker_version,
            "clerk.adapter.digest": self.adapter_digest,
        }

    def _connect(self, record: Record, rejected: Rejected) -> dict[str, str]:
        prefix = "__connect.errors."
        own = self._clerk(record, rejected)
        return {
            f"{prefix}topic": record.source.topic,
            f"{prefix}partition": str(record.source.partition),
            f"{prefix}offset": str(record.offset),
            f"{prefix}connector.name": "filing-clerk",
            f"{prefix}task.id": "0",
            f"{prefix}stage": rejected.stage.upper(),
            f"{prefix}class.name": "worker.core.labeller.Labeller",
            f"{prefix}exception.class.name": rejected.reason,
            f"{prefix}exception.message": rejected.detail,
            "clerk.source.timestamp": own["clerk.source.timestamp"],
            "clerk.attempt": own["clerk.attempt"],
            "clerk.worker.version": own["clerk.worker.version"],
            "clerk.adapter.digest": own["clerk.adapter.digest"],
        }
