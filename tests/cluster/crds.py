"""The operators' custom resource definitions, from their Go modules: for a cluster without them.

Needs Go. A module is taken only if it has the checksum below, as in a go.sum.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class NotThere(Exception):
    """There is no Go, or the module cannot be had."""


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module, and its folder with the definitions."""

    name: str
    checksum: str
    folder: str


_MODULES = {
    "keda.sh": Module(
        "github.com/kedacore/keda/v2@v2.21.0",
        "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        "config/crd/bases",
    ),
    "monitoring.coreos.com": Module(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd",
    ),
}


def definitions(name: str) -> dict[str, Any]:
    """Return the CustomResourceDefinition of this name (plural.group). Raises NotThere."""
    plural, _, group = name.partition(".")
    folder = _fetch(_MODULES[group])
    text = (folder / f"{group}_{plural}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    assert found["metadata"]["name"] == name
    return found


@functools.cache
def _fetch(module: Module) -> Path:
    if shutil.which("go") is None:
        raise NotThere("they would come from Go modules, and Go is not installed")
    done = subprocess.run(
        ["go", "mod", "download", "-json", module.name],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        raise NotThere(f"the module is not to be had: {done.stdout}{done.stderr}")
    told = json.loads(done.stdout)
    if told["Sum"] != module.checksum:
        raise NotThere(f"{module.name} has the checksum {told['Sum']}, not {module.checksum}")
    return Path(told["Dir"]) / module.folder
