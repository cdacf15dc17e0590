"""A file that survives the process: which record was alone in the engine when the process died."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from worker.core.crash_isolation import ProvenDeath
from worker.records.types import TopicPartition

_log = structlog.get_logger("worker.loop")


class FileWitness:
    """See ``TrialWitness``. Each process has one file, which it locks until it ends.

    An unlocked file of this host that names a record proves that its process died while the engine
    had nothing but this record. Files of other hosts are ignored: locks may not work across a
    shared volume. A restarted container keeps its host name, and ``folder`` must survive the
    restart too (the chart mounts a volume). Otherwise a crash of the whole process is never proven.

    Nothing is synced to disk: the file must survive the process, not the machine.
    """

    def __init__(self, folder: Path, group: str) -> None:
        self._folder = folder
        self._group = group
        self._host = socket.gethostname()
        self._file: int | None = None
        self._failed = False

    def begin(self, source: TopicPartition, offset: int) -> None:
        """Write the record's topic, partition, and offset."""
        fields = [self._group, source.topic, source.partition, offset]
        try:
            if self._file is None:
                self._file = self._create()
            os.pwrite(self._file, json.dumps(fields).encode(), 0)
        except OSError as error:
            self._give_up(error)

    def end(self) -> None:
        """Empty the file."""
        if self._file is not None:
            try:
                os.ftruncate(self._file, 0)
            except OSError as error:
                self._give_up(error)

    def take_deaths(self) -> Sequence[ProvenDeath]:
        """Read and remove the files of dead processes."""
        found = []
        for path in sorted(self._folder.glob(f"{self._host}.*.json")):
            with suppress(OSError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process is alive
                group, death = _read(file.read())
                if group == self._group or death is None:  # leave another group's to its workers
                    path.unlink()
                if group == self._group and death is not None:
                    found.append(death)
        return found

    def _create(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._host}.{uuid.uuid4().hex}.json"
        hidden = path.with_suffix(".new")  # not yet *.json: take_deaths must not find it unlocked
        file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        hidden.rename(path)
        return file

    def _give_up(self, error: OSError) -> None:
        if not self._failed:
            _log.warning(
                "crash_isolation.no_witness",
                folder=str(self._folder),
                error=str(error),
                consequence="a message that crashes the whole process is tried again and again",
            )
        self._failed = True


def _read(text: bytes) -> tuple[str | None, ProvenDeath | None]:
    """Return a file's group and death, or None if its process died between two trials."""
    try:
        group, topic, partition, offset = json.loads(text)
        return group, ProvenDeath(TopicPartition(topic, int(partition)), int(offset))
    except (ValueError, TypeError):
        return None, None
