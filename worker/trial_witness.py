"""A file that outlives the process: the record that was alone in the engine when it died."""

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
    """See ``TrialWitness``. Each process has one file, and holds a lock on it while it lives.

    So an unlocked file of this host that names a record proves that a process died while its engine
    had only this record. Files of other hosts are ignored, because locks may not work across a
    shared volume. A restarted container keeps its host's name; ``folder`` must survive the restart
    too (the chart mounts a volume), or a crash of the whole process is never proven.

    Files are not synced to disk: they must survive the process, not the machine.
    """

    def __init__(self, folder: Path, group: str) -> None:
        self._folder = folder
        self._group = group
        self._host = socket.gethostname()
        self._file: int | None = None
        self._failed = False

    def begin(self, source: TopicPartition, offset: int) -> None:
        """Write the record's position."""
        fields = [self._group, source.topic, source.partition, offset]
        try:
            if self._file is None:
                self._file = self._create()
            # pwrite and ftruncate rather than a new file each time: the lock stays on this one.
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
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
                group, death = _read(file.read())
                if group == self._group or death is None:  # leave those of other groups
                    path.unlink()
                if group == self._group and death is not None:
                    found.append(death)
        return found

    def _create(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._host}.{uuid.uuid4().hex}.json"
        hidden = path.with_suffix(".new")  # take_deaths must not see it before it is locked
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
                effect="a message that crashes the whole process cannot be identified",
            )
        self._failed = True


def _read(text: bytes) -> tuple[str | None, ProvenDeath | None]:
    """Return the group and the record in a file; None if the process died between two trials."""
    try:
        group, topic, partition, offset = json.loads(text)
        return group, ProvenDeath(TopicPartition(topic, int(partition)), int(offset))
    except (ValueError, TypeError):
        return None, None
