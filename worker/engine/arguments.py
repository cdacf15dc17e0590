"""What vLLM is started with: this project's defaults, the adapter's needs and the user's wishes.

Pure: it needs no vLLM, so that a wrong setting is told before anything heavy is loaded.
"""

from __future__ import annotations

import difflib
import math
import os
import random
from collections.abc import Collection, Mapping
from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.contract import Manifest
from worker.errors import SettingsError

_OURS = {
    "model": "the base model and the serving mode decide it",
    "tokenizer": "the base model decides it",
    "enable_lora": "the serving mode decides it",
    "max_lora_rank": "the adapter decides it",
    "logprobs_mode": "scores are read as raw log-probabilities",
    "enable_log_requests": "messages are never logged",
}

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes as ``max_lora_rank``."""

_GIB = 1 << 30

_MAX_LABELS = 256
"""As many labels as an adapter that comes later may have; it costs nothing until one has them."""

_FEW_CPUS = 8
"""Up to here the engine computes on every CPU. Above, vLLM's own choice stands: one thread a
physical core and one core kept for scheduling, which on a small machine costs half the speed."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What to serve. ``model`` is the base, or the base with the adapter folded in.

    ``adapter`` is the directory of a LoRA adapter to apply while serving (``runtime``), or None
    where ``model`` holds it already (``merged``). ``max_adapters`` is how many may be applied at
    the same time, and ``priorities`` that some prompts give way to others. ``engine_args`` are
    fields of vLLM's ``AsyncEngineArgs``; they win over the defaults made here.
    """

    model: Path
    manifest: Manifest
    adapter: Path | None = None
    max_adapters: int = 1
    priorities: bool = False
    engine_args: Mapping[str, Any] = field(default_factory=dict)


def answer_tokens(manifest: Manifest) -> int:
    """The most tokens an answer takes: one for a code; for words, a token a byte and an end."""
    if manifest.decoding == "code":
        return 1
    return max(len(name.encode("utf-8")) for name in manifest.taxonomy.names) + 1


def engine_arguments(
    settings: EngineSettings, *, cpu: bool, known: Collection[str], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return the keyword arguments of ``AsyncEngineArgs``.

    ``known`` are the names that this vLLM takes. An environment variable of vLLM's that says the
    same as a default wins over it, and ``engine_args`` win over both. Raises SettingsError for a
    key that is unknown or not the user's to choose, and for a window too short for the prompt.
    """
    manifest = settings.manifest
    need = manifest.prompt.max_prompt_tokens + answer_tokens(manifest)
    arguments: dict[str, Any] = {
        "model": str(settings.model),
        "max_model_len": need,
        "enable_prefix_caching": True,
        "generation_config": "vllm",
        "skip_tokenizer_init": manifest.decoding == "code",
        "disable_log_stats": True,
        "max_logprobs": max(20, len(manifest.codes)),
    }
    if settings.adapter is not None:
        arguments |= {
            "enable_lora": True,
            "max_loras": settings.max_adapters,
            "max_lora_rank": _rank(manifest),
        }
    if settings.max_adapters > 1:
        # The next adapter may have more labels.
        arguments["max_logprobs"] = max(_MAX_LABELS, len(manifest.codes))
    if settings.priorities:
        arguments["scheduling_policy"] = "priority"
    if cpu:
        arguments |= _cpu_arguments(environment)
    arguments |= _wishes(settings.engine_args, known)
    if not isinstance(arguments["max_model_len"], int) or arguments["max_model_len"] < need:
        raise SettingsError(
            f"engine_args.max_model_len is {arguments['max_model_len']!r}, and the adapter's "
            f"longest prompt with its answer takes {need} tokens: leave it out"
        )
    return arguments


def engine_environment(
    *, cpu: bool, ranks: int, environment: Mapping[str, str], eager: bool = False
) -> dict[str, str]:
    """Return the variables to set before vLLM is imported and started.

    None that ``environment`` has is among them, but for what keeps the worker off the network
    and its processes sound. ``ranks`` is the number of processes the model is spread over,
    ``eager`` that it is not to be compiled.
    """
    wanted = {
        # On a CPU its warnings are a page long at each start, and ask for nothing.
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",  # in the engine's processes; this one has read it already
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    always = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # A fork of a process with threads may hang, and vLLM's default on a GPU is to fork.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if cpu:
        wanted |= _cpu_threads(ranks)
        if eager:
            # vLLM compiles a few helpers also when told to run eagerly, and stops where there is
            # no C++ compiler, as on most machines that only run things.
            wanted["TORCH_COMPILE_DISABLE"] = "1"
        always |= _allocator(environment.get("LD_PRELOAD", ""))
    return {name: value for name, value in wanted.items() if name not in environment} | always


def _cpu_arguments(environment: Mapping[str, str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        # The CPU default of 128 tokens is longer than most support messages: nothing of them
        # would ever be cached. The CPU kernels want a multiple of 32.
        "block_size": 32,
        # Compiling takes minutes to start and gains little at one token an answer.
        "enforce_eager": True,
        "dtype": "bfloat16",
    }
    if not environment.get("VLLM_CPU_KVCACHE_SPACE"):
        # vLLM would take nine tenths of the machine's memory, as on a GPU of its own.
        arguments["kv_cache_memory_bytes"] = _GIB
    return arguments


def _cpu_threads(ranks: int) -> dict[str, str]:
    """Pin the compute threads, unless others decide better: vLLM, or a container's CPU quota."""
    allowed = sorted(os.sched_getaffinity(0))
    quota = _cpu_quota()
    if ranks == 1 and quota is not None and quota < len(allowed):
        # All pods of a node see all its CPUs: pinned to the first ones, they would share those.
        # Not pinned at all, they were two to four times slower wherever others compute too.
        allowed = random.sample(allowed, max(1, math.floor(quota)))
        return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(allowed)))}
    if ranks > 1 or len(allowed) > _FEW_CPUS:
        return {}
    return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, allowed))}


def _allocator(preloaded: str) -> dict[str, str]:
    """Preload tcmalloc where it is installed: a fifth less CPU time a message."""
    if "tcmalloc" in preloaded:
        return {}
    found = find_library("tcmalloc_minimal") or find_library("tcmalloc")
    return {"LD_PRELOAD": ":".join(filter(None, (found, preloaded)))} if found else {}


def _cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs that the container may use (cgroup v2 or v1), or None where nothing limits it."""
    for quota, period in (
        ("cpu.max", None),
        ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
    ):
        try:
            words = (root / quota).read_text().split()
            if period:
                words += (root / period).read_text().split()
        except OSError:
            continue
        if words[0] not in {"max", "-1"}:
            return int(words[0]) / int(words[1])
    return None


def _rank(manifest: Manifest) -> int:
    """The smallest rank vLLM can be told that holds the adapter's: a larger one costs speed."""
    return next((rank for rank in _LORA_RANKS if rank >= manifest.lora.rank), manifest.lora.rank)


def _wishes(engine_args: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    for key in engine_args:
        if key in _OURS:
            raise SettingsError(f"engine_args.{key} cannot be set: {_OURS[key]}")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"engine_args.{key} is nothing this vLLM knows{hint}")
    return dict(engine_args)
