"""TensorBoard's event files as a tracker. The only file that imports tensorboard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.tracking.session import Figures


class TensorboardTracker:
    """A folder of event files for each run, in the folder named ``project``."""

    def __init__(self) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._open = EventFileWriter
        self._writer: Any = None

    def start(
        self, project: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Begin a run; its folder is the run's id. Event files hold figures alone: settings and
        tags are in the run folder."""
        del params, tags
        run = str((Path(project) / name.replace(" ", "-").replace(":", "")).resolve())
        self.resume(run)
        return run

    def resume(self, run: str) -> None:
        """Add another event file to a run's folder, which TensorBoard reads with the first."""
        self._writer = self._open(run)

    def log(self, rows: Sequence[tuple[int, Figures]], tags: Mapping[str, str]) -> None:
        """Add figures."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        del tags
        for step, row in rows:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
            self._writer.add_event(
                Event(wall_time=time.time(), step=step, summary=Summary(value=values))
            )
        self._writer.flush()

    def finish(self, *, failed: bool) -> None:
        """End the run."""
        del failed
        self._writer.close()
