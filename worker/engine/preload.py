"""The fork server's preload module: importing it turns the process into the server, so nothing
else may import it. See ``worker.engine.fork_server``."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from pathlib import Path

from worker.engine.fork_server import MODULES, PARENT, lean_imports
from worker.engine.processes import be_parent_of_forks, die_with

_threads = 0


def fit_to_fork() -> bool:
    """Whether the process had a single thread after all imports."""
    return _threads == 1


def _preload() -> int:
    parent = int(os.environ[PARENT])
    die_with(parent)
    # First, because setproctitle fails, also in forks, once the environment block has moved.
    with contextlib.suppress(ImportError):
        import setproctitle

        setproctitle.setproctitle("clerk-worker: fork server of engines")
    be_parent_of_forks()
    # Undo OpenMP's binding of this thread to one CPU: imports would wait for that CPU.
    os.sched_setaffinity(0, os.sched_getaffinity(parent))
    # Drop vLLM's log lines from before it configures its logging.
    logging.getLogger("vllm").addHandler(logging.NullHandler())
    with lean_imports():
        for name in filter(None, os.environ[MODULES].split(",")):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    return len(list(Path("/proc/self/task").iterdir()))


_threads = _preload()
