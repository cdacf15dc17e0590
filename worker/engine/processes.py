"""The engine's processes as seen from the worker: they end with it, however it ends."""

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
    """Record in the fork server that later forks are its children.

    For the kernel a fork's parent is the server; for multiprocessing it is the process that asked
    for the fork, so ``parent_process()`` does not help.
    """
    global _fork_parent  # noqa: PLW0603 - inherited by the forks
    _fork_parent = os.getpid()


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, also by kill -9 (on Linux).

    Call it in a child made by multiprocessing. Linux watches the parent's *thread* that started
    this process, so that thread must live as long.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        die_with(_fork_parent or parent.pid)


def die_with(parent: int | None) -> None:
    """Like ``die_with_parent``, with the process id that the kernel has as the parent."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before prctl was called
        os._exit(1)


class ChildProcesses:
    """The processes that multiprocessing starts between the constructor and ``freeze``, and their
    descendants. Later ones belong to other engines."""

    def __init__(self) -> None:
        self._before = {child.pid for child in multiprocessing.active_children()}
        self._started: list[Any] | None = None
        self._seen: dict[Any, None] = {}

    def freeze(self) -> None:
        """Note that all processes have been started."""
        self.note_alive()
        self._started = list(self._children())

    def killed_by(self) -> int | None:
        """Return the number of the signal that killed one of the direct children, or None."""
        codes = [child.exitcode for child in self._started or ()]
        return next((-code for code in codes if code is not None and code < 0), None)

    def note_alive(self) -> None:
        """Note the living processes, so that they can be waited for later."""
        import psutil

        for child in self._children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(child.pid)
                self._seen |= dict.fromkeys([process, *process.children(recursive=True)])

    def memory_bytes(self) -> int:
        """Return their memory in bytes (``held_memory``)."""
        self.note_alive()
        return held_memory(process.pid for process in self._seen)

    def kill(self) -> None:
        """Kill the direct children; their descendants then end by themselves."""
        self.note_alive()
        for child in self._children():
            child.kill()

    def wait_until_gone(self) -> None:
        """Wait for every process noted so far; kill those left after 10 s."""
        import psutil

        _, alive = psutil.wait_procs(self._seen, timeout=10)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=10)
        self._children()  # reaps

    def _children(self) -> Iterable[Any]:
        children = multiprocessing.active_children()
        if self._started is not None:
            return [one for one in children if one in self._started]
        return [one for one in children if one.pid not in self._before]
