"""Settings of a worker on a CPU that fit the available memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from worker.engine.memory import free_memory, needed_memory, weight_bytes

_GIB = 1 << 30

_BY_DEFAULT = 1.2
"""With vLLM's default of tokens a batch and 1 GiB of keys and values, a 7B was killed at 23 GB,
where all but its batches takes 21: batches take another tenth or more."""

_SMALL_KV_CACHE = 200_000_000
_SMALL = (
    "model.engine_args={max_num_batched_tokens=1024,"
    f"kv_cache_memory_bytes={_SMALL_KV_CACHE},max_num_seqs=2}}"
)
"""A 7B served 51 messages in 19.5 GB with these (two cores, AVX-512)."""


class TooLittleMemory(RuntimeError):
    """No settings fit the base into memory."""


def fitting_settings(weights: int, free: int, given: Sequence[str]) -> list[str]:
    """Settings to add to ``given``, which take precedence: none if the defaults fit into
    ``free`` bytes, else the smallest that were tried. Raises TooLittleMemory."""
    if any(one.startswith("model.engine_args") for one in given):
        return []
    if needed_memory(weights, _GIB) * _BY_DEFAULT <= free:
        return []
    need = needed_memory(weights, _SMALL_KV_CACHE)
    if need > free:
        raise TooLittleMemory(
            f"a base of {weights / _GIB:.1f} GiB takes about {need / _GIB:.1f} GiB with the "
            f"smallest settings that were tried, and {free / _GIB:.1f} GiB are free: --shape "
            f"small, or a machine with more; to try anyway: --set '{_SMALL}'"
        )
    return [_SMALL]


def settings_for(base: Path, given: Sequence[str]) -> list[str]:
    """``fitting_settings`` for a base on this machine."""
    return fitting_settings(weight_bytes(base), free_memory(), given)
