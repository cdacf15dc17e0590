"""How far the GPU's image goes on a machine without a GPU: make images IMAGES=worker, then

    python3 -m tests.image.gpu_start filing-clerk-worker:dev

Prints its size, its largest layers, and for each step whether it was seen; exits 1 if one went
otherwise than it should. The steps after these need a GPU: docs/gpu.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

_LARGE = 100_000_000


@dataclass(frozen=True)
class Step:
    """A command in the image, what it says, and its exit code."""

    name: str
    command: tuple[str, ...]
    says: str
    code: int = 0


_VERSIONS = (
    "import torch, vllm, triton; print('CUDA', torch.version.cuda, 'vLLM', vllm.__version__)"
)
_COMPILER = (
    "import sysconfig, pathlib, shutil; "
    "header = pathlib.Path(sysconfig.get_path('include'), 'Python.h'); "
    "print(header.exists() and shutil.which('g++'))"
)
_DRIVER = (
    "import os, torch; from worker.engine.environment import check_gpu; "
    "check_gpu(torch.version.cuda, os.environ)"
)
_CONTRACT = (
    "from worker.contract import read_manifest; from pathlib import Path; import worker.demo; "
    "print(read_manifest(Path(worker.demo.__file__).parent / 'adapter').digest)"
)
STEPS = (
    Step("the command", ("clerk-worker", "--version"), "clerk-worker "),
    Step("imports of PyTorch, vLLM and Triton", ("python", "-c", _VERSIONS), "CUDA 13"),
    Step("the compiler and Python.h", ("python", "-c", _COMPILER), "g++"),
    Step("an adapter's contract", ("python", "-c", _CONTRACT), ""),
    Step("check-config, with its problems",
         ("clerk-worker", "check-config", "-c", "/etc/filing-clerk/worker.toml"), "error: ", 2),
    Step("the engine's check of driver and tools, which refuses", ("python", "-c", _DRIVER),
         "no NVIDIA driver: libcuda.so.1 cannot be loaded", 1),
)  # fmt: skip


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


def main() -> int:
    image = sys.argv[1]
    about = json.loads(docker("image", "inspect", image).stdout)[0]
    print(f"{image}: {about['Size'] / 1e9:.2f} GB")
    history = docker("history", "--no-trunc", "--human=false", "--format", "{{json .}}", image)
    for line in history.stdout.splitlines():
        layer = json.loads(line)
        if int(layer["Size"]) >= _LARGE:
            print(f"  {int(layer['Size']) / 1e9:.2f} GB  {layer['CreatedBy'][:90]}")
    failed = False
    for step in STEPS:
        flags = ("--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp:exec")
        done = docker("run", *flags, "--entrypoint", step.command[0], image, *step.command[1:])
        said = done.stdout + done.stderr
        seen = done.returncode == step.code and step.says in said
        line = next((one for one in said.splitlines() if step.says in one), "")
        print(f"{'seen' if seen else 'NOT SEEN'}: {step.name}: {line.strip()[:160]}")
        if not seen:
            failed = True
            print(f"  exit {done.returncode}: {said[-2000:]}")
    print("not seen here: everything that needs a GPU (docs/gpu.md)")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
