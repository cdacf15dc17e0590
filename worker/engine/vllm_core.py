"""vLLM's processes: how they are started, the first that they do, and what they leave open.

The only file that names what vLLM does not publish. Where this vLLM has other names, it starts and
ends its processes by itself: slower, and a core that is orphaned by kill -9 ends a little later.
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
from worker.engine.arguments import is_started_as_we_like
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
"""What a core imports when it starts. One that another vLLM lacks is passed over."""

_IN_ITS_CORE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""vLLM's executor that computes in the process of the engine's core.

On a CPU vLLM turns the short name ``uni`` into a process of its own, because OpenMP has to find
its variables when a process starts. Here the core itself starts with them
(``computing_environment``), which saves an import of everything and a queue between two
processes that wait by spinning."""

_log = structlog.get_logger("worker.engine")


def executor_in_core() -> str | None:
    """Return the name of vLLM's executor that computes in the core's process, None where this vLLM
    has none of that name: it then computes in a process of its own. Imports it."""
    module, _, name = _IN_ITS_CORE.rpartition(".")
    try:
        return _IN_ITS_CORE if hasattr(importlib.import_module(module), name) else None
    except ImportError:
        return None


@contextmanager
def starting_processes(engine_args: Mapping[str, Any]) -> Iterator[None]:
    """Have vLLM start its core as this project wants it, for as long as the context lasts.

    On a CPU, unless ``engine_args`` want it otherwise, it is a fork of the server; else it is
    spawned, as vLLM itself does. vLLM has no hook that runs in the core's process before anything
    can go wrong there, and its setting for how processes start knows no fork server.
    """
    from vllm.platforms import current_platform

    with ExitStack() as stack:
        environment: Mapping[str, str] = {}
        ours = current_platform.is_cpu() and is_started_as_we_like(engine_args)
        if ours:
            environment = computing_environment(os.environ)
            stack.enter_context(fork_server.variables(environment))  # where it is spawned
        try:
            from vllm.v1.engine import utils
            from vllm.v1.engine.core import EngineCoreProc

            _ = utils.get_mp_context, EngineCoreProc.run_engine_core
        except (ImportError, AttributeError) as error:
            _log.warning("engine.started_by_vllm", why=f"this vLLM has other names: {error}")
            yield
            return
        if ours and (context := fork_server.context(environment, CORE_MODULES)):
            stack.enter_context(_replaced(utils, "get_mp_context", lambda: context))
        core = partial(run_engine_core, {**os.environ, **environment})
        stack.enter_context(_replaced(EngineCoreProc, "run_engine_core", core))
        yield


def run_engine_core(environment: Mapping[str, str], *args: Any, **kwargs: Any) -> None:
    """Run vLLM's engine core in this process, with what vLLM has set in its parent's environment.

    A fork of the server has those of the server until then.
    """
    die_with_parent()
    # Only what differs: in a process whose environment has moved, no title can be set.
    os.environ.update(dict(environment.items() - os.environ.items()))
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor import multiproc_executor

    # Its own watch over the core's death is not heard while it waits for the core's queue.
    if hasattr(multiproc_executor, "WorkerProc"):
        multiproc_executor.WorkerProc.worker_main = run_engine_worker
    EngineCoreProc.run_engine_core(*args, **kwargs)


def run_engine_worker(*args: Any, **kwargs: Any) -> None:
    """Run a worker of vLLM's engine core in this process."""
    die_with_parent()
    from vllm.v1.executor.multiproc_executor import WorkerProc

    WorkerProc.worker_main(*args, **kwargs)


def client_context(llm: Any) -> Any:
    """Return the ZeroMQ context that vLLM's client opens and leaves to the collector, None where
    this vLLM keeps it elsewhere."""
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
