"""vLLM's arguments: this project's defaults, the adapter's needs, and the user's ``engine_args``.

Does not import vLLM, so that a wrong setting is reported before anything heavy is loaded.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.contract import Manifest, find_branches
from worker.engine.environment import computing_cpus
from worker.errors import SettingsError

_OURS = {
    "model": "it follows from the base model and the serving mode",
    "tokenizer": "it follows from the base model",
    "enable_lora": "it follows from the serving mode",
    "max_lora_rank": "it follows from the adapter",
    "logprobs_mode": "scores are read as raw log-probabilities",
    "enable_log_requests": "messages are never logged",
    "runner": "an answer is generated tokens",
    "convert": "an answer is generated tokens",
}

# The values that vLLM allows for max_lora_rank.
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

# The arguments whose product is the number of processes for the model.
_RANKS = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}

GIB = 1 << 30

SCORED_AT_ONCE = 128
"""The most tokens that vLLM scores in one request (its ``MAX_LOGPROB_TOKEN_IDS``)."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What to serve. ``model`` is the base, or the base with the adapter folded in.

    ``adapter`` is the directory of a LoRA adapter to apply while serving (``runtime``), None if it
    is folded into ``model`` (``merged``). ``expected`` adapters will be loaded later, and must fit.
    ``max_adapters`` is the number applied at the same time, ``max_loaded`` the least number kept in
    memory. ``priorities``: some prompts yield to others. ``engine_args`` are fields of vLLM's
    ``AsyncEngineArgs`` and override the defaults made here.
    """

    model: Path
    manifest: Manifest
    adapter: Path | None = None
    expected: tuple[Manifest, ...] = ()
    max_adapters: int = 1
    max_loaded: int = 1
    priorities: bool = False
    engine_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All adapters that the engine must fit."""
        return self.manifest, *self.expected


def answer_tokens(manifest: Manifest) -> int:
    """The most tokens after a prompt: of codes of several tokens those up to where they differ."""
    branches = find_branches(manifest.codes.values())
    return max((len(branch.path) for branch in branches), default=0) + 1


def cpu_dtype(model: Path, capability: str) -> str:
    """Return the dtype for a CPU: bfloat16, but float32 for a small model if the CPU has only AVX2
    (``capability`` is PyTorch's name for its vector instructions).

    With AVX2 vLLM converts each bfloat16 product: a 135M base labelled 3 messages a second in
    bfloat16 and 11 in float32, and was ready after 57 and 30 s (two cores of an AMD EPYC). Large
    models stay in bfloat16, because float32 takes twice the memory.
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

    ``known`` are the names that this vLLM accepts, ``capability`` is a CPU's (``cpu_dtype``),
    ``in_core`` the executor that computes in the core's process, if there is one. vLLM's
    environment variables override defaults, and ``engine_args`` override both. Raises SettingsError
    for an unknown or reserved key, and for a context too short for the prompt.
    """
    need = max(each.prompt.max_prompt_tokens + answer_tokens(each) for each in settings.manifests)
    arguments: dict[str, Any] = {
        "model": str(settings.model),
        "max_model_len": need,
        # All prompts begin alike, and a cached prefix is not computed again.
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # not the base's, which may set a temperature
        "skip_tokenizer_init": True,  # prompts are token ids, and codes are read by id
        "disable_log_stats": True,
    }
    if settings.adapter is not None:
        arguments |= _lora_arguments(settings)
    if settings.priorities:
        arguments["scheduling_policy"] = "priority"
    if cpu:
        arguments |= _cpu_arguments(settings.engine_args, environment, in_core)
        arguments["dtype"] = cpu_dtype(settings.model, capability)
    elif all(len(code.ids) == 1 for code in settings.manifest.codes.values()):
        # An answer is one token, so nearly every step computes prompts. vLLM captures whole graphs
        # for steps that only decode; without them it starts sooner and takes less memory. By its
        # documents (CompilationConfig.cudagraph_mode), not measured.
        arguments["compilation_config"] = {"cudagraph_mode": "PIECEWISE"}
    arguments |= _wishes(settings.engine_args, known)
    if not isinstance(arguments["max_model_len"], int) or arguments["max_model_len"] < need:
        raise SettingsError(
            f"engine_args.max_model_len is {arguments['max_model_len']!r}, but the adapter's "
            f"longest prompt with its answer takes {need} tokens: remove the setting"
        )
    return arguments


def precision_name(dtype: str, quantization: str | None) -> str:
    """Return the name for ``Engine.precisions``. ``dtype`` is PyTorch's name."""
    dtype = dtype.removeprefix("torch.")
    return quantization or _PRECISIONS.get(dtype, dtype)


def ranks(engine_args: Mapping[str, Any]) -> int:
    """Return the number of processes for the model that ``engine_args`` ask for."""
    wanted = [engine_args.get(name, 1) for name in _RANKS]
    return math.prod(size for size in wanted if isinstance(size, int))


def core_can_be_forked(engine_args: Mapping[str, Any]) -> bool:
    """Whether, on a CPU, the core may be a fork that computes by itself: not with several
    processes or an executor of the user's choice, which vLLM starts itself."""
    return ranks(engine_args) == 1 and "distributed_executor_backend" not in engine_args


def runs_eagerly(engine_args: Mapping[str, Any]) -> bool:
    """Whether a model on a CPU is not compiled, which is the default."""
    return bool(engine_args.get("enforce_eager", True))


def kv_cache_bytes(engine_args: Mapping[str, Any], environment: Mapping[str, str]) -> int:
    """Return the size of the KV cache on a CPU (bytes)."""
    wanted = engine_args.get("kv_cache_memory_bytes")
    if isinstance(wanted, int):
        return wanted
    space = environment.get("VLLM_CPU_KVCACHE_SPACE", "")  # in GiB
    return int(space) * GIB if space.isdecimal() and int(space) else GIB


def _cpu_arguments(
    engine_args: Mapping[str, Any], environment: Mapping[str, str], in_core: str | None
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        # vLLM caches whole blocks. Its CPU default of 128 tokens is longer than most support
        # messages, so little would ever be cached: 12.5 messages a second on two cores, and 30 with
        # 32 tokens. The CPU kernels need a multiple of 32.
        "block_size": 32,
        # Compiling gains little for answers of one token: a 135M base started in 75 s, not in 16.
        "enforce_eager": True,
    }
    if not environment.get("VLLM_CPU_KVCACHE_SPACE"):
        # vLLM would take nine tenths of the machine's memory, as if on a dedicated GPU.
        arguments["kv_cache_memory_bytes"] = GIB
    forked = core_can_be_forked(engine_args) and computing_cpus(environment) is not None
    if forked and in_core is not None:
        arguments["distributed_executor_backend"] = in_core
    return arguments


def _lora_arguments(settings: EngineSettings) -> dict[str, Any]:
    """Return the arguments for the number of adapters and their largest rank.

    vLLM computes prompts of ``max_loras`` adapters in one step, and copies another adapter into the
    least recently used place. An adapter outside of its ``max_cpu_loras`` is read from disk again,
    while nothing else is computed; vLLM's default for that is ``max_loras``.
    """
    places = settings.engine_args.get("max_loras", settings.max_adapters)
    arguments: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": settings.max_adapters,
        "max_lora_rank": _rank(settings.manifests),
    }
    alone = settings.manifest.lora
    if settings.max_adapters == 1 and not settings.expected and alone is not None:
        # Other layers need not be prepared: no other adapter comes.
        arguments["lora_target_modules"] = sorted(alone.target_modules)
    if isinstance(places, int):  # vLLM itself rejects other values
        arguments["max_cpu_loras"] = max(settings.max_loaded, places)
    return arguments


def _rank(manifests: Sequence[Manifest]) -> int:
    """The smallest allowed rank that fits all adapters: a larger one is slower."""
    ranks = [each.lora.rank for each in manifests if each.lora is not None]
    wanted = max(ranks)
    return next((rank for rank in _LORA_RANKS if rank >= wanted), wanted)


def check_own_arguments(engine_args: Mapping[str, Any]) -> None:
    """Raise SettingsError for arguments that this project sets itself."""
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
            raise SettingsError(f"engine_args.{key} is unknown to this version of vLLM{hint}")
    return dict(engine_args)
