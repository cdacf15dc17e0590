"""What a tracker takes: settings, tags and figures by step. No text of a message is among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Figures = Mapping[str, float]
"""Figures by their names, ``train/loss`` and the like."""


class Tracker(Protocol):
    """A client of one tracking service, and one run there at a time. What it raises is its own."""

    def start(
        self, project: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Begin a run and return what finds it again."""

    def resume(self, project: str, run: str, params: Mapping[str, Any]) -> None:
        """Go on with a run that was begun earlier, whose settings and tags ``params`` repeats."""

    def log(self, rows: Sequence[tuple[int, Figures]], tags: Mapping[str, str]) -> None:
        """Add figures, each with the optimizer step it belongs to, and tags."""

    def finish(self, *, failed: bool) -> None:
        """End the run."""
