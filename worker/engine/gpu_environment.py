"""What vLLM is started with on an NVIDIA GPU, and what has to be there for it to compile kernels.

docs/gpu.md names each step at which the pinned vLLM compiles something, and what that step needs.
Everything here is looked at before anything heavy is loaded, and told in one line: vLLM would say
it minutes later, from another process, in the words of a library that the user never chose.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from worker.errors import SettingsError

_DRIVER_BRANCHES = {12: 525, 13: 580}
"""By major version of CUDA, the first branch of the driver that runs it (NVIDIA's table "CUDA
Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility")."""

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


def gpu_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to set before vLLM is imported, unless the user has set them."""
    wanted = {
        # Sampling from FlashInfer is compiled by nvcc when the engine warms up. One token at
        # temperature 0 is the largest logit, and samples nothing.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        # Results of a command are on stdout.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # Shared objects are loaded from both. PyTorch's default for its own is /tmp.
        "TRITON_CACHE_DIR": _cache("triton", environment),
        "TORCHINDUCTOR_CACHE_DIR": _cache("torchinductor", environment),
    }
    if not _has_nvcc(environment):
        # Block-scaled FP8 on an H100; vLLM's own CUTLASS kernels, which are compiled, do it else.
        wanted["VLLM_USE_DEEP_GEMM"] = "0"
    return wanted


def check_gpu(cuda: str | None, environment: Mapping[str, str]) -> None:
    """Raise SettingsError unless driver, tools and cache folders are what kernels need.

    ``cuda`` is the version that PyTorch is built for, None where it is built for none.
    """
    check_driver(cuda, driver_cuda(), driver_release())
    check_tools(environment)


def check_driver(cuda: str | None, driver: int | None, release: str | None) -> None:
    """Raise SettingsError where the driver is missing or too old for ``cuda`` ("13.0").

    ``driver`` is the newest CUDA that it runs, as 1000 major + 10 minor, ``release`` its own
    version. Within a major version of CUDA any driver runs it.
    """
    if cuda is None:
        return
    if driver is None:
        raise SettingsError(
            "no NVIDIA driver: libcuda.so.1 cannot be loaded. In a container: the NVIDIA container "
            "toolkit and --gpus all (Kubernetes: a GPU in the pod's limits); where the node mounts "
            "the driver's libraries elsewhere, name their folder in LD_LIBRARY_PATH"
        )
    major = int(cuda.partition(".")[0])
    if driver // 1000 >= major:
        return
    known = f" of branch {branch} or newer" if (branch := _DRIVER_BRANCHES.get(major)) else ""
    raise SettingsError(
        f"the NVIDIA driver ({release or 'of unknown version'}) is for CUDA "
        f"{driver // 1000}.{driver % 1000 // 10} at most, and PyTorch here is built for CUDA "
        f"{cuda}: install a driver{known} on the node"
    )


def driver_cuda() -> int | None:
    """Return the newest CUDA that the driver runs (1000 major + 10 minor); None without one.

    ``cuDriverGetVersion`` needs no device and leaves none initialized.
    """
    found = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(found))
    except (OSError, AttributeError):
        return None
    return None if failed else found.value


def driver_release(kernel_module: Path = _KERNEL_MODULE) -> str | None:
    """Return the driver's own version ("580.65.06"), or None where the kernel names none."""
    try:
        text = kernel_module.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^NVRM version:.*?\s(\d{3,}\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
    return found.group(1) if found else None


def check_tools(environment: Mapping[str, str]) -> None:
    """Raise SettingsError unless Triton can compile its launcher and load what was compiled."""
    named = environment.get("CC")
    path = environment.get("PATH")
    if named and not shutil.which(named, path=path):
        raise SettingsError(f"CC={named}: no such program, and Triton needs a C compiler")
    if not named and not (shutil.which("gcc", path=path) or shutil.which("clang", path=path)):
        raise SettingsError(
            "Triton, which vLLM's LoRA and sampling kernels are written in, compiles a small C "
            "module for the GPU it finds, and there is no C compiler: apt-get install gcc libc6-dev"
        )
    headers = _python_headers()
    if not (headers / "Python.h").is_file():
        raise SettingsError(
            f"Triton compiles a small C module, and {headers} has no Python.h: apt-get install "
            "python3-dev (or the headers of the Python that runs here)"
        )
    for name, folder in (
        ("TRITON_CACHE_DIR", "triton"),
        ("TORCHINDUCTOR_CACHE_DIR", "torchinductor"),
        ("VLLM_CACHE_ROOT", "vllm"),
    ):
        found = environment.get(name, _cache(folder, environment))
        _check_cache(name, Path(found).expanduser())


def _cache(folder: str, environment: Mapping[str, str]) -> str:
    home = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return f"{home}/{folder}"


def _check_cache(name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise SettingsError(
            f"{name}: {folder}: cannot be written, and compiled kernels are kept there: mount a "
            "volume, or name another folder"
        )
    if _is_noexec(folder):
        raise SettingsError(
            f"{name}: {folder}: mounted noexec, and compiled kernels are loaded from there. With "
            f"Docker: --tmpfs {folder.parent}:exec,uid=10001,gid=10001 (noexec is its default), or "
            "a volume"
        )


def _is_noexec(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)


def _python_headers() -> Path:
    # As triton.runtime.build looks for them.
    scheme = sysconfig.get_default_scheme()
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    return Path(sysconfig.get_paths(scheme=scheme)["include"])


def _has_nvcc(environment: Mapping[str, str]) -> bool:
    """Tell it as vLLM and FlashInfer do (``vllm.utils.flashinfer``)."""
    if home := environment.get("CUDA_HOME") or environment.get("CUDA_PATH"):
        return os.access(Path(home, "bin", "nvcc"), os.X_OK)
    found = shutil.which("nvcc", path=environment.get("PATH"))
    return found is not None or os.access("/usr/local/cuda/bin/nvcc", os.X_OK)
