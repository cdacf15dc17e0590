"""The commands in an example's header, as a person would type them, and the names in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.chart.get_helm import find_helm
from tests.cluster.load import Names

NAMESPACE = "support"
GROUP = f"{NAMESPACE}.clerk-filing-clerk"
_OUTPUT = f"{GROUP}.labels"
NAMES = Names("support.messages", _OUTPUT, f"{_OUTPUT}.review", f"{_OUTPUT}.dead", "x")
"""The chart's names for a release called clerk."""

_COMMENT = re.compile(r"\s{2,}#.*$")
_HEREDOC = re.compile(r"<<'(\w+)'")


def commands(example: Path) -> list[str]:
    """The commands of an example's header: lines indented by three spaces. A line that ends in a
    backslash continues, a here document belongs to its command, and text after two spaces and
    a # is a comment."""
    header = example.read_text(encoding="utf-8").partition("\n\n")[0]
    lines = [line[4:] for line in header.splitlines() if line.startswith("#   ")]
    found: list[str] = []
    end: str | None = None
    for raw in lines:
        line = raw if end else _COMMENT.sub("", raw)
        if end is not None:
            found[-1] += f"\n{line}"
            if line == end:
                end = None
            continue
        if found and found[-1].endswith("\\"):
            found[-1] = f"{found[-1][:-1].rstrip()} {line.strip()}"
        else:
            found.append(line)
        if opened := _HEREDOC.search(line):
            end = opened[1]
    return found


def path_with_helm(folder: Path) -> str:
    """A PATH with this helm under its usual name, in a new ``folder``."""
    folder.mkdir()
    helm = find_helm()
    assert helm is not None
    (folder / "helm").symlink_to(Path(shutil.which(helm) or helm).resolve())
    return f"{folder}:{os.environ['PATH']}"


def run(command: str, folder: Path, given: Mapping[str, str]) -> str:
    """Run a command in ``folder`` with more variables. Raises AssertionError if it fails."""
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{command}\n{(done.stdout + done.stderr)[-3000:]}"
    return done.stdout
