"""vLLM's environment variables and the checks of a GPU's tools, without vLLM."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from worker.engine import environment
from worker.engine.environment import (
    check_driver,
    check_tools,
    computing_environment,
    driver_release,
    engine_environment,
)
from worker.errors import SettingsError

pytestmark = pytest.mark.slow

BIND = "VLLM_CPU_OMP_THREADS_BIND"
GOMP = {"GOMP_CPU_AFFINITY": "0 1", "GOMP_SPINCOUNT": "20000"}


def test_the_users_environment_is_kept_except_for_the_network() -> None:
    theirs = {"VLLM_LOGGING_LEVEL": "DEBUG", "HF_HUB_OFFLINE": "0"}
    ours = engine_environment(cpu=False, ranks=1, environment=theirs)
    assert "VLLM_LOGGING_LEVEL" not in ours
    assert ours["HF_HUB_OFFLINE"] == "1"
    assert ours["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize(
    ("cpus", "quota", "ranks", "expected"),
    [
        ({0, 1}, None, 1, {"VLLM_CPU_OMP_THREADS_BIND": "0,1"}),
        ({4, 5, 6}, 8.0, 1, {"VLLM_CPU_OMP_THREADS_BIND": "4,5,6"}),
        (set(range(64)), None, 1, {}),
        (set(range(4)), None, 2, {}),
    ],
    ids=["few", "quota-above", "many", "ranks"],
)
def test_threads_go_by_the_cpus_a_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
    cpus: set[int],
    quota: float | None,
    ranks: int,
    expected: dict[str, str],
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: cpus)
    monkeypatch.setattr(environment, "_cpu_quota", lambda: quota)
    found = engine_environment(cpu=True, ranks=ranks, environment={})
    threads = {key: one for key, one in found.items() if "OMP" in key}
    assert threads == expected


@pytest.mark.parametrize(("quota", "threads"), [(3.5, 3), (0.5, 1)])
def test_under_a_quota_pods_of_a_node_do_not_pile_up_on_its_first_cpus(
    monkeypatch: pytest.MonkeyPatch, quota: float, threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(environment, "_cpu_quota", lambda: quota)
    seen = set()
    for _ in range(20):
        found = engine_environment(cpu=True, ranks=1, environment={})
        cpus = found["VLLM_CPU_OMP_THREADS_BIND"].split(",")
        assert len(set(cpus)) == threads
        seen.add(tuple(cpus))
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("installed", "preloaded", "expected"),
    [
        ("libtcmalloc_minimal.so.4", "", "libtcmalloc_minimal.so.4"),
        ("libtcmalloc_minimal.so.4", "mine.so", "libtcmalloc_minimal.so.4:mine.so"),
        ("libtcmalloc_minimal.so.4", "/opt/libtcmalloc.so", None),
        (None, "mine.so", None),
    ],
)
def test_tcmalloc_is_used_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, preloaded: str, expected: str | None
) -> None:
    monkeypatch.setattr(environment, "find_library", lambda _name: installed)
    found = engine_environment(cpu=True, ranks=1, environment={"LD_PRELOAD": preloaded})
    assert found.get("LD_PRELOAD") == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_cpu_quota_is_read(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert environment._cpu_quota(tmp_path) == expected


@pytest.mark.parametrize(
    ("preloaded", "expected"),
    [
        ("", {"LD_PRELOAD": "/torch/libgomp.so.1", **GOMP}),
        ("/tc.so", {"LD_PRELOAD": "/tc.so:/torch/libgomp.so.1", **GOMP}),
        ("/mine/libgomp.so", GOMP),
        (
            "/libiomp5.so",
            {
                "KMP_AFFINITY": "granularity=fine,explicit,proclist=[0,1]",
                "KMP_BLOCKTIME": "5",
                "KMP_TPAUSE": "0",
            },
        ),
    ],
)
def test_the_core_starts_with_what_openmp_reads(
    monkeypatch: pytest.MonkeyPatch, preloaded: str, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(environment, "_libgomp", lambda: Path("/torch/libgomp.so.1"))
    found = computing_environment({BIND: "0,1", "LD_PRELOAD": preloaded})
    assert found == {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"} | expected


@pytest.mark.parametrize(("chars", "base"), [(60, None), (90, "/tmp")])
def test_sockets_are_put_where_their_paths_are_short_enough(
    chars: int, base: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * (chars - 1))
    found = engine_environment(cpu=False, ranks=1, environment={})
    assert found.get("VLLM_RPC_BASE_PATH") == base


HEADER = "Python.h"


@pytest.fixture(autouse=True)
def no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CUDA toolkit, whatever this machine has."""
    monkeypatch.setattr(environment, "_has_nvcc", lambda _environment: False)


def test_nothing_is_compiled_by_nvcc_where_there_is_none() -> None:
    """vLLM's sampler and DeepGEMM would call it during warm-up, and the engine would fail."""
    found = engine_environment(cpu=False, gpu=True, ranks=1, environment={})
    assert found["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert found["VLLM_USE_DEEP_GEMM"] == "0"


def test_the_users_variables_are_kept() -> None:
    theirs = {"VLLM_USE_FLASHINFER_SAMPLER": "1", "TRITON_CACHE_DIR": "/mine"}
    found = engine_environment(cpu=False, gpu=True, ranks=1, environment=theirs)
    assert not found.keys() & theirs.keys()


def test_an_old_driver_is_reported_with_the_fix() -> None:
    """PyTorch's own error comes minutes later, from another process."""
    with pytest.raises(SettingsError) as caught:
        check_driver("13.0", 12080, "570.124.06")
    assert str(caught.value) == (
        "the NVIDIA driver (570.124.06) is for CUDA 12.8 at most, but PyTorch here is built for "
        "CUDA 13.0: install a driver of branch 580 or newer on the node"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\n", "550.54.15"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n",
            "580.65.06",
        ),
        ("something else\n", None),
        (None, None),
    ],
)
def test_the_drivers_release_is_read_from_the_kernel(
    tmp_path: Path, text: str | None, expected: str | None
) -> None:
    file = tmp_path / "version"
    if text is not None:
        file.write_text(text)
    assert driver_release(file) == expected


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment with a compiler, Python's headers and a cache folder."""
    (tmp_path / "bin").mkdir()
    compiler = tmp_path / "bin" / "gcc"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / HEADER).touch()
    monkeypatch.setattr(environment, "_python_headers", lambda: tmp_path / "include")
    cache = tmp_path / "cache"
    return {
        "PATH": str(tmp_path / "bin"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
    }


def test_a_missing_c_compiler_is_reported(tools: dict[str, str]) -> None:
    with pytest.raises(
        SettingsError, match=r"no C compiler.*Triton.*apt-get install gcc libc6-dev"
    ):
        check_tools(tools | {"PATH": "/nowhere"})


def test_missing_python_headers_are_reported(tools: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "include" / HEADER).unlink()
    with pytest.raises(SettingsError, match=r"Python\.h.*python3-dev"):
        check_tools(tools)


def test_a_noexec_cache_is_reported(
    tools: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = SimpleNamespace(f_flag=os.ST_NOEXEC)
    monkeypatch.setattr("os.statvfs", lambda _path: mounted)
    with pytest.raises(SettingsError, match=r"triton: mounted noexec.*--tmpfs.*:exec"):
        check_tools(tools)
