"""A second engine that does not fit is refused before it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_adapter import toy_manifest
from worker.contract import Manifest
from worker.engine import open as opening
from worker.engine.arguments import GIB, EngineSettings
from worker.engine.memory import (
    EngineMemory,
    TooLarge,
    free_memory,
    needed_memory,
)
from worker.engine.open import VllmLoader

WEIGHTS = 15_200_000_000
"""Those of a 7B in bfloat16, which held 19.5 GB in all."""
HELD = 19_500_000_000


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def machine(root: Path, available: int, cgroup: str = "0::/\n") -> None:
    put(root / "proc/meminfo", f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n")
    put(root / "proc/self/cgroup", cgroup)


def limit_v2(folder: Path, most: str, used: int, inactive: int = 0, active: int = 0) -> None:
    put(folder / "memory.max", f"{most}\n")
    put(folder / "memory.current", f"{used}\n")
    put(folder / "memory.stat", f"anon 5\ninactive_file {inactive}\nactive_file {active}\n")


def test_a_containers_limit_holds_and_pages_of_files_count_as_free(tmp_path: Path) -> None:
    machine(tmp_path, 100 * GIB)
    limit_v2(tmp_path / "sys/fs/cgroup", str(24 * GIB), 22 * GIB, 3 * GIB, 1 * GIB)
    assert free_memory(tmp_path) == 6 * GIB


def test_the_tightest_of_all_cgroups_above_counts(tmp_path: Path) -> None:
    machine(tmp_path, 100 * GIB, "0::/pods/pod1/worker\n")
    top = tmp_path / "sys/fs/cgroup"
    limit_v2(top / "pods/pod1", str(10 * GIB), 8 * GIB)
    limit_v2(top / "pods/pod1/worker", str(9 * GIB), 1 * GIB)
    assert free_memory(tmp_path) == 2 * GIB
    limit_v2(top / "pods/pod1", str(10 * GIB), 11 * GIB)
    assert free_memory(tmp_path) == 0


def test_the_older_kind_of_cgroup_is_read_too(tmp_path: Path) -> None:
    machine(tmp_path, 50 * GIB, "9:name=systemd:/\n4:memory:/docker/abc\n1:cpu,cpuacct:/\n0::/\n")
    memory = tmp_path / "sys/fs/cgroup/memory"
    put(memory / "memory.limit_in_bytes", "9223372036854771712\n")
    put(memory / "memory.usage_in_bytes", f"{30 * GIB}\n")
    assert free_memory(tmp_path) == 50 * GIB
    put(memory / "docker/abc/memory.limit_in_bytes", f"{8 * GIB}\n")
    put(memory / "docker/abc/memory.usage_in_bytes", f"{7 * GIB}\n")
    put(memory / "docker/abc/memory.stat", f"total_inactive_file {2 * GIB}\ninactive_file 1\n")
    assert free_memory(tmp_path) == 3 * GIB


def test_an_engine_that_runs_is_the_best_estimate() -> None:
    running = [EngineMemory(HELD, WEIGHTS), EngineMemory(2 * GIB, GIB)]
    assert needed_memory(WEIGHTS, GIB, running) == HELD
    assert needed_memory(WEIGHTS + GIB, GIB, running) == HELD + GIB
    assert needed_memory(GIB, GIB, running) == 2 * GIB


def test_without_one_the_estimate_is_near_what_was_measured() -> None:
    """A 7B held 19.5 GB with a KV cache of 0.2 GB, and 21.5 GB with 0.5 GB."""
    assert needed_memory(WEIGHTS, 200_000_000) == pytest.approx(19.5e9, rel=0.07)
    assert needed_memory(WEIGHTS, 536_870_912) == pytest.approx(21.5e9, rel=0.07)
    assert needed_memory(WEIGHTS, GIB, [EngineMemory(GIB, WEIGHTS)]) > WEIGHTS


class Base:
    """Finds one base for everything, of so many bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "base"
        self.folder.mkdir()
        with (self.folder / "model.safetensors").open("wb") as file:
            file.truncate(WEIGHTS)  # a hole: it takes no room on the disk

    def find(self, _adapter: Path, _manifest: Manifest) -> Path:
        return self.folder


class Running:
    """An engine of vLLM that runs and holds what a 7B held."""

    def __init__(self, settings: EngineSettings, started: list[Any]) -> None:
        self.settings = settings
        self.is_open = True
        self.first = self
        self.memory = EngineMemory(HELD, WEIGHTS)
        started.append(self)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The engines that were started."""
    found: list[Any] = []

    def merged_base(base: Path, *_: Any) -> Path:
        found.append("merged")
        return base

    for name, stand_in in (
        ("require_vllm", lambda: None),
        ("vllm_runs_on_cpu", lambda: True),
        ("VllmEngine", lambda settings: Running(settings, found)),
        ("merged_base", merged_base),
    ):
        monkeypatch.setattr(opening, name, stand_in)
    return found


def make_loader(folder: Path, **more: Any) -> VllmLoader:
    return VllmLoader(Base(folder), folder, **more)  # type: ignore[arg-type]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the free memory."""
    return lambda free: monkeypatch.setattr(opening, "free_memory", lambda: free)


@pytest.mark.parametrize("serving", ["merged", "runtime"])
def test_a_second_7b_that_does_not_fit_is_refused_and_nothing_is_loaded(
    tmp_path: Path, started: list[Any], left: Callable[[int], None], serving: Any
) -> None:
    left(4 * GIB)
    first = make_loader(tmp_path, serving=serving)
    first.load(tmp_path, toy_manifest())
    engines: list[Any] = [each for each in started if isinstance(each, Running)]
    started.clear()
    first.hosts.clear()
    later = replace(first, must_fit=True)
    with pytest.raises(TooLarge, match=r"takes about 18\.2 GiB of memory, and 4\.0 GiB are free"):
        later.load(tmp_path, toy_manifest(name="two"))
    assert started == []
    assert [*later.started] == engines


def test_one_that_fits_is_started(
    tmp_path: Path, started: list[Any], left: Callable[[int], None]
) -> None:
    left(20 * GIB)
    loader = make_loader(tmp_path, serving="merged", must_fit=True)
    loader.load(tmp_path, toy_manifest())
    assert len(loader.started) == 1
    loader.started[0].is_open = False  # type: ignore[misc]
    loader.load(tmp_path, toy_manifest())
    assert len(loader.started) == 1
    assert sum(isinstance(each, Running) for each in started) == 2


def test_an_engine_that_is_just_being_loaded_has_its_memory_already(
    tmp_path: Path,
    started: list[Any],
    left: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A canary and a new main adapter may be loaded at the same time."""
    left(30 * GIB)
    loader = make_loader(tmp_path, serving="merged", must_fit=True)

    def start(settings: EngineSettings) -> Running:
        with pytest.raises(TooLarge, match=r"takes about 19\.7 GiB .*, and 10\.3 GiB are free"):
            loader.load(tmp_path, toy_manifest(name="another"))
        return Running(settings, started)

    monkeypatch.setattr(opening, "VllmEngine", start)
    loader.load(tmp_path, toy_manifest())
    assert loader.loading == []


def test_on_a_gpu_vllm_checks_the_memory(
    tmp_path: Path,
    started: list[Any],
    left: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left(0)
    monkeypatch.setattr(opening, "vllm_runs_on_cpu", lambda: False)
    make_loader(tmp_path, serving="merged", must_fit=True).load(tmp_path, toy_manifest())
    assert len(started) == 2
