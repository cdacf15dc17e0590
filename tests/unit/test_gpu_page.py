"""docs/gpu.md is about certain versions of vLLM and others: a lock that moves is noticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.markers import Marker

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
WRITTEN_FOR = dict(re.findall(r"^\| `([\w-]+)` \| ([\w.]+) \|$", PAGE, re.MULTILINE))
MACHINE = {"sys_platform": "linux", "platform_machine": "x86_64"}


def test_the_page_names_what_compiles() -> None:
    assert {"vllm", "torch", "triton", "flashinfer-python", "nvidia-cuda-nvcc"} <= set(WRITTEN_FOR)


@pytest.mark.parametrize("lock", ["gpu.txt", "image-gpu.txt"])
@pytest.mark.parametrize("package", sorted(WRITTEN_FOR))
def test_the_page_is_about_the_versions_in_the_lock(lock: str, package: str) -> None:
    """What each of them compiles at the start was read in that version. Read it again in the new
    one, mend the table, then the version on the page."""
    text = (ROOT / "locks" / lock).read_text(encoding="utf-8")
    lines = re.findall(rf"^{package}==(\S+)(?: ; (.*?))? \\$", text, re.MULTILINE)
    on_linux = [
        version for version, marker in lines if not marker or Marker(marker).evaluate(MACHINE)
    ]
    assert on_linux == [WRITTEN_FOR[package]]


def test_the_worker_and_the_page_start_vllm_with_the_same_variables() -> None:
    """None is set that the page does not name."""
    source = (ROOT / "worker" / "engine" / "gpu_environment.py").read_text(encoding="utf-8")
    body = source.partition("def gpu_variables")[2].partition("\ndef ")[0]
    named = set(re.findall(r'"([A-Z_]{6,})"', body)) - {"XDG_CACHE_HOME"}
    assert len(named) == 5
    assert {name for name in named if name not in PAGE} == set()
