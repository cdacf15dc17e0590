"""The environment variables that vLLM and the libraries below it are started with.

Nothing here needs vLLM. docs/gpu.md names each step at which the pinned vLLM compiles something on
a GPU, and what that step needs. It is checked here, before anything heavy is loaded: vLLM would
report it minutes later, from another process, in the words of a library that the user never chose.
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

_FEW_CPUS = 8
"""Up to here the engine computes on every CPU. Above, vLLM's own choice stands: one thread a
physical core and one core kept for scheduling, which on a small machine costs half the speed."""

_SPINS = "20000"
"""How long a thread of OpenMP's that waits for the others spins before it sleeps. libgomp's 300,000
turns are no faster where nobody else computes. Where others do (a broker on the same CPUs, another
pod), threads spin for one that is not running: three times slower, for a third more CPU time."""

_BIND = "VLLM_CPU_OMP_THREADS_BIND"


_SOCKET_FOLDER_CHARS = 65
"""A socket's path has 107 characters at most (unix(7)), and vLLM adds a UUID to its folder."""


_DRIVER_BRANCHES = {12: 525, 13: 580}
"""By major version of CUDA, the first branch of the driver that runs it (NVIDIA's table "CUDA
Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility")."""

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

    None that ``environment`` has is among them, but for what keeps the worker off the network
    and its processes sound. ``cpu`` and ``gpu`` say what the model runs on; neither, that it is
    not known yet. ``ranks`` is the number of processes it is spread over, ``eager`` that it is not
    to be compiled.
    """
    wanted = {
        "PYTHONWARNINGS": "ignore",  # in the engine's processes; this one has read it already
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if gpu:
        wanted |= gpu_variables(environment)
    else:
        # On a CPU its warnings are a page long at each start, and ask for nothing. The last one is
        # that there is no Triton, which an image without CUDA libraries leaves out.
        wanted |= {
            "VLLM_LOGGING_LEVEL": "ERROR",
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            "TORCH_LOGS": "-torch._library.triton",
        }
    if len(tempfile.gettempdir()) > _SOCKET_FOLDER_CHARS:
        wanted["VLLM_RPC_BASE_PATH"] = "/tmp"  # noqa: S108 - the names of vLLM's sockets are random
    always = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # A fork of a process with threads may hang, and vLLM's default on a GPU is to fork.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if cpu:
        wanted |= _cpu_threads(ranks)
        if eager:
            # vLLM compiles a few helpers also when told to run eagerly, and stops where there is
            # no C++ compiler, as on most machines that only run things.
            wanted["TORCH_COMPILE_DISABLE"] = "1"
        always |= _allocator(environment.get("LD_PRELOAD", ""))
    return {name: value for name, value in wanted.items() if name not in environment} | always


def computing_cpus(environment: Mapping[str, str]) -> list[int] | None:
    """Return the CPUs that one computing process is bound to, or None where vLLM chooses them.

    ``environment`` is one that ``engine_environment`` has completed.
    """
    named = environment.get(_BIND, "auto")
    try:
        ends = [list(map(int, part.split("-"))) for part in named.split(",")]
    except ValueError:  # "auto", "nobind", or "0-1|2-3" for several processes
        return None
    return sorted({cpu for end in ends for cpu in range(end[0], end[-1] + 1)})


def computing_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the process which computes has to be *started* with.

    OpenMP and the dynamic linker read them before the first line of Python runs. They are what
    vLLM starts its own worker processes with (``OMPProcessManager``, ``CpuPlatform``), so that
    an engine whose core computes by itself has the same threads on the same CPUs.
    """
    preloaded = environment.get("LD_PRELOAD", "")
    # A thread of OpenBLAS would be a second thread, and a process with threads is not forked.
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
    """Return how many CPUs this process may keep busy: those that it may run on, or its
    container's quota where that is less; at least 1."""
    allowed, quota = len(os.sched_getaffinity(0)), _cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota)))


def _cpu_threads(ranks: int) -> dict[str, str]:
    """Pin the compute threads, unless others decide better: vLLM, or a container's CPU quota."""
    allowed = sorted(os.sched_getaffinity(0))
    quota = _cpu_quota()
    if ranks == 1 and quota is not None and quota < len(allowed):
        # All pods of a node see all its CPUs: pinned to the first ones, they would share those.
        # Not pinned at all, they were two to four times slower wherever others compute too.
        allowed = random.sample(allowed, max(1, math.floor(quota)))
        return {_BIND: ",".join(map(str, sorted(allowed)))}
    if ranks > 1 or len(allowed) > _FEW_CPUS:
        return {}
    return {_BIND: ",".join(map(str, allowed))}


def _allocator(preloaded: str) -> dict[str, str]:
    """Preload tcmalloc where it is installed: a fifth less CPU time a message."""
    if "tcmalloc" in preloaded:
        return {}
    found = find_library("tcmalloc_minimal") or find_library("tcmalloc")
    return {"LD_PRELOAD": ":".join(filter(None, (found, preloaded)))} if found else {}


def _libgomp() -> Path | None:
    """Find PyTorch's own OpenMP library, without importing it; vLLM looks in the same places."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    folders = (package.parent / "torch.libs", package / "lib")
    return next((path for folder in folders for path in folder.glob("libgomp*.so*")), None)


def _cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs that the container may use (cgroup v2 or v1), or None where nothing limits it."""
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
