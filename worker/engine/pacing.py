"""How much one engine is given at a time, and when a request or the whole engine is given up.

A lane is one engine and the requests that it has. A cascade has a lane for each stage: quick
answers of the first stage say nothing about requests that wait for the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.engine.port import Answer
from worker.errors import EngineDied, MessageRejected

_START_REQUESTS = 64
_LEAST_REQUESTS = 8

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """How much an engine is given, and when it counts as hung.

    ``deadline_s`` is how long a request may be in the engine while later ones are answered. The
    window is at most ``max_in_engine`` requests, and so many fewer that an answer takes a quarter
    of the deadline at most. The engine counts as hung after two thirds of the deadline without a
    real answer, which is before any request is given up.
    """

    max_in_engine: int
    deadline_s: float

    @property
    def target_s(self) -> float:
        """The longest time in the engine that the window aims at."""
        return self.deadline_s / 4

    @property
    def silence_s(self) -> float:
        """Without a real answer for so long, the engine is asked something that it must answer."""
        return self.deadline_s / 3


UNBOUNDED = AdmissionPolicy(max_in_engine=1 << 20, deadline_s=math.inf)
"""No deadline and no watch for silence: of a command that waits for each answer itself."""


class AdmissionWindow:
    """How many requests may be in the engine at a time.

    By Little's law a full window of n requests takes n / pace seconds to come back, so the time
    that answers take says how large it may be. It doubles while answers are quick and requests wait
    for a place, and shrinks in proportion as soon as answers take longer than the target.
    """

    def __init__(self, policy: AdmissionPolicy, now: float) -> None:
        self.limit = min(_START_REQUESTS, policy.max_in_engine)
        self._policy = policy
        self._target_s = policy.target_s
        self._least = min(_LEAST_REQUESTS, policy.max_in_engine)
        self._full = False
        self._begin(now)

    def has_room(self, in_engine: int) -> bool:
        """Tell whether another request may go in. A refusal counts: the window may have to grow."""
        if in_engine < self.limit:
            return True
        self._full = True
        return False

    def answered(self, latency_s: float, now: float) -> None:
        """Take in how long an answer took; judge once as many have come as the window holds."""
        self._answers += 1
        self._latency_s += latency_s
        if self._answers >= self.limit or now - self._since >= self._target_s:
            self._judge(self._latency_s / self._answers)
            self._begin(now)

    def _judge(self, mean_s: float) -> None:
        target_s, limit = self._target_s, self.limit
        if mean_s > target_s:
            self.limit = max(self._least, int(limit * target_s / mean_s))
        elif self._full:
            growth = min(2.0, target_s / mean_s) if mean_s > 0 else 2.0
            self.limit = min(self._policy.max_in_engine, max(limit + 1, int(limit * growth)))
        self._full = False

    def _begin(self, now: float) -> None:
        self._since, self._answers, self._latency_s = now, 0, 0.0


class Lane(Generic[K]):
    """The requests that one engine has, oldest first, and what its answers tell of it.

    A request is at fault when it has passed its deadline and was overtaken: the engine has answered
    what it was given a good while later. One that was not overtaken is still in line at a slow
    engine. When nothing at all is answered the engine is given what ``ask`` submits, which it must
    answer: if it does, its requests have been overtaken; if not, it hangs. Only real answers count:
    a request that the worker called off says nothing about the engine.

    Times are monotonic seconds. Not thread-safe.
    """

    def __init__(self, ask: Callable[[], Future[Answer]], policy: AdmissionPolicy, now: float):
        self.window = AdmissionWindow(policy, now)
        self._ask = ask
        self._policy = policy
        self._requests: dict[K, float] = {}
        self._answered_at = -math.inf
        self._answered_submission = -math.inf
        self._check: Future[Answer] | None = None
        self._check_at = 0.0

    def __len__(self) -> int:
        """Count the requests."""
        return len(self._requests)

    @property
    def requests(self) -> tuple[K, ...]:
        """The requests, oldest first."""
        return tuple(self._requests)

    @property
    def oldest_at(self) -> float | None:
        """When the oldest request was given, None if there is none."""
        return next(iter(self._requests.values()), None)

    def give(self, request: K, now: float) -> None:
        """The engine is given this request now, perhaps once more."""
        self._requests.pop(request, None)
        self._requests[request] = now

    def remove(self, request: K) -> None:
        """The engine does not have this request, or nobody waits for it any more."""
        self._requests.pop(request, None)

    def answered(self, submitted_at: float, answered_at: float, now: float) -> None:
        """Take in a real answer to what was submitted then."""
        self._note_answer(submitted_at, now)
        self.window.answered(answered_at - submitted_at, now)

    def overdue(self, now: float) -> list[K]:
        """Return the requests that have passed their deadline and were overtaken."""
        latest = min(
            now - self._policy.deadline_s, self._answered_submission - self._policy.target_s
        )
        found = []
        for request, submitted_at in self._requests.items():
            if submitted_at > latest:
                break
            found.append(request)
        return found

    @property
    def overdue_detail(self) -> str:
        """Why an overdue request is given up, for a dead letter."""
        return f"no answer within {self._policy.deadline_s:g} s, but later ones had theirs"

    def find_death(self, now: float, waits_from: float | None, held: int) -> EngineDied | None:
        """Say that the engine hangs or has died, if so; ask it something if that is not clear.

        ``waits_from`` is since when it has had something, None where it has nothing, and ``held``
        how many messages that is.
        """
        if self._check is not None:
            return self._look(self._check, now, held, wanted=waits_from is not None)
        silence_s = self._policy.silence_s
        if waits_from is None or now - max(self._answered_at, waits_from) < silence_s:
            return None
        try:
            self._check = self._ask()
        except EngineDied as error:
            return error
        self._check_at = now
        return None

    def _look(
        self, check: Future[Answer], now: float, held: int, *, wanted: bool
    ) -> EngineDied | None:
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
            self._note_answer(self._check_at, now)
            return None
        if not wanted or self._answered_at > self._check_at:
            self._check = None
            check.cancel()
        elif waited_s >= self._policy.silence_s:
            self._check = None
            check.cancel()
            return EngineDied(
                f"the engine has answered nothing for {waited_s + self._policy.silence_s:.0f} s, "
                f"with {held} messages given to it"
            )
        return None

    def _note_answer(self, submitted_at: float, now: float) -> None:
        self._answered_at = now
        self._answered_submission = max(self._answered_submission, submitted_at)
