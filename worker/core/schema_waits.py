"""Records whose values have a schema wait for its look-up, which the loop's thread never makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from worker.contract.errors import MessageRejected
from worker.contract.records import Headers
from worker.records.types import Record


class Schemas(Protocol):
    """What is known of schemas: see ``worker.common.schema_registry.SchemaRegistry``."""

    @property
    def away_since(self) -> float | None:
        """Since when look-ups fail (monotonic seconds); None if they do not."""

    def is_known(self, topic: str, value: bytes | None, headers: Headers) -> bool:
        """Return whether ``plain`` knows what to do with a value; else begin a look-up."""

    def plain(self, topic: str, value: bytes | None, headers: Headers) -> bytes | None:
        """Return the value to decode. Raises MessageRejected."""


class SchemaWaits:
    """Has records read by their schemas, each of which may wait ``wait_s`` since its fetch."""

    def __init__(self, schemas: Schemas, wait_s: float, clock: Callable[[], float]) -> None:
        self._schemas = schemas
        self._wait_s = wait_s
        self._clock = clock

    @property
    def away_since(self) -> float | None:
        """Since when look-ups fail (monotonic seconds); None if they do not."""
        return self._schemas.away_since

    def read(self, record: Record, fetched_at: float) -> bool:
        """Set what the record's value says, or why it cannot be read; return False if its schema
        must be looked up first."""
        if record.plain is not None or record.damage is not None:
            return True
        framed = record.origin[0], record.value, record.headers
        if not self._schemas.is_known(*framed) and self._clock() - fetched_at < self._wait_s:
            return False
        try:
            record.plain = self._schemas.plain(*framed)
        except MessageRejected as error:
            record.damage = error
        return True
