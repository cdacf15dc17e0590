"""An engine on a manual clock: so many answers a second, in order, until it goes silent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from tests.support.rig import message_of
from tests.support.toy_adapter import scores
from worker.engine.port import Answer
from worker.errors import EngineDied


class PacedEngine:
    """Answers prompts in order, ``rate`` a second (0: none), when ``work`` is called. Texts in
    ``never`` get no answer and hold up no others."""

    def __init__(self, clock: Callable[[], float], rate: float, never: Sequence[str] = ()) -> None:
        self._clock = clock
        self._line: deque[Future[Answer]] = deque()
        self._due = 0.0
        self._at = clock()
        self._never = frozenset(never)
        self.rate = rate
        self.precisions: tuple[str, ...] = ("fp32",)
        self.answered = 0
        self.most_pending = 0

    @property
    def pending(self) -> int:
        """Prompts that wait for an answer and were not cancelled."""
        return sum(not future.done() for future in self._line)

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        future: Future[Answer] = Future()
        if message_of(prompt_ids) not in self._never:
            self._line.append(future)
        self.most_pending = max(self.most_pending, len(self._line))
        return future

    def work(self) -> None:
        """Give the answers that are due by now."""
        now = self._clock()
        self._due += (now - self._at) * self.rate
        self._at = now
        while self._line and self._due >= 1:
            future = self._line.popleft()
            if future.set_running_or_notify_cancel():
                future.set_result(scores("billing", p=0.9))
                self.answered += 1
                self._due -= 1
        if not self._line:
            self._due = 0.0  # idle time is not caught up

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        pass

    def check_health(self) -> None:
        pass

    def close(self) -> None:
        for future in self._line:
            if not future.done():
                future.set_exception(EngineDied("closed"))
