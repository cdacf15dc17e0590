"""What an operator does: retention, a person's messages, a new taxonomy."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from desk.clock import Clock
from desk.core.retention import DAY_MS, purge_before_ms
from desk.core.taxonomy_change import plan_change
from desk.errors import DatabaseRefused, SettingsError
from desk.service.context import Desk
from desk.store import exports, items, outbox, people, projects, texts
from desk.store.database import Database
from worker.contract.taxonomy import Taxonomy

_PURGED_AT_ONCE = 2000
_PUBLISHED_KEPT_DAYS = 30


def apply_retention(desk: Desk, text_days: float) -> int:
    """Delete messages that are older than so many days, and what was published a month ago; return
    how many messages were deleted."""
    now_ms = desk.clock()
    purged = 0
    while True:
        with desk.database.write() as tx:
            some = texts.purge_old(tx, purge_before_ms(now_ms, text_days), _PURGED_AT_ONCE)
            if some:
                people.log(tx, now_ms, None, "texts.purged", detail={"items": some})
        purged += some
        if some < _PURGED_AT_ONCE:
            break
    with desk.database.write() as tx:
        outbox.forget_published(tx, now_ms - _PUBLISHED_KEPT_DAYS * DAY_MS)
    return purged


def purge_person(
    desk: Desk, *, message_ids: Collection[str] = (), record_keys: Collection[bytes] = ()
) -> int:
    """Delete a person's messages and all that names them, by message ids or record keys; return how
    many items were theirs. What the machine and people said of them stays, without a name."""
    now_ms = desk.clock()
    with desk.database.write() as tx:
        count = texts.purge_person(tx, message_ids=message_ids, record_keys=record_keys)
        people.log(tx, now_ms, None, "person.purged", detail={"items": count})
    return count


def change_taxonomy(
    database: Database, new: Taxonomy, mapping: Mapping[str, str], clock: Clock
) -> Mapping[str, int]:
    """Go over to a new taxonomy: decisions are carried over where a label kept its name and its
    description or ``mapping`` (old to new) says so, and made again elsewhere. Return how many were
    carried, reopened, and left as they are because their messages are gone; and how many items
    that waited for this taxonomy are open now.

    Raises SettingsError for a mapping that does not fit; DatabaseRefused where there is no project.
    """
    now_ms = clock()
    with database.write() as tx:
        project = projects.find(tx)
        old = projects.read_taxonomy(tx, project.taxonomy_digest) if project is not None else None
        if project is None or old is None:
            raise DatabaseRefused("the database has no project yet: run `clerk-desk run` first")
        try:
            change = plan_change(old, new, mapping)
        except ValueError as error:
            raise SettingsError(f"--map: {error}") from None
        projects.remember_taxonomy(tx, new, now_ms)
        counts = exports.apply_change(tx, change, old.digest, new.digest, now_ms)
        projects.use_taxonomy(tx, project.id, new.digest)
        counts["opened"] = items.release_held(tx, new.digest)
        detail = {"from": old.digest, "to": new.digest, **counts}
        people.log(tx, now_ms, None, "taxonomy.changed", detail=detail)
    return counts
