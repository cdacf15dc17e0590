"""Ending the worker on purpose, so that it starts again with an adapter that has no room next to
the one that serves."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from worker.errors import RestartNeeded
from worker.lifecycle.arm_source import ArmTarget

_log = structlog.get_logger("worker.adapters")


class Restart:
    """Asked for by the thread that follows the store; the main thread raises it after the drain.

    ``enabled`` says whether ``adapters.when_too_large`` wants it.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._drain: Callable[[], None] = lambda: None
        self._why: str | None = None

    def when_wanted(self, drain: Callable[[], None]) -> None:
        """Call this then. It must not block."""
        self._drain = drain

    def ask(self, target: ArmTarget, problem: str) -> bool:
        """Have the worker drain and end, so that it starts again with ``target``, which the store
        names as the main adapter; tell whether it does."""
        if not self._enabled:
            return False
        self._why = f"{target.name} {target.digest[:12]} becomes current by a restart: {problem}"
        _log.warning(
            "adapter.restarting",
            adapter=target.name,
            adapter_digest=target.digest[:12],
            problem=problem,
        )
        self._drain()
        return True

    def check(self) -> None:
        """Raise RestartNeeded if it was asked for."""
        if self._why is not None:
            raise RestartNeeded(self._why)
