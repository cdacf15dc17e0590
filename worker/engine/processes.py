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

from worker.engine.memory import held_memory

_PR_SET_PDEATHSIG = 1

_fork_parent: int | None = None


def be_parent_of_forks() -> None:
    """Say that processes of multiprocessing's are from now on forks of this one.

    To multiprocessing the parent of a fork server's child is the process that asked for it; to
    the kernel it is the server.
    """
    global _fork_parent  # noqa: PLW0603 - inherited by the forks
    _fork_parent = os.getpid()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, by kill -9 too (on Linux).

    Linux watches the parent's thread that started this process, so that thread has to live as
    long. Called in a child made by multiprocessing.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        die_with(_fork_parent or parent.pid)


def die_with(parent: int | None) -> None:
    """Have the kernel kill this process when ``parent`` dies, which the kernel has as its parent.

    See ``die_with_parent``; for a process that multiprocessing did not make.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the signal was armed
        os._exit(1)


class ChildProcesses:
    """The processes that multiprocessing starts between the making of this object and ``freeze``,
    and those below them. Others that are started later are somebody else's."""

    def __init__(self) -> None:
        self._before = {child.pid for child in multiprocessing.active_children()}
        self._started: list[Any] | None = None
        self._seen: dict[Any, None] = {}

    def freeze(self) -> None:
        """All are started: what multiprocessing starts from now on is not ours."""
        self.note_alive()
        self._started = list(self._children())

    def killed_by(self) -> int | None:
        """Return the number of the signal that ended one of those that ``freeze`` saw; None where
        none was ended by one."""
        codes = [child.exitcode for child in self._started or ()]
        return next((-code for code in codes if code is not None and code < 0), None)

    def note_alive(self) -> None:
        """Note the processes that are alive, so that later they can be waited for."""
        import psutil

        for child in self._children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(child.pid)
                self._seen |= dict.fromkeys([process, *process.children(recursive=True)])

    def memory_bytes(self) -> int:
        """Return what they hold in memory (``held_memory``)."""
        self.note_alive()
        return held_memory(process.pid for process in self._seen)

    def kill(self) -> None:
        """Kill the direct children; those below them end by themselves."""
        self.note_alive()
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
        if self._started is not None:
            return [one for one in children if one in self._started]
        return [one for one in children if one.pid not in self._before]
