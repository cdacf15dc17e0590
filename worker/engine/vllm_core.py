"""Start vLLM's processes as forks, let them die with the worker, and find what they leave open.

The only file that uses private names of vLLM. If a version of vLLM lacks one, vLLM starts and ends
its processes itself: that is slower, and after a kill -9 of the worker the core ends later.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import structlog

from worker.engine import fork_server
from worker.engine.arguments import core_can_be_forked
from worker.engine.environment import computing_environment
from worker.engine.processes import die_with_parent

CORE_MODULES = (
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.utils.cpu_triton_utils",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.models.llama",
)
"""Modules that a core imports when it starts; missing ones are skipped."""

# vLLM's executor that computes in the process of the engine's core. On a CPU vLLM replaces the
# short name uni by a separate process, because OpenMP reads its variables when a process starts.
# Here the core starts with those variables (computing_environment). That saves importing everything
# twice, and a queue on which two processes wait by spinning.
_IN_ITS_CORE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"

_log = structlog.get_logger("worker.engine")


def executor_in_core() -> str | None:
    """Return the name of vLLM's executor that computes in the core's process. None if this vLLM has
    none of that name; it then computes in a separate process. Imports it."""
    module, _, name = _IN_ITS_CORE.rpartition(".")
    try:
        return _IN_ITS_CORE if hasattr(importlib.import_module(module), name) else None
    except ImportError:
        return None


@contextmanager
def starting_processes(engine_args: Mapping[str, Any]) -> Iterator[None]:
    """Within the context, vLLM starts its core through ``run_engine_core``: on a CPU as a fork of
    the server (unless ``engine_args`` choose an executor), otherwise spawned.

    It patches vLLM because there is no hook that runs in the core's process before anything can
    fail there, and because vLLM's setting for the start method does not allow a fork server.
    """
    from vllm.platforms import current_platform

    with ExitStack() as stack:
        environment: Mapping[str, str] = {}
        forked = current_platform.is_cpu() and core_can_be_forked(engine_args)
        if forked:
            environment = computing_environment(os.environ)
            stack.enter_context(fork_server.variables(environment))  # in case it is spawned
        try:
            from vllm.v1.engine import utils
            from vllm.v1.engine.core import EngineCoreProc

            _ = utils.get_mp_context, EngineCoreProc.run_engine_core
        except (ImportError, AttributeError) as error:
            _log.warning("engine.started_by_vllm", why=f"vLLM lacks a private name: {error}")
            yield
            return
        if forked and (context := fork_server.context(environment, CORE_MODULES)):
            stack.enter_context(_replaced(utils, "get_mp_context", lambda: context))
        core = partial(run_engine_core, {**os.environ, **environment})
        stack.enter_context(_replaced(EngineCoreProc, "run_engine_core", core))
        yield


def run_engine_core(environment: Mapping[str, str], *args: Any, **kwargs: Any) -> None:
    """Run vLLM's engine core in this process. ``environment`` is the parent's: a fork of the server
    has the server's variables instead."""
    die_with_parent()
    # Update only what differs: setproctitle fails once the environment block has moved.
    os.environ.update(dict(environment.items() - os.environ.items()))
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor import multiproc_executor

    # vLLM's workers do not notice the core's death while they wait on its queue.
    if hasattr(multiproc_executor, "WorkerProc"):
        multiproc_executor.WorkerProc.worker_main = run_engine_worker
    EngineCoreProc.run_engine_core(*args, **kwargs)


def run_engine_worker(*args: Any, **kwargs: Any) -> None:
    """Run a worker of vLLM's engine core in this process."""
    die_with_parent()
    from vllm.v1.executor.multiproc_executor import WorkerProc

    WorkerProc.worker_main(*args, **kwargs)


def client_context(llm: Any) -> Any:
    """Return the ZeroMQ context that vLLM's client opens and does not close; None if this vLLM
    keeps it elsewhere."""
    resources = getattr(llm.engine_core, "resources", None)
    return getattr(resources, "ctx", None)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
