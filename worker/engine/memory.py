"""Check whether a second engine fits into memory next to the one that serves.

When a machine or a container runs out of memory, the kernel kills a process, and not always the new
one: loading a second 7B has killed the engine that served. (On a GPU vLLM itself checks: an engine
without enough memory does not start, and running ones are not affected.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.contract import AdapterRefused
from worker.engine.arguments import GIB

# An engine's memory besides weights and KV cache, as a share of the weights, in addition to 1 GiB.
# Measured with a 7B (15.2 GB, two cores, AVX-512): 19.5 GB in all with a KV cache of 0.2 GB, 21.5
# GB with 0.5 GB and eight prompts at a time.
_WORKING = 0.25

# Weights up to this size (bytes) may be converted to float32 (cpu_dtype), twice the size.
_MAY_BE_WIDENED = GIB


class TooLarge(AdapterRefused):
    """There is not enough memory for another engine next to those that serve."""


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """A running engine's own memory, and the size of its weight files (bytes)."""

    held: int
    weights: int


def check_room(adapter: Path, need: int, free: int) -> None:
    """Raise TooLarge if ``need`` bytes are more than ``free``."""
    if need > free:
        raise TooLarge(
            adapter,
            f"another engine for it takes about {need / GIB:.1f} GiB of memory, and "
            f"{free / GIB:.1f} GiB are free: restart the workers one after another, so that they "
            "start with it alone, give them more memory, or set adapters.when_too_large to "
            '"restart"',
        )


def needed_memory(weights: int, kv_cache: int, running: Iterable[EngineMemory] = ()) -> int:
    """Estimate the memory of another engine on a CPU (bytes).

    ``weights`` is the size of its weight files, ``kv_cache`` that of its keys and values. The best
    estimate is a running engine with the same settings and the most similar weights. Folding an
    adapter into its base needs less, and ends before the engine starts.
    """
    nearest = min(running, key=lambda one: abs(one.weights - weights), default=None)
    # An engine that holds less than its weights has mapped them from files, which are not counted.
    if nearest is not None and nearest.held > nearest.weights:
        return nearest.held + max(0, weights - nearest.weights)
    computed = weights * 2 if weights <= _MAY_BE_WIDENED else weights
    return computed + int(_WORKING * computed) + GIB + kv_cache


def weight_bytes(model: Path) -> int:
    """Return the size of a model's weight files (bytes)."""
    return sum(each.stat().st_size for each in model.glob("*.safetensors"))


def held_memory(pids: Iterable[int]) -> int:
    """Return the memory of processes without file pages, which the kernel drops when it needs
    memory (bytes). Processes that are gone count as 0."""
    held = 0
    for pid in pids:
        lines = _lines(Path("/proc") / str(pid) / "status")
        held += sum(lines.get(name, 0) for name in ("RssAnon:", "RssShmem:")) * 1024
    return held


def free_memory(root: Path = Path("/")) -> int:
    """Return how many bytes this process and its children can still allocate: the lesser of the
    machine's free memory and what cgroup limits leave (v2 or v1). File pages count as free."""
    left = [_lines(root / "proc" / "meminfo").get("MemAvailable:", 0) * 1024]
    for folder in _cgroups(root):
        for limit, usage, caches in (
            ("memory.max", "memory.current", ("inactive_file", "active_file")),
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ("total_inactive_file", "total_active_file"),
            ),
        ):
            most, used = _number(folder / limit), _number(folder / usage)
            if most is not None and used is not None:
                stat = _lines(folder / "memory.stat")
                left.append(most - used + sum(stat.get(name, 0) for name in caches))
    return max(0, min(left))


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's memory cgroup and its ancestors. In a container the
    process's own cgroup is usually mounted as the root, whatever its name outside."""
    mounted = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = mounted / "memory" if controllers else mounted
        folder = top / name.lstrip("/")
        yield top
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None  # "max": no limit


def _lines(path: Path) -> dict[str, int]:
    """Parse lines of a name and a number."""
    words = (line.split() for line in _text(path).splitlines())
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # another cgroup version, or a process that is gone
        return ""
