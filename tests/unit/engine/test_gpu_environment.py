"""What vLLM is started with on a GPU, and what is missing there told in words. No GPU is needed."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from worker.engine import gpu_environment
from worker.engine.cpu_environment import engine_environment
from worker.engine.gpu_environment import (
    check_driver,
    check_tools,
    driver_release,
    gpu_variables,
)
from worker.errors import SettingsError

HEADER = "Python.h"


@pytest.fixture(autouse=True)
def no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CUDA toolkit, whatever this machine has."""
    monkeypatch.setattr(gpu_environment, "_has_nvcc", lambda _environment: False)


def test_nothing_is_compiled_by_nvcc_where_there_is_none() -> None:
    """vLLM's sampler and DeepGEMM would call it when the engine warms up, and end the engine."""
    found = engine_environment(cpu=False, gpu=True, ranks=1, environment={})
    assert found["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert found["VLLM_USE_DEEP_GEMM"] == "0"


def test_with_a_toolkit_deep_gemm_is_left_to_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler stays off: one token at temperature 0 samples nothing."""
    monkeypatch.setattr(gpu_environment, "_has_nvcc", lambda _environment: True)
    found = engine_environment(cpu=False, gpu=True, ranks=1, environment={})
    assert found["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert "VLLM_USE_DEEP_GEMM" not in found


def test_what_the_user_set_stands() -> None:
    theirs = {"VLLM_USE_FLASHINFER_SAMPLER": "1", "TRITON_CACHE_DIR": "/mine"}
    found = engine_environment(cpu=False, gpu=True, ranks=1, environment=theirs)
    assert not found.keys() & theirs.keys()


def test_vllms_log_is_heard_on_a_gpu_and_keeps_off_the_results() -> None:
    """Start-up takes minutes there, and what goes wrong is in it. Results are on stdout."""
    on_gpu = engine_environment(cpu=False, gpu=True, ranks=1, environment={})
    assert on_gpu["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
    assert not {"VLLM_LOGGING_LEVEL", "TORCH_CPP_LOG_LEVEL"} & on_gpu.keys()
    on_cpu = engine_environment(cpu=True, ranks=1, environment={})
    assert on_cpu["VLLM_LOGGING_LEVEL"] == "ERROR"
    assert not on_cpu.keys() & gpu_variables({}).keys()


def test_compiled_kernels_lie_in_the_cache_folder() -> None:
    """Not in /tmp, which a container often mounts noexec, and which no restart finds again."""
    found = gpu_variables({"XDG_CACHE_HOME": "/var/cache/clerk"})
    assert found["TRITON_CACHE_DIR"] == "/var/cache/clerk/triton"
    assert found["TORCHINDUCTOR_CACHE_DIR"] == "/var/cache/clerk/torchinductor"


@pytest.mark.parametrize("version", [13000, 13010])
def test_a_driver_of_the_same_cuda_will_do(version: int) -> None:
    check_driver("13.0", version, "580.65.06")


def test_an_old_driver_is_told_with_what_to_install() -> None:
    """PyTorch's own words name a number that nobody knows, minutes later, in another process."""
    with pytest.raises(SettingsError) as told:
        check_driver("13.0", 12080, "570.124.06")
    assert str(told.value) == (
        "the NVIDIA driver (570.124.06) is for CUDA 12.8 at most, and PyTorch here is built for "
        "CUDA 13.0: install a driver of branch 580 or newer on the node"
    )


def test_a_driver_that_is_not_there_is_told() -> None:
    with pytest.raises(SettingsError, match=r"libcuda\.so\.1.*--gpus all.*LD_LIBRARY_PATH"):
        check_driver("13.0", None, None)


def test_a_pytorch_without_cuda_needs_no_driver() -> None:
    check_driver(None, None, None)


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
    monkeypatch.setattr(gpu_environment, "_python_headers", lambda: tmp_path / "include")
    cache = tmp_path / "cache"
    return {
        "PATH": str(tmp_path / "bin"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
    }


def test_with_all_that_kernels_need_nothing_is_said(tools: dict[str, str]) -> None:
    check_tools(tools)


def test_without_a_c_compiler_it_is_told(tools: dict[str, str]) -> None:
    with pytest.raises(
        SettingsError, match=r"Triton.*no C compiler.*apt-get install gcc libc6-dev"
    ):
        check_tools(tools | {"PATH": "/nowhere"})


def test_a_compiler_that_is_named_is_looked_for(tools: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="CC=/opt/cc"):
        check_tools(tools | {"CC": "/opt/cc"})


def test_without_pythons_headers_it_is_told(tools: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "include" / HEADER).unlink()
    with pytest.raises(SettingsError, match=r"Python\.h.*python3-dev"):
        check_tools(tools)


def test_a_cache_that_nothing_can_be_loaded_from_is_told(
    tools: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's --tmpfs is noexec unless one says otherwise."""
    mounted = SimpleNamespace(f_flag=os.ST_NOEXEC)
    monkeypatch.setattr("os.statvfs", lambda _path: mounted)
    with pytest.raises(SettingsError, match=r"triton: mounted noexec.*--tmpfs.*:exec"):
        check_tools(tools)


def test_a_cache_that_cannot_be_written_is_told(tools: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"VLLM_CACHE_ROOT.*cannot be written"):
        check_tools(tools | {"VLLM_CACHE_ROOT": str(tmp_path / "file" / "below")})


def test_this_machines_own_caches_can_be_loaded_from(tmp_path: Path) -> None:
    """The real call of the system, on a real folder."""
    assert not gpu_environment._is_noexec(tmp_path)
