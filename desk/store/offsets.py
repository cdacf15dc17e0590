"""How far each partition has been read, and the leases of background work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from desk.errors import Superseded
from desk.store.database import Tx
from desk.store.items import insert_ignore
from desk.store.tables import leases, offsets


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition has been read. ``record_ms`` is the last record's timestamp."""

    topic: str
    partition: int
    next_offset: int
    end_offset: int
    read_ms: int
    record_ms: int | None
    refused: int

    @property
    def lag(self) -> int:
        """Unread records, as of ``read_ms``."""
        return max(0, self.end_offset - self.next_offset)


def progress(tx: Tx) -> list[Progress]:
    """Return how far each partition has been read."""
    rows = tx.execute(sa.select(offsets).order_by(offsets.c.topic, offsets.c.partition))
    return [Progress(**row._mapping) for row in rows]


def begin(tx: Tx, topic: str, starts: Mapping[int, int], now_ms: int) -> None:
    """Store where new partitions are read from."""
    for partition, start in sorted(starts.items()):
        tx.execute(
            insert_ignore(tx, offsets).values(
                topic=topic,
                partition=partition,
                next_offset=start,
                end_offset=start,
                read_ms=now_ms,
                refused=0,
            )
        )


def advance(
    tx: Tx,
    topic: str,
    partition: int,
    *,
    from_offset: int,
    to_offset: int,
    now_ms: int,
    record_ms: int | None = None,
    refused: int = 0,
) -> None:
    """Move a partition's offset. Without ``record_ms`` the last record's time stays.

    Raises Superseded if another process has moved it: drop the records that were read.
    """
    done = tx.execute(
        offsets.update()
        .where(
            offsets.c.topic == topic,
            offsets.c.partition == partition,
            offsets.c.next_offset == from_offset,
        )
        .values(
            next_offset=to_offset,
            read_ms=now_ms,
            record_ms=offsets.c.record_ms if record_ms is None else record_ms,
            refused=offsets.c.refused + refused,
        )
    )
    if not done.rowcount:
        raise Superseded(f"{topic}, partition {partition}: another process read further")


def note_ends(tx: Tx, ends: Iterable[tuple[str, int, int]], now_ms: int) -> None:
    """Store where logs end now: (topic, partition, end)."""
    for topic, partition, end in ends:
        tx.execute(
            offsets.update()
            .where(offsets.c.topic == topic, offsets.c.partition == partition)
            .values(end_offset=end, read_ms=now_ms)
        )


def hold_lease(tx: Tx, name: str, holder: str, now_ms: int, ttl_ms: int) -> bool:
    """Take or prolong a lease; return whether the holder has it."""
    # The row first, so that a single UPDATE decides between processes that come at once.
    tx.execute(insert_ignore(tx, leases).values(name=name, holder=holder, until_ms=0))
    free = sa.or_(leases.c.holder == holder, leases.c.until_ms < now_ms)
    done = tx.execute(
        leases.update()
        .where(leases.c.name == name, free)
        .values(holder=holder, until_ms=now_ms + ttl_ms)
    )
    return bool(done.rowcount)


def give_up_lease(tx: Tx, name: str, holder: str) -> None:
    """Release a lease at once."""
    tx.execute(
        leases.update().where(leases.c.name == name, leases.c.holder == holder).values(until_ms=0)
    )
