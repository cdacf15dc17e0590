"""The tables of docs/sizing.md: what the arithmetic says, and what ``make gpu-smoke`` measured.

python -m tests.gpu.page            # make sizing: write them
python -m tests.gpu.page --check    # complain where they are out of date
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.gpu.sizing import (
    GPUS,
    HIT,
    NO_HIT,
    QWEN2_7B,
    Precision,
    cost_of_a_million,
    lora_bytes,
    lora_flops,
    memory,
    message_flops,
    messages_per_s,
    start_seconds,
    weight_bytes,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sizing.md"
MEASURED = ROOT / "docs" / "sizing.json"

_PRECISIONS: tuple[Precision, ...] = ("bf16", "fp8")


def written() -> str:
    """Return the page with its tables made anew."""
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in (
        ("message", message_table()),
        ("rates", rate_table()),
        ("memory", memory_table()),
        ("measured", measured_table(read_measured())),
    ):
        begin, end = f"<!-- {name}: make sizing -->", f"<!-- /{name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        # As a replacement a backslash would mean something; none of these texts has one.
        text, count = pattern.subn("\n".join((begin, *lines, end)), text)
        if count != 1:
            raise ValueError(f"{PAGE}: {begin} ... {end} is there {count} times")
    return text


def read_measured() -> list[dict[str, Any]]:
    """Return the runs of gpu-smoke that were kept, oldest first."""
    found: list[dict[str, Any]] = json.loads(MEASURED.read_text(encoding="utf-8"))["runs"]
    return found


def add_measured(run: dict[str, Any]) -> None:
    """Keep one more run, and write the page."""
    kept = {"runs": [*read_measured(), run]}
    MEASURED.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(written(), encoding="utf-8")


def message_table() -> Iterator[str]:
    """Yield work and bytes of one message."""
    yield "| one message | no prefix hit | prefix hit |"
    yield "|---|---|---|"
    prompts = (NO_HIT, HIT)
    yield _row("tokens computed", (f"{one.new} of {one.tokens}" for one in prompts))
    linear = [message_flops(QWEN2_7B, one)[0] / 1e12 for one in prompts]
    rest = [message_flops(QWEN2_7B, one)[1] / 1e12 for one in prompts]
    yield _row("linear layers, TFLOP", (f"{one:.3f}" for one in linear))
    yield _row("attention and the last position's logits, TFLOP", (f"{one:.4f}" for one in rest))
    loras = [lora_flops(QWEN2_7B, 16, one) / 1e12 for one in prompts]
    yield _row("adapter of rank 16, TFLOP", (f"{one:.4f}" for one in loras))
    moved = [lora_bytes(QWEN2_7B, one) / 1e9 for one in prompts]
    yield _row("adapter, GB moved", (f"{one:.2f}" for one in moved))
    kept = [QWEN2_7B.kv_bytes * one.new / 1e6 for one in prompts]
    yield _row("keys and values written, MB", (f"{one:.1f}" for one in kept))


def rate_table() -> Iterator[str]:
    """Yield messages a second, the adapter's share and the price, for each GPU and precision."""
    yield (
        "| GPU | weights | messages/s, no prefix hit | prefix hit | the adapter costs | "
        "a million messages, prefix hit |"
    )
    yield "|---|---|---|---|---|---|"
    for gpu in GPUS:
        for precision in _PRECISIONS:
            missed, hit = (messages_per_s(QWEN2_7B, gpu, precision, one) for one in (NO_HIT, HIT))
            bare = messages_per_s(QWEN2_7B, gpu, precision, HIT, rank=None)
            lost = [1 - with_it / without for with_it, without in zip(hit, bare, strict=True)]
            high, low = cost_of_a_million(gpu, hit)
            stored = precision == "fp8" and gpu.fp8 is None
            weights = "fp8, computed in bf16" if stored else precision
            yield (
                f"| {gpu.name} | {weights} | {missed[0]:.0f} to {missed[1]:.0f} | "
                f"{hit[0]:.0f} to {hit[1]:.0f} | {lost[0]:.0%} to {lost[1]:.0%} | "
                f"{low:.1f} to {high:.1f} |"
            )


def memory_table() -> Iterator[str]:
    """Yield where each GPU's memory goes, and how long a start takes."""
    yield (
        "| GPU | weights | weights, GB | two adapters | states and logits | context | "
        "left for keys and values | which is, tokens | start, s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for gpu in GPUS:
        for precision in _PRECISIONS:
            found = memory(QWEN2_7B, gpu, precision)
            quick, slow = start_seconds(QWEN2_7B, precision)
            tokens = found.kv / QWEN2_7B.kv_bytes
            yield (
                f"| {gpu.name} | {precision} | {weight_bytes(QWEN2_7B, precision) / 1e9:.1f} | "
                f"{found.adapters / 1e9:.2f} | {found.working / 1e9:.2f} | "
                f"{found.context / 1e9:.1f} | {found.kv / 1e9:.1f} | {tokens:,.0f} | "
                f"{quick:.0f} to {slow:.0f} |"
            )


def measured_table(runs: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield what was measured, with what was expected where the GPU is one of those above."""
    yield (
        "| when | device | shape | broker | ready after, s | messages/s | expected | memory, GB | "
        "furthest from transformers | swapped, s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for run in runs:
        expected = expected_rate(run["device"]) if run["shape"] == "7b" else None
        beside = f"{expected[0]:.0f} to {expected[1]:.0f}" if expected else "none"
        yield (
            f"| {run['date']} | {run['device']} | {run['shape']} | {run['broker']} | "
            f"{run['ready_s']:.0f} | {run['messages_per_s']:.1f} | {beside} | "
            f"{run['memory_bytes'] / 1e9:.1f} | {run['largest_difference']:.3f} | "
            f"{run['swap_s']:.1f} |"
        )


def expected_rate(device: str) -> tuple[float, float] | None:
    """Return the messages a second of the GPU whose name ``device`` holds as a word."""
    words = set(re.split(r"[^A-Za-z0-9]+", device))
    found = next((gpu for gpu in GPUS if gpu.name.split()[0] in words), None)
    return messages_per_s(QWEN2_7B, found, "bf16", HIT) if found else None


def _row(name: str, cells: Iterable[str]) -> str:
    return " | ".join((f"| {name}", *cells)) + " |"


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` say whether it is what would be written."""
    text = written()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
    elif text != PAGE.read_text(encoding="utf-8"):
        print(f"{PAGE.relative_to(ROOT)} is out of date: make sizing")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
