"""A fork server with vLLM imported, from which this process's engine cores are forked.

Importing vLLM takes as long as everything else in an engine's start, and both this process and the
core need it. So a fork server (``multiprocessing.forkserver``) begins the import earlier, on
another CPU. The core is a fork of it and imports nothing, and so is the core of each later engine
(an adapter that is swapped in on a CPU).

For CPUs only: a process that has touched CUDA cannot be forked. The server has a single thread
when it forks (checked by ``worker.engine.preload``), and it ends with this process, also after a
kill -9.
"""

from __future__ import annotations

import contextlib
import gc
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
"""Variables with the id of the process that the server must end with, and the modules to import."""

# Variables that are read when a process starts or imports torch: a server that was started with
# other values cannot be used.
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


# transformers imports these if they are installed, for assisted generation and object detection.
# The worker's images lack them, but an environment with the trainer has them. One of them starts a
# thread, and a process with two threads must not be forked (fit_to_fork).
_OPTIONAL = ("sklearn", "scipy", "pandas")


def start(environment: Mapping[str, str], modules: Sequence[str] = ()) -> bool:
    """Start a fork server that imports ``modules``, with these variables over this process's own;
    return at once. If one runs already, only return whether it has the same variables."""
    global _started_with  # noqa: PLW0603 - multiprocessing has one server per process
    with _lock:
        wanted = _essence(environment)
        if _started_with is None:
            orders = {PARENT: str(os.getpid()), MODULES: ",".join(modules)}
            _start_in_own_thread({**environment, **orders})
            _started_with = wanted
        return _started_with == wanted


def context(environment: Mapping[str, str], modules: Sequence[str] = ()) -> BaseContext | None:
    """Return a multiprocessing context that forks from the server; None if that is impossible.
    Waits until the server has imported everything. For the arguments see ``start``."""
    if not start(environment, modules):
        return None
    found = multiprocessing.get_context("forkserver")
    with variables(environment):  # multiprocessing restarts a server that has died
        # Only a fork can say whether the server may be forked: it inherits the server's state.
        probe = found.Process(target=_exit_zero_if_forkable, daemon=True)
        try:
            probe.start()
        except (OSError, EOFError):
            return None
    probe.join()
    return found if probe.exitcode == 0 else None


@contextlib.contextmanager
def variables(environment: Mapping[str, str]) -> Iterator[None]:
    """Set these variables in this process's environment, for processes that it starts meanwhile."""
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
    # In this thread, because starting Python's resource tracker unblocks SIGINT in its thread.
    resource_tracker.ensure_running()
    started = threading.Event()

    def start_and_stay() -> None:
        # The server and its forks inherit this mask: at Ctrl-C the worker decides when its engine
        # stops.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with variables(environment):
                multiprocessing.set_forkserver_preload([_PRELOAD])
                forkserver.ensure_running()
        finally:
            started.set()
        # The server's death signal is tied to this thread, not to the process, so stay alive.
        _FOREVER.wait()

    threading.Thread(target=start_and_stay, name="fork-server", daemon=True).start()
    started.wait()


def _exit_zero_if_forkable() -> None:
    from worker.engine.preload import fit_to_fork

    if not fit_to_fork():
        raise SystemExit(1)


@contextmanager
def lean_imports() -> Iterator[None]:
    """Hide optional packages from ``import`` and ``importlib.util.find_spec``, and do not collect
    garbage: together a third of the time of importing vLLM. Already imported modules stay."""
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    # None in sys.modules is the documented way to hide a module.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    was_enabled = gc.isenabled()
    # The collector would visit all modules again each time that there are a quarter more.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
        for name in hidden:
            if sys.modules.get(name, ...) is None:
                del sys.modules[name]
