"""The operator's work: retention, deleting a customer's messages, a new taxonomy, exports."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import structlog

from desk.clock import Clock
from desk.core.export import answers, messages_jsonl
from desk.core.items import plan_change
from desk.errors import DatabaseRefused, DeskError, Refused, SettingsError
from desk.service import circle, corrections
from desk.service.context import Desk, require
from desk.service.viewing import is_masked
from desk.store import batches, exports, items, outbox, people, projects, uploads
from desk.store.database import Database, Tx
from desk.store.types import Person
from worker.common.review_files import write_answers
from worker.contract.digest import write_atomically
from worker.contract.exchange import json_bytes
from worker.contract.taxonomy import Taxonomy

_log = structlog.get_logger("desk.service")

DAY_MS = 24 * 60 * 60 * 1000


def purge_before_ms(now_ms: int, text_days: float) -> int:
    """Return the time (Unix, ms) before which texts are deleted."""
    return now_ms - int(text_days * DAY_MS)


_PURGED_AT_ONCE = 2000  # messages per transaction: on SQLite reviewers wait for it
_PUBLISHED_KEPT_DAYS = 30  # longer than the webhook tries to deliver a record


def apply_retention(desk: Desk, text_days: float, log_days: float) -> int:
    """Delete messages and entries of the log that are older than so many days, and records that
    were published a month ago; return how many messages were deleted."""
    now_ms = desk.clock()
    purged = 0
    while True:
        with desk.database.write() as tx:
            some = items.purge_old(tx, purge_before_ms(now_ms, text_days), _PURGED_AT_ONCE)
            logged = people.forget_log(tx, purge_before_ms(now_ms, log_days), _PURGED_AT_ONCE)
            if some:
                people.log(tx, now_ms, None, "texts.purged", detail={"items": some})
        purged += some
        if max(some, logged) < _PURGED_AT_ONCE:
            break
    with desk.database.write() as tx:
        outbox.forget_published(tx, now_ms - _PUBLISHED_KEPT_DAYS * DAY_MS)
        uploads.forget_old(tx, purge_before_ms(now_ms, text_days))
    return purged


def purge_person(
    desk: Desk, *, message_ids: Collection[str] = (), record_keys: Collection[bytes] = ()
) -> int:
    """Delete a customer's messages, and everything that identifies them, by message ids or record
    keys; return how many items. The labels of the model and the reviewers stay."""
    now_ms = desk.clock()
    with desk.database.write() as tx:
        count = items.purge_person(tx, message_ids=message_ids, record_keys=record_keys)
        people.log(tx, now_ms, None, "person.purged", detail={"items": count})
    return count


def change_taxonomy(
    database: Database, new: Taxonomy, mapping: Mapping[str, str], clock: Clock
) -> Mapping[str, int]:
    """Change to a new taxonomy.

    Decisions are carried over if a label keeps its name and description, or if ``mapping`` (old to
    new) says so. Other items are opened again, and their corrections retracted. Return how many
    were carried, reopened, and left as they are because their messages are gone; and how many items
    that waited for this taxonomy are open now.

    Raises SettingsError for a mapping that does not fit; DatabaseRefused without a project.
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
        counts, reopened = exports.apply_change(tx, change, old.digest, new.digest, now_ms)
        for item_id in reopened:
            item = items.get(tx, item_id)
            assert item is not None
            corrections.follow(
                tx,
                item,
                None,
                taxonomy=old,
                by=None,
                reason="taxonomy_changed",
                now_ms=now_ms,
                # The delay is there for undo, and a change of taxonomy has none.
                delay_ms=0,
            )
        projects.use_taxonomy(tx, project.id, new.digest)
        counts["opened"] = items.release_held(tx, new.digest)
        detail = {"from": old.digest, "to": new.digest, **counts}
        people.log(tx, now_ms, None, "taxonomy.changed", detail=detail)
    return counts


INBOX = "inbox"
"""The project of the items from Kafka."""

_LEAST_OF_A_DIGEST = 8  # characters: less may begin the digests of two datasets


def export(
    desk: Desk, folder: Path, *, project: str = INBOX, by_message_id: bool
) -> tuple[int, list[Path]]:
    """Write the files of ``export_files`` to a folder. Only their owner can read them: they hold
    messages. Return the number of messages with an outcome, and the files in their order. Raises
    Refused as it does."""
    files, count = export_files(desk, project=project, by_message_id=by_message_id)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, mode=0o600)
    return count, [folder / name for name in files]


def export_files(
    desk: Desk, *, project: str = INBOX, by_message_id: bool, by: Person | None = None
) -> tuple[Mapping[str, bytes], int]:
    """Return the decisions by the present taxonomy as files for ``clerk-trainer``, by name, and the
    number of messages with an outcome: messages for ``prepare --input``, decisions for
    ``prepare --decisions``, and one file for each decided proposal, for ``propose --decided``.

    ``project`` is ``INBOX``, the name of a batch, or a dataset's digest or its beginning. Of two
    decisions on one message the later one counts, but one on the audit sample counts first. Rows of
    tasks are named by message ids in any case, because tasks have no result. ``by`` is the owner
    who exports, None for the command line. Raises Refused for an unknown project, or if ``by`` sees
    texts masked; NotAllowed.
    """
    if by is not None:
        require(by, "owner")
        if is_masked(desk, by):
            raise Refused("your role sees texts masked, and an export is not: ask the operator")
    with desk.database.read() as tx:
        rows = list(
            exports.export_rows(
                tx,
                batch_ids=_batches(tx, project),
                by_message_id=by_message_id or project != INBOX,
                taxonomy_digest=desk.taxonomy.digest,
            )
        )
    fallback = desk.taxonomy.names[0]
    files = {
        "messages.jsonl": messages_jsonl(rows, fallback).encode("utf-8"),
        "decisions.csv": write_answers(answers(rows)),
    }
    for each in circle.all_proposals(desk):
        if each.decision is not None:
            files[f"proposals/{each.proposal.id}.json"] = json_bytes(each.decision)
    count = sum(row.is_last for row in rows)
    with desk.database.write() as tx:
        detail = {"project": project, "decisions": count}
        actor = by.id if by is not None else None
        people.log(tx, desk.clock(), actor, "decisions.exported", detail=detail)
    _log.info("decisions.exported", decisions=count)
    return files, count


def batch_decisions(desk: Desk, batch_ids: Collection[int]) -> bytes:
    """Return the decisions on these batches as a file for ``clerk-trainer``."""
    with desk.database.read() as tx:
        rows = exports.export_rows(
            tx, batch_ids=batch_ids, by_message_id=True, taxonomy_digest=desk.taxonomy.digest
        )
        return write_answers(answers(rows))


def log_backup(database: Database, target: Path, size: int, clock: Clock) -> None:
    """Log that the database was copied to a file of ``size`` bytes."""
    detail = {"file": target.name, "bytes": size}
    _log.info("database.backed_up", **detail)
    try:
        with database.write() as tx:
            people.log(tx, clock(), None, "database.backed_up", detail=detail)
    except DeskError as error:  # the copy is whole: a command that fails now would say otherwise
        _log.warning("database.backup_not_logged", reason=str(error))


def _batches(tx: Tx, project: str) -> list[int]:
    """Return the batches of a project; none of the inbox. Raises Refused."""
    if project == INBOX:
        return []
    everything = batches.everything(tx)
    found = [
        batch.id
        for batch in everything
        if batch.name == project
        or (len(project) >= _LEAST_OF_A_DIGEST and (batch.dataset or "").startswith(project))
    ]
    if not found:
        raise Refused(
            f"there is no batch {project}, and no dataset whose digest begins with it: "
            "clerk-desk tasks list shows all"
        )
    return found
