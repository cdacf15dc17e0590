"""What people decided, as files for the trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from desk.core.export import answers, messages_jsonl
from desk.errors import Refused
from desk.service import proposing
from desk.service.context import Desk
from desk.store import batches, exports
from desk.store.database import Tx
from worker.contract.digest import write_atomically
from worker.contract.exchange import write_answers, write_decision

INBOX = "inbox"
"""The project of what came from Kafka."""

_LEAST_OF_A_DIGEST = 8


@dataclass(frozen=True, slots=True)
class Exported:
    """The files that were written, and how many messages they hold decisions on."""

    messages: Path
    decisions: Path
    count: int
    proposals: tuple[Path, ...]


def export(desk: Desk, folder: Path, *, project: str = INBOX, by_message_id: bool) -> Exported:
    """Write what was decided by the present taxonomy for ``clerk-trainer``: the rows for
    ``prepare --input``, the decisions for ``prepare --decisions``, and one file for each proposal
    that was decided, for ``propose --decided``.

    ``project`` is ``INBOX``, the name of a batch, or a dataset's digest or its beginning; of one
    message that was decided twice in it the later decision counts. Tasks have no result: their rows
    are named by the messages' ids, whatever ``by_message_id`` says. Only the owner of the files can
    read them: they hold messages. Raises Refused for a project that is not there.
    """
    with desk.database.read() as tx:
        rows = list(
            exports.export_rows(
                tx,
                batch_ids=_batches(tx, project),
                by_message_id=by_message_id or project != INBOX,
                taxonomy_digest=desk.taxonomy.digest,
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    messages, decided = folder / "messages.jsonl", folder / "decisions.csv"
    fallback = desk.taxonomy.names[0]
    write_atomically(messages, messages_jsonl(rows, fallback).encode("utf-8"), mode=0o600)
    write_atomically(decided, write_answers(answers(rows)).encode("utf-8"), mode=0o600)
    count = sum(row.is_last for row in rows)
    return Exported(messages, decided, count, _write_proposals(desk, folder / "proposals"))


def _write_proposals(desk: Desk, folder: Path) -> tuple[Path, ...]:
    written = []
    for standing in proposing.everything(desk):
        if standing.decision is not None:
            folder.mkdir(exist_ok=True)
            written.append(folder / f"{standing.proposal.id}.json")
            write_decision(written[-1], standing.decision)
    return tuple(written)


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
            "there is no batch of this name, and none of a dataset whose digest begins so: "
            "`clerk-desk tasks list` shows what there is"
        )
    return found
