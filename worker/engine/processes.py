"""The engine's processes, seen from outside: they end with the worker, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, by kill -9 too (on Linux).

    Linux watches the parent's thread that started this process, so that thread has to live as
    long. Called in a child made by multiprocessing.
    """
    parent = multiprocessing.parent_process()
    if sys.platform != "linux" or parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent.pid:  # it died before the signal was armed
        os._exit(1)


class ChildProcesses:
    """The processes that multiprocessing starts between the making of this object and ``settle``,
    and those below them. Others that are started later are somebody else's."""

    def __init__(self) -> None:
        self._before = {child.pid for child in multiprocessing.active_children()}
        self._ours: set[int | None] | None = None
        self._seen: dict[Any, None] = {}

    def settle(self) -> None:
        """All are started: what multiprocessing starts from now on is not ours."""
        self.look()
        self._ours = {child.pid for child in self._children()}

    def look(self) -> None:
        """Note the processes that are alive, so that later they can be waited for."""
        import psutil

        for child in self._children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(child.pid)
                self._seen |= dict.fromkeys([process, *process.children(recursive=True)])

    def kill(self) -> None:
        """Kill the direct children; those below them end by themselves."""
        self.look()
        for child in self._children():
            child.kill()

    def wait_until_gone(self, patience_s: float = 10) -> None:
        """Wait for every process noted so far, and kill those that outlast the patience."""
        import psutil

        _, alive = psutil.wait_procs(self._seen, timeout=patience_s)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=patience_s)
        self._children()  # reaps

    def _children(self) -> Iterable[Any]:
        children = multiprocessing.active_children()
        if self._ours is not None:
            return [one for one in children if one.pid in self._ours]
        return [one for one in children if one.pid not in self._before]
