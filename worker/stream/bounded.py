"""Calls that end in time, also when the library's own time limit does not hold."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class BoundedCaller:
    """Makes blocking calls on a thread of its own and waits for each no longer than it may take.

    A call that does not return in time cannot be ended: its thread is left behind, and so must
    be this object and whatever the call was made on.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._calls = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """Return what ``function`` returns or raise what it raises; TimeoutError if it hangs."""
        future: Future[T] = Future()
        self._calls.put((function, future))
        return future.result(timeout=timeout_s)

    def close(self) -> None:
        """End the thread, once it is free."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            function, future = item
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised again by ``call``
                future.set_exception(error)
