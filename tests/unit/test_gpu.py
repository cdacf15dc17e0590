"""The page about GPUs names what the locks have, and the arithmetic of docs/sizing.md is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.markers import Marker

from tests.gpu import page
from tests.gpu.page import (
    GPUS,
    NO_HIT,
    QWEN2_7B,
    message_seconds,
)

# docs/gpu.md is about certain versions of vLLM and others: a lock that moves is noticed.


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
WRITTEN_FOR = dict(re.findall(r"^\| `([\w-]+)` \| ([\w.]+) \|$", PAGE, re.MULTILINE))
MACHINE = {"sys_platform": "linux", "platform_machine": "x86_64"}


@pytest.mark.parametrize("lock", ["gpu.txt", "image-gpu.txt"])
@pytest.mark.parametrize("package", sorted(WRITTEN_FOR))
def test_the_page_is_about_the_versions_in_the_lock(lock: str, package: str) -> None:
    """What each of them compiles at the start was read in that version. Read it again in the new
    one, fix the table, then the version on the page."""
    text = (ROOT / "locks" / lock).read_text(encoding="utf-8")
    lines = re.findall(rf"^{package}==(\S+)(?: ; (.*?))? \\$", text, re.MULTILINE)
    on_linux = [
        version for version, marker in lines if not marker or Marker(marker).evaluate(MACHINE)
    ]
    assert on_linux == [WRITTEN_FOR[package]]


def test_the_worker_and_the_page_start_vllm_with_the_same_variables() -> None:
    """None is set that the page does not name."""
    source = (ROOT / "worker" / "engine" / "environment.py").read_text(encoding="utf-8")
    body = source.partition("def gpu_variables")[2].partition("\ndef ")[0]
    named = set(re.findall(r'"([A-Z_]{6,})"', body)) - {"XDG_CACHE_HOME"}
    assert len(named) == 5
    assert {name for name in named if name not in PAGE} == set()


# The arithmetic of docs/sizing.md against figures worked out by hand.


L4, A10G, A100, H100 = GPUS


def test_the_7b_has_as_many_weights_as_its_card_says() -> None:
    """7.61e9, of which 6.53e9 are not embeddings (the card of Qwen2.5-7B)."""
    assert QWEN2_7B.parameters == 7_615_616_512
    assert round(QWEN2_7B.block_weights / 1e9, 2) == 6.53


def test_the_7b_on_an_l4_by_hand() -> None:
    """304 tokens x 13.05 GFLOP are 3.97 TFLOP; at 60 % of 121 TFLOP/s 56 ms, and 8 ms for LoRA."""
    seconds = message_seconds(QWEN2_7B, L4, "bf16", NO_HIT, mfu=0.6)
    assert seconds == pytest.approx(0.0555 + 0.0083, rel=0.02)


def test_the_page_is_what_the_arithmetic_says() -> None:
    """``make sizing`` writes it."""
    assert page.written() == page.PAGE.read_text(encoding="utf-8")


def test_every_page_has_the_same_prices() -> None:
    """The README repeats the page with the costs, and the page about sizing names those of
    ``GPUS`` in words."""
    root = page.PAGE.parents[1]
    readme = (root / "README.md").read_text(encoding="utf-8")
    costs = (root / "docs" / "choosing.md").read_text(encoding="utf-8")
    for figure in ("0.14 to 0.22", "1.7 million", "1.8 to 3.7", "11 to 78 million"):
        assert figure in readme, figure
        assert figure in costs, figure
    hour = {gpu.name: gpu.hour for gpu in GPUS}
    words = ", ".join(
        f"{price:.1f}{' an hour' if at == 0 else ''} for an {name.split()[0]}"
        for at, (name, price) in enumerate(hour.items())
    )
    assert words in page.PAGE.read_text(encoding="utf-8"), words
