"""One adapter in service: everything that it decides and stamps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from worker.contract.manifest import Manifest
from worker.core.labeller import Labeller
from worker.engine.port import Engine
from worker.records.encode import DeadLetterEncoder, OutputEncoder


@dataclass(slots=True, eq=False)
class ServingAdapter:
    """Everything that one adapter decides and stamps, so that no record can mix two.

    A record is bound to one when it is admitted to the engine: prompt, engine, codes, temperature,
    thresholds and the digest in its result are that adapter's. The counts are the loop's thread's
    to change: records admitted and not finished, and prompts submitted and not answered. ``since``
    is when it began to serve in its role (UTC).
    """

    labeller: Labeller
    engine: Engine
    outputs: OutputEncoder
    dead_letters: DeadLetterEncoder
    since: datetime | None = None
    unfinished: int = 0
    in_engine: int = 0

    @property
    def manifest(self) -> Manifest:
        """The adapter's contract."""
        return self.labeller.manifest

    @property
    def digest(self) -> str:
        """The adapter's identity."""
        return self.outputs.digest

    @property
    def idle(self) -> bool:
        """Whether nothing in flight is its own."""
        return not self.unfinished and not self.in_engine
