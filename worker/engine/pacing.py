"""Limit the requests in an engine, and decide when a request is overdue or the engine hangs.

A lane is one engine and the requests in it. A cascade has a lane for each stage: quick answers from
the first stage prove nothing about requests in the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.contract.errors import MessageRejected
from worker.engine.port import Answer
from worker.errors import EngineDied

_START_REQUESTS = 64
_LEAST_REQUESTS = 8
_FEWEST_REQUESTS = 2
_STRETCH = 3.0
_PROBE_S = 60.0

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """Limits for one engine.

    ``deadline_s`` is how long a request may be in the engine while later ones are answered. The
    window is at most ``max_in_engine`` requests, and smaller if answers would take longer than a
    quarter of the deadline. The engine counts as hung after two thirds of the deadline without a
    real answer: before any request becomes overdue, so a hang never rejects messages.
    """

    max_in_engine: int
    deadline_s: float

    @property
    def target_s(self) -> float:
        """The window's limit on the time in the engine."""
        return self.deadline_s / 4

    @property
    def silence_s(self) -> float:
        """After this time without a real answer, the engine is asked a golden prompt."""
        return self.deadline_s / 3


UNBOUNDED = AdmissionPolicy(max_in_engine=1 << 20, deadline_s=math.inf)
"""No limits, for commands that wait for each answer themselves."""


class AdmissionWindow:
    """The number of requests allowed in the engine.

    By Little's law a full window of n requests takes n / throughput seconds, so the latency of
    answers tells how large it may be. It doubles while answers are quick and requests are waiting,
    and shrinks in proportion when answers take longer than the target.
    """

    _fewest_answers = 1
    """It is not judged by fewer."""

    def __init__(self, policy: AdmissionPolicy, now: float) -> None:
        self.limit = min(_START_REQUESTS, policy.max_in_engine)
        self._policy = policy
        self._target_s = policy.target_s
        self._least = min(_LEAST_REQUESTS, policy.max_in_engine)
        self._full = False
        self._begin(now)

    def has_room(self, in_engine: int) -> bool:
        """Whether another request may go in. Returning False marks the window as too small, so call
        it only with a request to submit."""
        if in_engine < self.limit:
            return True
        self._full = True
        return False

    def answered(self, latency_s: float, now: float) -> None:
        """Record an answer's latency; adjust the limit once per window of answers."""
        self._answers += 1
        self._latency_s += latency_s
        enough = max(self.limit, self._fewest_answers)
        if self._answers >= enough or now - self._since >= self._target_s:
            self._judge(self._latency_s / self._answers)
            self._begin(now)

    def _judge(self, mean_s: float) -> None:
        target_s, limit = self._target_s, self.limit
        if mean_s > target_s:
            self.limit = max(self._least, int(limit * target_s / mean_s))
        elif self._full:
            # Only if it was full: otherwise nothing shows that the engine can take more.
            growth = min(2.0, target_s / mean_s) if mean_s > 0 else 2.0
            self.limit = min(self._policy.max_in_engine, max(limit + 1, int(limit * growth)))
        self._full = False

    def _begin(self, now: float) -> None:
        self._since, self._answers, self._latency_s = now, 0, 0.0


class WindowBehind(AdmissionWindow):
    """The number of requests allowed in the engine while urgent ones may come, which then wait
    behind these.

    It grows while answers take at most ``_STRETCH`` times as long as with the fewest requests. That
    is measured again every ``_PROBE_S``, because messages and machines change (as in BBR, Cardwell
    and others 2016, Congestion-based congestion control).
    """

    _fewest_answers = 8

    def __init__(self, policy: AdmissionPolicy, now: float) -> None:
        super().__init__(policy, now)
        self._longest_s = policy.target_s
        self._least = min(_FEWEST_REQUESTS, policy.max_in_engine)
        self._probe(now)

    def answered(self, latency_s: float, now: float) -> None:
        """Record an answer's latency; adjust the limit once per window of answers."""
        if now - self._probed_at >= _PROBE_S:
            self._probe(now)
        elif now - latency_s >= self._since:  # else it was submitted with another limit
            super().answered(latency_s, now)

    def _judge(self, mean_s: float) -> None:
        if self.limit == self._least:
            self._target_s = min(self._longest_s, mean_s * _STRETCH)
        super()._judge(mean_s)

    def _probe(self, now: float) -> None:
        self.limit, self._probed_at, self._target_s = self._least, now, self._longest_s
        self._begin(now)


class Lane(Generic[K]):
    """The requests in one engine, oldest first, and the evidence from its answers.

    A request is overdue if it has passed its deadline and was overtaken: the engine has answered
    requests submitted much later. Without that it may just be in the queue of a slow engine. If
    nothing is answered at all, ``ask`` submits a golden prompt: an answer to it overtakes the
    requests, no answer means that the engine hangs. Cancelled requests are not evidence.

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
        """The time of the oldest request, or None."""
        return next(iter(self._requests.values()), None)

    def give(self, request: K, now: float) -> None:
        """Note that a request is submitted, perhaps again."""
        self._requests.pop(request, None)
        self._requests[request] = now

    def remove(self, request: K) -> None:
        """Note that a request is no longer in the engine, or no longer needed."""
        self._requests.pop(request, None)

    def answered(self, submitted_at: float, answered_at: float, now: float) -> None:
        """Record a real answer to a request submitted at ``submitted_at``."""
        self._note_answer(submitted_at, now)
        self.window.answered(answered_at - submitted_at, now)

    def overdue(self, now: float) -> list[K]:
        """Return the requests past their deadline that were overtaken."""
        latest = min(
            now - self._policy.deadline_s, self._answered_submission - self._policy.target_s
        )
        found = []
        for request, submitted_at in self._requests.items():
            if submitted_at > latest:  # ordered by time: all later ones are younger
                break
            found.append(request)
        return found

    @property
    def overdue_detail(self) -> str:
        """The reason for the dead letter of an overdue request."""
        return f"no answer within {self._policy.deadline_s:g} s, while later ones were answered"

    def find_death(self, now: float, waits_from: float | None, held: int) -> EngineDied | None:
        """Return an error if the engine hangs or has died; ask it a golden prompt if it is silent.

        ``waits_from`` is since when it has had requests (None: it has none), ``held`` the number of
        messages.
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
                pass  # also a sign of life
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
                f"with {held} messages in it"
            )
        return None

    def _note_answer(self, submitted_at: float, now: float) -> None:
        self._answered_at = now
        self._answered_submission = max(self._answered_submission, submitted_at)
