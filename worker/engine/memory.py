"""Whether a second engine fits into the memory next to the one that serves.

When a machine or a container runs out of memory the kernel kills a process, and not always the one
that asked for too much: a 7B that was loaded next to another one ended the engine that served. (A
GPU's memory is vLLM's to check: an engine for which there is too little of it does not start, and
those that run are none the worse.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.contract import AdapterRefused
from worker.engine.arguments import GIB

_WORKING = 0.25
"""What an engine holds next to its weights and its keys and values, as a share of the weights, and
1 GiB: a 7B (15.2 GB) held 19.5 GB in all with 0.2 GB of keys and values, and 21.5 GB with 0.5 GB of
them and eight prompts at a time (two cores, AVX-512)."""

_MAY_BE_WIDENED = GIB
"""Weights up to so many bytes may be computed in float32 (``cpu_dtype``), which doubles them."""


class TooLarge(AdapterRefused):
    """There is not enough memory for the engine that an adapter needs next to those that serve."""


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What an engine that runs holds by itself (bytes), and the weights that it was started with
    (bytes of its files)."""

    held: int
    weights: int


def check_room(adapter: Path, need: int, free: int) -> None:
    """Raise TooLarge, with both numbers, where ``need`` bytes are more than ``free``."""
    if need > free:
        raise TooLarge(
            adapter,
            f"its engine, next to the one that serves, takes about {need / GIB:.1f} GiB of memory, "
            f"and {free / GIB:.1f} GiB are left: restart the workers one after another, to start "
            'with it alone, give them more memory, or set adapters.when_too_large = "restart"',
        )


def needed_memory(weights: int, kv_cache: int, running: Iterable[EngineMemory] = ()) -> int:
    """Return about how many bytes another engine takes on a CPU.

    ``weights`` are the bytes of the files that it loads, ``kv_cache`` those of its keys and values.
    An engine that runs by the same settings is the best estimate: the one whose weights are
    nearest. Folding an adapter into a copy of the base takes less, and is over before the engine
    starts.
    """
    nearest = min(running, key=lambda one: abs(one.weights - weights), default=None)
    if nearest is not None and nearest.held > nearest.weights:
        return nearest.held + max(0, weights - nearest.weights)
    computed = weights * 2 if weights <= _MAY_BE_WIDENED else weights
    return computed + int(_WORKING * computed) + GIB + kv_cache


def weight_bytes(model: Path) -> int:
    """Return the size of a model's weight files (bytes)."""
    return sum(each.stat().st_size for each in model.glob("*.safetensors"))


def held_memory(pids: Iterable[int], root: Path = Path("/")) -> int:
    """Return what processes hold that cannot be taken from them (bytes): no page of a file, which
    the kernel drops when it needs the memory. One that is gone holds nothing."""
    held = 0
    for pid in pids:
        lines = _lines(root / "proc" / str(pid) / "status")
        held += sum(lines.get(name, 0) for name in ("RssAnon:", "RssShmem:")) * 1024
    return held


def free_memory(root: Path = Path("/")) -> int:
    """Return how many bytes this process and its children can still take: what the machine has
    left, or what a limit of a cgroup leaves (v2 or v1), whichever is less. Pages of files count as
    free: the kernel drops them."""
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
    """Yield the folders of this process's memory cgroup and of those above it. In a container its
    own is mostly the root of what is mounted, whatever its name is outside."""
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
    return int(text) if text.isdecimal() else None  # "max": nothing limits it


def _lines(path: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    words = (line.split() for line in _text(path).splitlines())
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # no such file here, or a process that is gone
        return ""
