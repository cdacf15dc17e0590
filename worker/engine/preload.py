"""What the fork server imports, and nothing else does: importing this module makes a server of
the process. See ``worker.engine.fork_server``."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from pathlib import Path

from worker.engine.fork_server import MODULES, PARENT, without_optional_libraries
from worker.engine.processes import be_parent_of_forks, die_with

_threads = 0


def fit_to_fork() -> bool:
    """Tell whether everything was imported by a process with a single thread."""
    return _threads == 1


def _preload() -> int:
    parent = int(os.environ[PARENT])
    die_with(parent)
    # Before anything moves the environment, or no process title can ever be set, in a fork either.
    with contextlib.suppress(ImportError):
        import setproctitle

        setproctitle.setproctitle("clerk-worker: fork server of engines")
    be_parent_of_forks()
    # OpenMP has bound this thread to its first CPU, which would import as fast as that one is free.
    os.sched_setaffinity(0, os.sched_getaffinity(parent))
    # What vLLM says while it is imported, before it has set its logging up, goes nowhere.
    logging.getLogger("vllm").addHandler(logging.NullHandler())
    with without_optional_libraries():
        for name in filter(None, os.environ[MODULES].split(",")):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    return len(list(Path("/proc/self/task").iterdir()))


_threads = _preload()
