"""What vLLM is started with: this project's defaults, the adapter's needs and the user's wishes.

Pure: it needs no vLLM, so that a wrong setting is told before anything heavy is loaded.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.contract import Manifest
from worker.engine.environment import computing_cpus
from worker.errors import SettingsError

_OURS = {
    "model": "the base model and the serving mode decide it",
    "tokenizer": "the base model decides it",
    "enable_lora": "the serving mode decides it",
    "max_lora_rank": "the adapter decides it",
    "logprobs_mode": "scores are read as raw log-probabilities",
    "enable_log_requests": "messages are never logged",
    "runner": "an answer is generated tokens",
    "convert": "an answer is generated tokens",
}

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes as ``max_lora_rank``."""

_RANKS = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""The arguments whose product is the number of processes that the model is spread over."""

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}

GIB = 1 << 30

SCORED_AT_ONCE = 128
"""As many tokens as vLLM scores in one request (its ``MAX_LOGPROB_TOKEN_IDS``)."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What to serve. ``model`` is the base, or the base with the adapter folded in.

    ``adapter`` is the directory of a LoRA adapter to apply while serving (``runtime``), or None
    where ``model`` holds it already (``merged``). ``beside`` are adapters that will be loaded
    beside it, and have to fit. ``max_adapters`` is how many may be applied at the same time,
    ``max_loaded`` how many are kept in memory at least, and ``priorities`` that some prompts give
    way to others. ``engine_args`` are fields of vLLM's ``AsyncEngineArgs``; they win over the
    defaults made here.
    """

    model: Path
    manifest: Manifest
    adapter: Path | None = None
    beside: tuple[Manifest, ...] = ()
    max_adapters: int = 1
    max_loaded: int = 1
    priorities: bool = False
    engine_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All adapters that it is known to serve."""
        return self.manifest, *self.beside


def answer_tokens(manifest: Manifest) -> int:
    """The most tokens an answer takes: one for a code; for words, a token a byte and an end."""
    if manifest.decoding == "code":
        return 1
    return max(len(name.encode("utf-8")) for name in manifest.taxonomy.names) + 1


def cpu_dtype(model: Path, capability: str) -> str:
    """Return what a CPU computes in: bfloat16, but for a small model on a processor that has AVX2
    alone (``capability`` is PyTorch's name for its vectors).

    There vLLM's bfloat16 products are widened one by one: a 135M base labelled 3 messages a second
    in bfloat16 and 11 in float32, and was ready after 57 and 30 s (two cores of an AMD EPYC). A
    large one stays as it is: twice the memory is not ours to take.
    """
    size = sum(each.stat().st_size for each in model.glob("*.safetensors"))
    return "float32" if capability == "AVX2" and size <= GIB else "bfloat16"


def engine_arguments(
    settings: EngineSettings,
    *,
    cpu: bool,
    known: Collection[str],
    environment: Mapping[str, str],
    capability: str = "",
    in_core: str | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments of ``AsyncEngineArgs``.

    ``known`` are the names that this vLLM takes, ``capability`` is a CPU's (``cpu_dtype``),
    ``in_core`` the executor that computes in the core's own process, where there is one. An
    environment variable of vLLM's that says the same as a default wins over it, and
    ``engine_args`` win over both. Raises SettingsError for a key that is unknown or not the user's
    to choose, and for a window too short for the prompt.
    """
    need = max(each.prompt.max_prompt_tokens + answer_tokens(each) for each in settings.manifests)
    arguments: dict[str, Any] = {
        "model": str(settings.model),
        "max_model_len": need,
        "enable_prefix_caching": True,
        "generation_config": "vllm",
        "skip_tokenizer_init": all(each.decoding != "choice" for each in settings.manifests),
        "disable_log_stats": True,
    }
    if settings.adapter is not None:
        arguments |= _lora_arguments(settings)
    if settings.priorities:
        arguments["scheduling_policy"] = "priority"
    if cpu:
        arguments |= _cpu_arguments(settings.engine_args, environment, in_core)
        arguments["dtype"] = cpu_dtype(settings.model, capability)
    arguments |= _wishes(settings.engine_args, known)
    if not isinstance(arguments["max_model_len"], int) or arguments["max_model_len"] < need:
        raise SettingsError(
            f"engine_args.max_model_len is {arguments['max_model_len']!r}, and the adapter's "
            f"longest prompt with its answer takes {need} tokens: leave it out"
        )
    return arguments


def precision_name(dtype: str, quantization: str | None) -> str:
    """Return ``Engine.precisions``' name of what vLLM computes in. ``dtype`` is PyTorch's name."""
    dtype = dtype.removeprefix("torch.")
    return quantization or _PRECISIONS.get(dtype, dtype)


def ranks(engine_args: Mapping[str, Any]) -> int:
    """Return the number of processes that the user wants the model spread over."""
    wanted = [engine_args.get(name, 1) for name in _RANKS]
    return math.prod(size for size in wanted if isinstance(size, int))


def is_started_as_we_like(engine_args: Mapping[str, Any]) -> bool:
    """Tell whether how the engine's processes start is left to this project, on a CPU.

    With more processes than one, or an executor of the user's choice, it is left to vLLM.
    """
    return ranks(engine_args) == 1 and "distributed_executor_backend" not in engine_args


def runs_eagerly(engine_args: Mapping[str, Any]) -> bool:
    """Tell whether a model on a CPU is not to be compiled: the default, unless the user says so."""
    return bool(engine_args.get("enforce_eager", True))


def kv_cache_bytes(engine_args: Mapping[str, Any], environment: Mapping[str, str]) -> int:
    """Return what an engine on a CPU keeps for keys and values (bytes)."""
    wanted = engine_args.get("kv_cache_memory_bytes")
    if isinstance(wanted, int):
        return wanted
    space = environment.get("VLLM_CPU_KVCACHE_SPACE", "")  # in GiB
    return int(space) * GIB if space.isdecimal() and int(space) else GIB


def _cpu_arguments(
    engine_args: Mapping[str, Any], environment: Mapping[str, str], in_core: str | None
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        # The CPU default of 128 tokens is longer than most support messages: nothing of them
        # would ever be cached. The CPU kernels want a multiple of 32.
        "block_size": 32,
        # Compiling takes minutes to start and gains little at one token an answer.
        "enforce_eager": True,
    }
    if not environment.get("VLLM_CPU_KVCACHE_SPACE"):
        # vLLM would take nine tenths of the machine's memory, as on a GPU of its own.
        arguments["kv_cache_memory_bytes"] = GIB
    ours = is_started_as_we_like(engine_args) and computing_cpus(environment) is not None
    if ours and in_core is not None:
        arguments["distributed_executor_backend"] = in_core
    return arguments


def _lora_arguments(settings: EngineSettings) -> dict[str, Any]:
    """Places for adapters, and what the largest of them needs.

    vLLM takes prompts of ``max_loras`` adapters into a step, and copies another into the place of
    the one that was used longest ago. One that is not among its ``max_cpu_loras`` either it reads
    from the disk again, while nothing else is computed; without a wish they are as many as places.
    """
    places = settings.engine_args.get("max_loras", settings.max_adapters)
    arguments: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": settings.max_adapters,
        "max_lora_rank": _rank(settings.manifests),
    }
    if isinstance(places, int):  # another wish vLLM refuses itself
        arguments["max_cpu_loras"] = max(settings.max_loaded, places)
    return arguments


def _rank(manifests: Sequence[Manifest]) -> int:
    """The smallest rank vLLM can be told that holds the adapters': a larger one costs speed."""
    ranks = [each.lora.rank for each in manifests if each.lora is not None]
    wanted = max(ranks)
    return next((rank for rank in _LORA_RANKS if rank >= wanted), wanted)


def check_own_arguments(engine_args: Mapping[str, Any]) -> None:
    """Raise SettingsError with every argument that is not the user's to set."""
    problems = [
        f"engine_args.{key} cannot be set: {_OURS[key]}" for key in engine_args if key in _OURS
    ]
    if problems:
        raise SettingsError(*problems)


def _wishes(engine_args: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    check_own_arguments(engine_args)
    for key in engine_args:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"engine_args.{key} is nothing this vLLM knows{hint}")
    return dict(engine_args)
