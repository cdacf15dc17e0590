"""Whether the worker has started, is alive and is ready, and the reasons if not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from worker.core.loop import LoopState
from worker.errors import EngineDied, WorkerError

LOADING = "the model is loading"
JOINING = "the consumer group is not joined yet"
STOPPING = "stopping: work in flight is being finished"


@dataclass(frozen=True, slots=True)
class HealthVerdict:
    """Healthy, or the reasons why not."""

    why: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no reason against it."""
        return not self.why


class Answers(Protocol):
    """Whatever answers prompts, whichever adapters serve."""

    def check_health(self) -> None:
        """Raise EngineDied when it cannot. From any thread."""
        ...


class Health:
    """Answers the three health checks, from any thread; the worker's own thread reports to it.

    While the worker starts it counts as alive, however long that takes: the limit is up to the
    start-up probe. From then on it is alive while the loop polls Kafka at least every
    ``max_iteration_s`` and the engine can answer. Neither lag nor an unreachable broker makes a
    worker unhealthy: a restart would not help.
    """

    def __init__(self, clock: Callable[[], float], max_iteration_s: float) -> None:
        self._clock = clock
        self._max_iteration_s = max_iteration_s
        self._engine: Answers | None = None
        self._state: Callable[[], LoopState] | None = None
        self._closing = False
        self._failed: str | None = None

    def model_ready(self, engine: Answers) -> None:
        """The engine is warm."""
        self._engine = engine

    def runs(self, state: Callable[[], LoopState]) -> None:
        """The loop is about to run; ``state`` may be called from any thread."""
        self._state = state

    def closing(self, error: BaseException | None = None) -> None:
        """The loop has ended, normally or with an error, and everything is being closed."""
        if error is not None and self._failed is None:
            # The text of an unexpected error might quote a message.
            detail = f": {error}" if isinstance(error, WorkerError) else ""
            self._failed = f"the worker ends with {type(error).__name__}{detail}"
        self._closing = True

    def started(self) -> HealthVerdict:
        """Whether start-up is over: the model is warm."""
        return HealthVerdict(() if self._engine is not None else (self._failed or LOADING,))

    def alive(self) -> HealthVerdict:
        """Whether the worker can work; if not, a restart may help."""
        if self._failed is not None:
            return HealthVerdict((self._failed,))
        if self._closing or self._engine is None:
            return HealthVerdict()
        why = []
        try:
            self._engine.check_health()
        except EngineDied as error:
            why.append(f"engine: {error}")
        polled_at = self._state().polled_at if self._state is not None else None
        if polled_at is not None:
            age = self._clock() - polled_at
            if age > self._max_iteration_s:
                why.append(
                    f"the loop has not polled Kafka for {age:.0f} s; "
                    f"{self._max_iteration_s:.0f} s is the longest it may take"
                )
        return HealthVerdict(tuple(why))

    def ready(self) -> HealthVerdict:
        """Whether it labels messages, or would if there were a partition left for it."""
        why = list(self.alive().why)
        state = self._state() if self._state is not None else None
        if self._engine is None:
            why.append(LOADING)
        elif self._closing or (state is not None and state.stopping):
            why.append(STOPPING)
        elif state is None or not state.joined:
            why.append(JOINING)
        elif state.outage_since is not None:
            away_s = self._clock() - state.outage_since
            why.append(f"Kafka has not been reachable for {away_s:.0f} s; results wait")
        return HealthVerdict(tuple(why))
