"""A process that has vLLM imported, from which the engines of this process are forked.

Importing vLLM takes as long as everything else at the start of an engine together. This process
and the engine's core both need it. So a fork server (``multiprocessing.forkserver``) begins to
import it before this process does, on another CPU; the core is then a fork of it and imports
nothing, and neither does that of any later engine (an adapter that is swapped in on a CPU).

For CPUs only: a process that has touched CUDA cannot be forked. The server has a single thread
when it forks (``worker.engine.preload`` makes sure), and it ends with this process, kill -9
included.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

_PRELOAD = "worker.engine.preload"
PARENT = "FILING_CLERK_FORK_SERVER_PARENT"
MODULES = "FILING_CLERK_FORK_SERVER_MODULES"
"""The variables that tell the server which process it has to end with and what to import."""

# What a process reads when it starts or imports torch: a server with others is of no use.
_READ_AT_START = (
    "LD_PRELOAD",
    "OMP_NUM_THREADS",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "GOMP_CPU_AFFINITY",
    "GOMP_SPINCOUNT",
    "KMP_AFFINITY",
    "OPENBLAS_NUM_THREADS",
    "TORCH_COMPILE_DISABLE",
)

_lock = threading.Lock()
_started_with: dict[str, str | None] | None = None
_FOREVER = threading.Event()


_OPTIONAL = ("sklearn", "scipy", "pandas")
"""transformers imports these where they are installed, for assisted generation and the losses of
object detection: not in an image of the worker, but next to the trainer. One of them starts a
thread, and a process with two threads must not be forked (``fit_to_fork``)."""


def start(environment: Mapping[str, str], modules: Sequence[str] = ()) -> bool:
    """Have a fork server with these variables, over this process's own; return at once.

    Returns False, and does nothing, when the one that runs was started with others. ``modules``
    are imported in it, unless one runs already.
    """
    global _started_with  # noqa: PLW0603 - one server a process, as in multiprocessing
    with _lock:
        wanted = _essence(environment)
        if _started_with is None:
            told = {PARENT: str(os.getpid()), MODULES: ",".join(modules)}
            _start_in_own_thread({**environment, **told})
            _started_with = wanted
        return _started_with == wanted


def context(environment: Mapping[str, str], modules: Sequence[str] = ()) -> BaseContext | None:
    """Return how to start processes as forks of the server, or None where that cannot be.

    Waits until the server has imported everything; see ``start`` for ``modules``.
    """
    if not start(environment, modules):
        return None
    found = multiprocessing.get_context("forkserver")
    with variables(environment):  # multiprocessing starts a server again when its own has died
        probe = found.Process(target=_end_well_if_fit_to_fork, daemon=True)
        try:
            probe.start()
        except (OSError, EOFError):
            return None
    probe.join()
    return found if probe.exitcode == 0 else None


@contextlib.contextmanager
def variables(environment: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in this process's environment, for those that it starts meanwhile."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _essence(environment: Mapping[str, str]) -> dict[str, str | None]:
    return {name: environment.get(name, os.environ.get(name)) for name in _READ_AT_START}


def _start_in_own_thread(environment: Mapping[str, str]) -> None:
    # In this thread: Python's resource tracker unblocks SIGINT in the one that starts it.
    resource_tracker.ensure_running()
    started = threading.Event()

    def start_and_stay() -> None:
        # The server and its forks inherit this mask. A Ctrl-C at the terminal is for the worker,
        # which decides when its engine stops.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with variables(environment):
                multiprocessing.set_forkserver_preload([_PRELOAD])
                forkserver.ensure_running()
        finally:
            started.set()
        # The kernel tells the server of the death of this thread, not of the process.
        _FOREVER.wait()

    threading.Thread(target=start_and_stay, name="fork-server", daemon=True).start()
    started.wait()


def _end_well_if_fit_to_fork() -> None:
    from worker.engine.preload import fit_to_fork

    if not fit_to_fork():
        raise SystemExit(1)


@contextmanager
def without_optional_libraries() -> Iterator[None]:
    """Have them look as if they were not installed; what is imported already stays.

    ``None`` in ``sys.modules`` is Python's own way to say so (docs of ``sys.modules``), to
    ``import`` as to ``importlib.util.find_spec``.
    """
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, ...) is None:
                del sys.modules[name]
