"""An engine without a model, for tests: it answers on command, or by itself after a delay."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from worker.engine.port import Answer
from worker.errors import EngineDied

Prompt = tuple[int, ...]

Respond = Callable[[Prompt], Answer | Exception]
"""The answer to a prompt, or the exception that its future fails with."""


class FakeEngine:
    """Keeps prompts until a test finishes them, or with ``service_s`` for that many seconds.

    ``concurrency`` prompts are served at a time; later ones queue. Thread-safe.
    """

    def __init__(
        self, respond: Respond, *, service_s: float | None = None, concurrency: int = 1
    ) -> None:
        self.precisions: tuple[str, ...] = ("fp32",)
        self._respond = respond
        self._waiting: dict[Future[Answer], Prompt] = {}
        self._lock = threading.Lock()
        self._death: EngineDied | None = None
        self._line: queue.SimpleQueue[Future[Answer] | None] = queue.SimpleQueue()
        self._servers = concurrency if service_s is not None else 0
        for _ in range(self._servers):
            threading.Thread(target=self._serve, args=(service_s,), daemon=True).start()

    @property
    def pending(self) -> list[Prompt]:
        """Unanswered prompts, oldest first."""
        return [prompt for _, prompt in self._pending()]

    def finish(self, index: int = 0) -> None:
        """Answer the pending prompt at ``index``. Raises IndexError."""
        self._settle(self._pending()[index][0])

    def finish_all(self) -> None:
        """Answer every prompt that is pending now."""
        for future, _ in self._pending():
            self._settle(future)

    def fail(self, error: Exception, index: int = 0) -> None:
        """Fail the pending prompt at ``index``. Raises IndexError."""
        self._settle(self._pending()[index][0], error)

    def die(self, message: str = "the fake engine died") -> None:
        """Fail pending prompts and all later calls with EngineDied."""
        if self._death is None:
            self._death = EngineDied(message)
            for _ in range(self._servers):
                self._line.put(None)  # ends a server thread
        for future, _ in self._pending():
            self._settle(future, self._death)

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """See ``Engine``."""
        self.check_health()
        future: Future[Answer] = Future()
        with self._lock:
            self._waiting[future] = tuple(prompt_ids)
        future.add_done_callback(self._forget)
        if self._servers:
            self._line.put(future)
        return future

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:  # noqa: ARG002
        """Check the health; there is nothing to warm up."""
        self.check_health()

    def check_health(self) -> None:
        """Raise EngineDied after ``die`` or ``close``."""
        if self._death is not None:
            raise self._death

    def close(self) -> None:
        """Fail pending prompts with EngineDied."""
        self.die("the engine is closed")

    def _pending(self) -> list[tuple[Future[Answer], Prompt]]:
        with self._lock:
            return list(self._waiting.items())

    def _forget(self, future: Future[Answer]) -> None:
        with self._lock:
            waiting = self._waiting.pop(future, None) is not None
        if waiting:  # it was cancelled; concurrent.futures.wait() needs the notification
            future.set_running_or_notify_cancel()

    def _settle(self, future: Future[Answer], error: Exception | None = None) -> None:
        with self._lock:
            prompt = self._waiting.pop(future, None)
        # Only the thread that removed the prompt from the dictionary settles its future.
        if prompt is None or not future.set_running_or_notify_cancel():
            return
        answer = error or self._respond(prompt)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _serve(self, service_s: float) -> None:
        while (future := self._line.get()) is not None:
            if not future.done():
                time.sleep(service_s)
                self._settle(future)
