"""One adapter in service, and which adapters serve which records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from worker.contract.manifest import Manifest
from worker.core.labeller import Labeller
from worker.engine.port import Engine
from worker.records.dead_letter import DeadLetterEncoder
from worker.records.output import OutputEncoder


@dataclass(slots=True, eq=False)
class ServingAdapter:
    """Everything that one adapter decides and stamps, so that no record can mix two.

    A record is bound to one when it is accepted: prompt, engine, codes, temperature, thresholds
    and the digest in its result are that one's. The counts are the loop's thread's to change:
    records accepted and not finished, prompts submitted and not answered, and when the engine
    last answered one (the loop's clock). ``since`` is when it began to serve (UTC).
    """

    labeller: Labeller
    engine: Engine
    outputs: OutputEncoder
    dead_letters: DeadLetterEncoder
    since: datetime | None = None
    unfinished: int = 0
    in_engine: int = 0
    answered_at: float = -math.inf

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
        """Nothing in flight is its own."""
        return not self.unfinished and not self.in_engine


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """Who serves: the main adapter, and beside it one on trial and one that only shows.

    ``canary_share`` is the share of keys that the canary labels, ``shadow_share`` the share of
    records that the shadow labels too, without anybody acting on it.
    """

    main: ServingAdapter
    canary: ServingAdapter | None = None
    canary_share: float = 0.0
    shadow: ServingAdapter | None = None
    shadow_share: float = 0.0

    @property
    def members(self) -> tuple[ServingAdapter, ...]:
        """All of them, the main adapter first."""
        return tuple(one for one in (self.main, self.canary, self.shadow) if one is not None)
