"""Environment variables for vLLM and its libraries, and checks of a GPU's driver and tools.

Does not import vLLM. docs/gpu.md lists the steps at which the pinned vLLM compiles something on a
GPU, and their requirements. They are checked here, before anything heavy is loaded: vLLM would
report them minutes later, from another process, with the error of some library.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import random
import re
import shutil
import sysconfig
import tempfile
from collections.abc import Mapping
from ctypes.util import find_library
from pathlib import Path

from worker.errors import SettingsError

# Up to this number the engine computes on every CPU. With more, vLLM decides: one thread for each
# physical core, and one core kept for scheduling, which on a small machine costs half the speed.
_FEW_CPUS = 8

# How long a waiting OpenMP thread spins before it sleeps. libgomp's default of 300,000 turns is not
# faster on an idle machine. If others compute too (a broker on the same CPUs, another pod), threads
# spin for one that is not running: three times slower, for a third more CPU time.
_SPINS = "20000"

_BIND = "VLLM_CPU_OMP_THREADS_BIND"


# A socket's path has at most 107 characters (unix(7)), and vLLM adds a UUID to the folder.
_SOCKET_FOLDER_CHARS = 65


# The first driver branch for each major version of CUDA (NVIDIA's table "CUDA Toolkit and Minimum
# Required Driver Version for CUDA Minor Version Compatibility").
_DRIVER_BRANCHES = {12: 525, 13: 580}

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


def engine_environment(
    *,
    cpu: bool,
    ranks: int,
    environment: Mapping[str, str],
    eager: bool = False,
    gpu: bool = False,
) -> dict[str, str]:
    """Return the variables to set before vLLM is imported and started.

    Variables in ``environment`` are kept, except those that keep the worker off the network and its
    processes safe. ``cpu`` and ``gpu`` say what the model runs on; neither: it is not known yet.
    ``ranks`` is the number of processes for the model; ``eager``: it is not compiled.
    """
    wanted = {
        "PYTHONWARNINGS": "ignore",  # for the engine's processes; too late for this one
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if gpu:
        wanted |= gpu_variables(environment)
    else:
        # On a CPU each start logs a page of warnings without any need to act. The last variable
        # hides that Triton is missing, as in every image without CUDA libraries.
        wanted |= {
            "VLLM_LOGGING_LEVEL": "ERROR",
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            "TORCH_LOGS": "-torch._library.triton",
        }
    if len(tempfile.gettempdir()) > _SOCKET_FOLDER_CHARS:
        wanted["VLLM_RPC_BASE_PATH"] = "/tmp"  # noqa: S108 - vLLM's socket names are random
    always = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # vLLM's default on a GPU is to fork, but a fork of a process with threads may hang.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if cpu:
        wanted |= _cpu_threads(ranks)
        if eager:
            # Even in eager mode vLLM compiles a few helpers, and fails without a C++ compiler,
            # which production machines usually lack.
            wanted["TORCH_COMPILE_DISABLE"] = "1"
        always |= _allocator(environment.get("LD_PRELOAD", ""))
    return {name: value for name, value in wanted.items() if name not in environment} | always


def computing_cpus(environment: Mapping[str, str]) -> list[int] | None:
    """Return the CPUs to which a computing process is bound; None if vLLM chooses them.

    ``environment`` is completed by ``engine_environment``.
    """
    named = environment.get(_BIND, "auto")
    try:
        ends = [list(map(int, part.split("-"))) for part in named.split(",")]
    except ValueError:  # "auto", "nobind", or "0-1|2-3" for several processes
        return None
    return sorted({cpu for end in ends for cpu in range(end[0], end[-1] + 1)})


def computing_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which the computing process must be *started*: OpenMP and the
    dynamic linker read them before the first line of Python runs.

    They are those with which vLLM starts its worker processes (``OMPProcessManager``,
    ``CpuPlatform``), so that a core that computes by itself has the same threads on the same CPUs.
    """
    preloaded = environment.get("LD_PRELOAD", "")
    # OpenBLAS would start threads, and a process with threads must not be forked.
    started_with = {"OPENBLAS_NUM_THREADS": "1"}
    intel = "libiomp" in preloaded or "libomp" in preloaded
    if not intel and "libgomp" not in preloaded and (found := _libgomp()):
        preloaded = ":".join(filter(None, (preloaded, str(found))))
        started_with["LD_PRELOAD"] = preloaded
    cpus = computing_cpus(environment)
    if cpus is None:
        return started_with
    started_with["OMP_NUM_THREADS"] = str(len(cpus))
    listed = ",".join(map(str, cpus))
    if intel:
        started_with |= {
            "KMP_AFFINITY": f"granularity=fine,explicit,proclist=[{listed}]",
            "KMP_BLOCKTIME": "5",
            "KMP_TPAUSE": "0",
        }
    elif "libgomp" in preloaded:
        started_with["GOMP_CPU_AFFINITY"] = " ".join(map(str, cpus))
        if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environment.keys():
            started_with["GOMP_SPINCOUNT"] = _SPINS
    else:
        started_with |= {"OMP_PLACES": f"{{{listed}}}", "OMP_PROC_BIND": "true"}
    return started_with


def usable_cpus() -> int:
    """Return the number of CPUs for this process: its affinity or its container's quota, whichever
    is less; at least 1."""
    allowed, quota = len(os.sched_getaffinity(0)), _cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota)))


def _cpu_threads(ranks: int) -> dict[str, str]:
    """Pin the compute threads, unless vLLM decides better."""
    allowed = sorted(os.sched_getaffinity(0))
    quota = _cpu_quota()
    if ranks == 1 and quota is not None and quota < len(allowed):
        # All pods of a node see all its CPUs. Pinned to the first ones, they would share those;
        # not pinned, they were two to four times slower on a busy node. So choose at random.
        allowed = random.sample(allowed, max(1, math.floor(quota)))
        return {_BIND: ",".join(map(str, sorted(allowed)))}
    if ranks > 1 or len(allowed) > _FEW_CPUS:
        return {}
    return {_BIND: ",".join(map(str, allowed))}


def _allocator(preloaded: str) -> dict[str, str]:
    """Preload tcmalloc if it is installed: a fifth less CPU time per message."""
    if "tcmalloc" in preloaded:
        return {}
    found = find_library("tcmalloc_minimal") or find_library("tcmalloc")
    return {"LD_PRELOAD": ":".join(filter(None, (found, preloaded)))} if found else {}


def _libgomp() -> Path | None:
    """Find PyTorch's OpenMP library without importing PyTorch, in the places where vLLM looks."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    folders = (package.parent / "torch.libs", package / "lib")
    return next((path for folder in folders for path in folder.glob("libgomp*.so*")), None)


def _cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the container's CPU quota (cgroup v2 or v1), or None without a limit."""
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


def gpu_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the defaults for a GPU, to set before vLLM is imported."""
    wanted = {
        # FlashInfer's sampler is compiled by nvcc during warm-up. One token at temperature 0 is the
        # largest logit, which needs no sampler.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        # Standard output is for a command's results.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # Shared objects are loaded from both. PyTorch's default is /tmp, which may be noexec.
        "TRITON_CACHE_DIR": _cache("triton", environment),
        "TORCHINDUCTOR_CACHE_DIR": _cache("torchinductor", environment),
    }
    if not _has_nvcc(environment):
        # DeepGEMM, for block-scaled FP8 on an H100, needs nvcc. vLLM's CUTLASS kernels, which ship
        # compiled, do the same.
        wanted["VLLM_USE_DEEP_GEMM"] = "0"
    return wanted


def check_gpu(cuda: str | None, environment: Mapping[str, str]) -> None:
    """Raise SettingsError unless driver, tools and cache folders meet the needs of kernels.
    ``cuda`` is the version that PyTorch is built for, if any."""
    check_driver(cuda, driver_cuda(), driver_release())
    check_tools(environment)


def check_driver(cuda: str | None, driver: int | None, release: str | None) -> None:
    """Raise SettingsError if the driver is missing or too old for ``cuda`` ("13.0").

    ``driver`` is the newest CUDA version that it runs, as 1000 major + 10 minor, ``release`` its
    own version. A driver runs every minor version of a major version of CUDA.
    """
    if cuda is None:
        return
    if driver is None:
        raise SettingsError(
            "no NVIDIA driver: libcuda.so.1 cannot be loaded. In a container: the NVIDIA container "
            "toolkit and --gpus all (Kubernetes: a GPU in the pod's limits); if the node mounts "
            "the driver's libraries elsewhere, add their folder to LD_LIBRARY_PATH"
        )
    major = int(cuda.partition(".")[0])
    if driver // 1000 >= major:
        return
    known = f" of branch {branch} or newer" if (branch := _DRIVER_BRANCHES.get(major)) else ""
    raise SettingsError(
        f"the NVIDIA driver ({release or 'of unknown version'}) is for CUDA "
        f"{driver // 1000}.{driver % 1000 // 10} at most, but PyTorch here is built for CUDA "
        f"{cuda}: install a driver{known} on the node"
    )


def driver_cuda() -> int | None:
    """Return the newest CUDA version that the driver runs (1000 major + 10 minor); None without a
    driver. ``cuDriverGetVersion`` does not initialize a device."""
    found = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(found))
    except (OSError, AttributeError):
        return None
    return None if failed else found.value


def driver_release(kernel_module: Path = _KERNEL_MODULE) -> str | None:
    """Return the driver's version ("580.65.06"), or None if unknown."""
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
        raise SettingsError(f"CC={named}: no such program: set CC to a C compiler, for Triton")
    if not named and not (shutil.which("gcc", path=path) or shutil.which("clang", path=path)):
        raise SettingsError(
            "no C compiler, with which Triton compiles a small module for vLLM's LoRA and sampling "
            "kernels: apt-get install gcc libc6-dev"
        )
    headers = _python_headers()
    if not (headers / "Python.h").is_file():
        raise SettingsError(
            f"{headers} has no Python.h, with which Triton compiles a small C module: "
            "apt-get install python3-dev (or the headers of the Python that runs here)"
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
            f"{name}: {folder}: not writable, but compiled kernels are stored there: mount a "
            "volume, or set another folder"
        )
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise SettingsError(
            f"{name}: {folder}: mounted noexec, but compiled kernels are loaded from there: with "
            f"Docker use --tmpfs {folder.parent}:exec,uid=10001,gid=10001 (noexec is its default), "
            "or a volume"
        )


def _python_headers() -> Path:
    # The same lookup as in triton.runtime.build.
    scheme = sysconfig.get_default_scheme()
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    return Path(sysconfig.get_paths(scheme=scheme)["include"])


def _has_nvcc(environment: Mapping[str, str]) -> bool:
    """Decide as vLLM and FlashInfer do (``vllm.utils.flashinfer``)."""
    if home := environment.get("CUDA_HOME") or environment.get("CUDA_PATH"):
        return os.access(Path(home, "bin", "nvcc"), os.X_OK)
    found = shutil.which("nvcc", path=environment.get("PATH"))
    return found is not None or os.access("/usr/local/cuda/bin/nvcc", os.X_OK)
