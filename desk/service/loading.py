"""Uploads of many tasks are loaded in the background, so that nobody waits for them.

The whole file is checked while its owner waits. Then the database keeps it until all of it is in
batches: a desk that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from desk.core.texts import storable
from desk.errors import Refused
from desk.service import circle, uploads
from desk.service.circle import Part
from desk.service.context import Desk, require
from desk.store import uploads as store
from desk.store.types import Person
from desk.store.uploads import Waiting
from worker.contract.exchange import Task

_log = structlog.get_logger("desk.loading")

_SHOWN = 10


def read_upload(desk: Desk, content: bytes, name: str) -> Sequence[Task]:
    """Return the tasks of a file of tasks or a table. Raises Refused."""
    if uploads.kind_of(content, name) == "table":
        return uploads.table_tasks(content, name, desk.taxonomy.names)
    return circle.read_tasks(desk, uploads.lines_of(content, name), name)


def load_later(desk: Desk, content: bytes, name: str, tasks: int, person: Person) -> None:
    """Keep a file of so many tasks, which was checked, until it is loaded. Raises NotAllowed."""
    require(person, "owner")
    with desk.database.write() as tx:
        store.put(tx, storable(name), content, tasks, person.id, desk.clock())


def newest(desk: Desk) -> list[Waiting]:
    """Return the newest uploads that were, or are to be, loaded in the background."""
    with desk.database.read() as tx:
        return store.newest(tx, _SHOWN)


class UploadLoader:
    """Loads uploads, the oldest first; one thread."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._read: tuple[int, list[Part]] | None = None

    def reset(self) -> None:
        """Forget the file that was read."""
        self._read = None

    def run_once(self) -> int:
        """Load one part of an upload; return its number of tasks. Raises TryAgain."""
        desk = self._desk
        with desk.database.read() as tx:
            upload = store.first_waiting(tx)
        if upload is None:
            self._read = None
            return 0
        try:
            parts = self._parts(upload)
        except Refused as error:  # the taxonomy was changed in between
            with desk.database.write() as tx:
                store.refuse(tx, upload, storable(str(error)))
            _log.warning("upload.refused", upload=upload.id)
            return 1
        loaded = 0
        for part in parts:  # what another version loaded in larger parts is known, and skipped
            loaded += len(part.tasks)
            if loaded > upload.loaded:
                break
        circle.load_part(desk, part, upload.person_id, lambda tx: store.advance(tx, upload, loaded))
        if loaded == upload.tasks:
            _log.info("upload.loaded", upload=upload.id, tasks=loaded)
        return len(part.tasks)

    def _parts(self, upload: Waiting) -> list[Part]:
        """Return the parts of an upload, read once."""
        if self._read is None or self._read[0] != upload.id:
            with self._desk.database.read() as tx:
                content = store.content(tx, upload.id)
            tasks = read_upload(self._desk, content, upload.name)
            self._read = upload.id, circle.parts_of(tasks)
        return self._read[1]
