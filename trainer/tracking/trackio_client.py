"""Trackio as a tracker. The only file that imports trackio.

Trackio's own variables, such as TRACKIO_DIR and TRACKIO_SERVER_URL, decide where the figures go.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from trainer.tracking.session import Figures


class TrackioTracker:
    """A run of a Trackio project. Trackio has no tags: those at the start are in the run's
    configuration, later ones among the figures."""

    def __init__(self) -> None:
        import trackio

        self._trackio = trackio
        self._run: Any = None
        self._step = 0

    def start(
        self, project: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Begin a run and return its name."""
        self._open(project, name, config={**params, **tags}, resume="never")
        return name

    def resume(self, project: str, run: str, params: Mapping[str, Any]) -> None:
        """Continue a run by its name. Without ``params`` Trackio would erase its configuration."""
        self._open(project, run, config=dict(params), resume="must")

    def log(self, rows: Sequence[tuple[int, Figures]], tags: Mapping[str, str]) -> None:
        """Add figures and tags; Trackio sends them from its own thread."""
        for step, row in rows:
            self._run.log(dict(row), step=step)
            self._step = step
        if tags:
            self._run.log(dict(tags), step=self._step)

    def finish(self, *, failed: bool) -> None:
        """End the run after sending everything."""
        if failed:
            self._run.log({"status": "failed"}, step=self._step)
        with redirect_stdout(sys.stderr):
            self._run.finish()

    def _open(self, project: str, name: str, config: dict[str, Any], resume: str) -> None:
        # It prints a greeting on standard output, which is for results.
        with redirect_stdout(sys.stderr):
            self._run = self._trackio.init(
                project,
                name=name,
                config=config,
                resume=resume,
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
