"""Whether an engine that answers nothing hangs: it is asked something that it must answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

from worker.engine.port import Answer
from worker.errors import EngineDied, MessageRejected


class SilenceWatch:
    """Tells when an engine has died or hangs. Times are monotonic seconds.

    After ``silence_s`` without a real answer it is given what ``ask`` submits; it hangs when that
    has no answer after as long again. A prompt that was called off says nothing about it.
    """

    def __init__(self, ask: Callable[[], Future[Answer]], silence_s: float) -> None:
        self._ask = ask
        self._silence_s = silence_s
        self._answered_at = -math.inf
        self._check: Future[Answer] | None = None
        self._check_at = 0.0

    def answered(self, now: float) -> None:
        """Take in a real answer."""
        self._answered_at = now

    def find_death(
        self, now: float, waits_from: float | None, held: int
    ) -> EngineDied | float | None:
        """Say that the engine hangs or has died, if so; ask it something if that is not clear.

        ``waits_from`` is since when it has had something, None where it has nothing, and ``held``
        how many messages that is. A number: it answered what it was asked then.
        """
        if self._check is not None:
            return self._look(self._check, now, held, wanted=waits_from is not None)
        if waits_from is None or now - max(self._answered_at, waits_from) < self._silence_s:
            return None
        try:
            self._check = self._ask()
        except EngineDied as error:
            return error
        self._check_at = now
        return None

    def _look(
        self, check: Future[Answer], now: float, held: int, *, wanted: bool
    ) -> EngineDied | float | None:
        waited_s = now - self._check_at
        if check.done():
            self._check = None
            try:
                check.result(timeout=0)
            except EngineDied as error:
                return error
            except CancelledError:
                return None
            except MessageRejected:
                pass  # an answer too
            self._answered_at = now
            return self._check_at
        if not wanted or self._answered_at > self._check_at:
            self._check = None
            check.cancel()
        elif waited_s >= self._silence_s:
            self._check = None
            check.cancel()
            return EngineDied(
                f"the engine has answered nothing for {waited_s + self._silence_s:.0f} s, "
                f"with {held} messages given to it"
            )
        return None
