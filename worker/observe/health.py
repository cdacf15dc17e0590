"""The health checks: started, alive, ready, with the reasons if not."""

from __future__ import annotations

from collections.abc import Callable

from worker.core.loop import LoopState
from worker.errors import EngineDied, WorkerError

LOADING = "the model is loading"
JOINING = "the consumer group is not joined yet"
STOPPING = "stopping: work in flight is being finished"


class Health:
    """The three health checks, for any thread. Each returns the reasons against it, empty if well.

    A starting worker counts as alive however long it takes: the start-up probe has the limit.
    Afterwards it is alive while the loop polls Kafka at least every ``max_iteration_s`` and the
    engine can answer. Lag or an unreachable broker do not make it unhealthy, because a restart
    would not help.
    """

    def __init__(self, clock: Callable[[], float], max_iteration_s: float) -> None:
        self._clock = clock
        self._max_iteration_s = max_iteration_s
        self._check_engine: Callable[[], None] | None = None
        self._state: Callable[[], LoopState] | None = None
        self._closing = False
        self._failed: str | None = None

    def model_ready(self, check_engine: Callable[[], None]) -> None:
        """The engine is warm; ``check_engine`` raises EngineDied, from any thread."""
        self._check_engine = check_engine

    def runs(self, state: Callable[[], LoopState]) -> None:
        """The loop is about to run; ``state`` can be called from any thread."""
        self._state = state

    def closing(self, error: BaseException | None = None) -> None:
        """The loop has ended, normally or with an error, and everything is being closed."""
        if error is not None and self._failed is None:
            # The text of an unexpected error might quote a message.
            detail = f": {error}" if isinstance(error, WorkerError) else ""
            self._failed = f"the worker ends with {type(error).__name__}{detail}"
        self._closing = True

    def started(self) -> list[str]:
        """Check whether the model is warm."""
        return [] if self._check_engine is not None else [self._failed or LOADING]

    def alive(self) -> list[str]:
        """Check whether the worker can work; if not, a restart may help."""
        if self._failed is not None:
            return [self._failed]
        # A worker that drains stops polling, and a loading one has no engine: neither is stuck.
        if self._closing or self._check_engine is None:
            return []
        why = []
        try:
            self._check_engine()
        except EngineDied as error:
            why.append(f"engine: {error}")
        polled_at = self._state().polled_at if self._state is not None else None
        if polled_at is not None:
            age = self._clock() - polled_at
            if age > self._max_iteration_s:
                why.append(
                    f"the loop has not polled Kafka for {age:.0f} s; the limit is "
                    f"{self._max_iteration_s:.0f} s"
                )
        return why

    def ready(self) -> list[str]:
        """Check whether it labels messages, or would with a partition assigned."""
        why = self.alive()
        state = self._state() if self._state is not None else None
        if self._check_engine is None:
            why.append(LOADING)
        elif self._closing or (state is not None and state.stopping):
            why.append(STOPPING)
        elif state is not None and state.outage_since is not None:
            outage_s = self._clock() - state.outage_since
            why.append(f"Kafka has been unreachable for {outage_s:.0f} s; messages wait")
        elif state is None or not state.joined:
            why.append(JOINING)
        return why
