"""The tables of docs/sizing.md: what the arithmetic says, and what ``make gpu-smoke`` measured.

python -m tests.gpu.page            # make sizing: write them
python -m tests.gpu.page --check    # complain where they are out of date
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# What a GPU should do with a 7B, by arithmetic: work and bytes a message, memory, time, money.
#
# Every figure follows from the model's shape, the GPU's data sheet and the named assumptions
# below, because none of it has been measured. ``tests.gpu.page`` writes the tables of
# docs/sizing.md from it, next to what ``make gpu-smoke`` has measured.
# Work is counted as floating-point operations, two for a weight and token (Kaplan et al. 2020,
# arXiv 2001.08361, section 2.1), with attention's products; sizes are in bytes, times in
# seconds.


Precision = Literal["bf16", "fp8"]

MFU = (0.3, 0.6)
"""The share of the data sheet's dense peak that matrix products reach, low and high. They limit
prefill of large batches; below a third something is wrong, above six tenths is rare."""

READ_BYTES_PER_S = (2e8, 1e9)
"""How fast weights load: from a network volume, from a local disk."""

PREPARE_S = (60.0, 240.0)
"""Imports, compiling, CUDA graphs and warm-up: with a warm cache, and the first time on a slow
node. An assumption, and the most uncertain one."""

MEMORY_SHARE = 0.9
"""The share of the GPU's memory that vLLM takes (its ``gpu_memory_utilization``)."""

CONTEXT_BYTES = 1.5e9
"""CUDA's context, libraries' workspaces and captured graphs."""

UTILISATION = 0.3
"""The share of the throughput that costs are based on, as in config/cost.toml: peaks, nights and
rollouts take the rest."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A dense decoder with gated feed-forward layers and grouped keys (Llama, Qwen2)."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each linear layer of one block: q, k, v, o, gate, up, down."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            (self.hidden, wide),
            (self.hidden, narrow),
            (self.hidden, narrow),
            (wide, self.hidden),
            (self.hidden, self.intermediate),
            (self.hidden, self.intermediate),
            (self.intermediate, self.hidden),
        )

    @property
    def block_weights(self) -> int:
        """Weights of all blocks' linear layers, used for every token."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def head_weights(self) -> int:
        """Weights of the output layer, used for one position of a message."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters: blocks, embeddings, output layer, norms, biases."""
        biases = (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        norms = self.layers * 2 * self.hidden + self.hidden
        tables = self.head_weights * (1 if self.tied else 2)
        return self.block_weights + tables + norms + self.layers * biases

    @property
    def kv_bytes(self) -> int:
        """Keys and values of one token in bfloat16."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 2

    def adapter_weights(self, rank: int) -> int:
        """Weights of a LoRA adapter on every linear layer of the blocks."""
        return rank * self.layers * sum(inputs + outputs for inputs, outputs in self.linears)


QWEN2_7B = Shape("Qwen2.5-7B", 28, 3584, 18944, 28, 4, 128, 152064, qkv_bias=True)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A data sheet: dense peaks in FLOP/s, memory in bytes and bytes/s. ``fp8`` is None if FP8
    is stored but not computed. ``hour`` is an example price; ``tokens`` and ``sequences`` are
    the batch limits of vLLM's server there (docs/gpu.md)."""

    name: str
    bf16: float
    fp8: float | None
    memory: float
    bandwidth: float
    hour: float
    tokens: int = 2048
    sequences: int = 256


GPUS = (
    Gpu("L4", 121e12, 242.5e12, 24e9, 300e9, 0.8),
    Gpu("A10G", 70e12, None, 24e9, 600e9, 1.0),
    Gpu("A100 80GB", 312e12, None, 80e9, 2039e9, 2.5),
    Gpu("H100 SXM", 989.5e12, 1979e12, 80e9, 3350e9, 4.0, tokens=8192, sequences=1024),
)
"""NVIDIA's data sheets, dense figures (half of those "with sparsity"): L4 (2023), A10G (as Amazon
publishes it), A100 80GB SXM (2022), H100 SXM (2023)."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens of a message's prompt, and how many of them are in the prefix cache."""

    tokens: int
    cached: int = 0

    @property
    def new(self) -> int:
        """Tokens to compute."""
        return self.tokens - self.cached


NO_HIT, HIT = Prompt(304), Prompt(304, 240)
"""An instruction with eleven labels and their descriptions (240 tokens, whole blocks of 16), and
a message with the end of the prompt (64)."""


def message_flops(shape: Shape, prompt: Prompt) -> tuple[float, float]:
    """The work of one message: in the blocks' linear layers, and the rest (attention, the output
    layer for one position), which stays in bfloat16 whatever the weights are."""
    seen = (prompt.tokens * (prompt.tokens + 1) - prompt.cached * (prompt.cached + 1)) // 2
    attention = 4 * shape.layers * shape.heads * shape.head_dim * seen
    return 2.0 * shape.block_weights * prompt.new, attention + 2.0 * shape.head_weights


def lora_flops(shape: Shape, rank: int, prompt: Prompt) -> float:
    """The work that an adapter adds to a message."""
    return 2.0 * shape.adapter_weights(rank) * prompt.new


def lora_bytes(shape: Shape, prompt: Prompt) -> int:
    """The bytes that an adapter moves for a message: it reads each linear layer's input again,
    and reads and writes its output again (bfloat16). The inner dimension (the rank) is left
    out."""
    token = sum(2 * inputs + 4 * outputs for inputs, outputs in shape.linears)
    return shape.layers * token * prompt.new


def weight_bytes(shape: Shape, precision: Precision) -> int:
    """The size of the weights. In FP8 the blocks' linear layers take a byte for each weight;
    embeddings and output layer stay in bfloat16."""
    if precision == "bf16":
        return 2 * shape.parameters
    return 2 * shape.parameters - shape.block_weights


def message_seconds(
    shape: Shape,
    gpu: Gpu,
    precision: Precision,
    prompt: Prompt,
    *,
    mfu: float,
    rank: int | None = 16,
) -> float:
    """The time of one message in full batches: the longer of computing and of reading the
    weights once for a batch, plus the adapter's time, whose kernels are limited by memory."""
    linear, rest = message_flops(shape, prompt)
    peak = gpu.fp8 if precision == "fp8" and gpu.fp8 is not None else gpu.bf16
    computing = linear / (peak * mfu) + rest / (gpu.bf16 * mfu)
    batch = min(gpu.tokens / prompt.new, gpu.sequences)
    reading = weight_bytes(shape, precision) / gpu.bandwidth / batch
    adding = 0.0
    if rank is not None:
        adding = lora_flops(shape, rank, prompt) / (gpu.bf16 * mfu)
        adding += lora_bytes(shape, prompt) / gpu.bandwidth
    return max(computing, reading) + adding


def messages_per_s(
    shape: Shape, gpu: Gpu, precision: Precision, prompt: Prompt, rank: int | None = 16
) -> tuple[float, float]:
    """Messages per second, low and high (``MFU``)."""
    low, high = (
        1 / message_seconds(shape, gpu, precision, prompt, mfu=mfu, rank=rank) for mfu in MFU
    )
    return low, high


def start_seconds(shape: Shape, precision: Precision) -> tuple[float, float]:
    """Seconds for a start, fast and slow: reading the weights, and the rest."""
    size = weight_bytes(shape, precision)
    slow, quick = (size / speed for speed in READ_BYTES_PER_S)
    return quick + PREPARE_S[0], slow + PREPARE_S[1]


def kv_left(
    shape: Shape, gpu: Gpu, precision: Precision, *, rank: int = 16, adapters: int = 2
) -> float:
    """Bytes left for keys and values next to weights, adapters, CUDA's context, and one batch: the
    widest layer's states (gate, up and their product) and the logits in float32 with a copy."""
    weights = float(weight_bytes(shape, precision))
    loras = 2.0 * shape.adapter_weights(rank) * adapters
    working = gpu.tokens * 3 * shape.intermediate * 2.0
    working += gpu.sequences * shape.vocabulary * 8.0
    return gpu.memory * MEMORY_SHARE - weights - loras - working - CONTEXT_BYTES


def cost_of_a_million(gpu: Gpu, rates: Sequence[float]) -> tuple[float, ...]:
    """The price of a million messages at each rate (messages/s, a share of it used)."""
    return tuple(gpu.hour / 3600 / (rate * UTILISATION) * 1e6 for rate in rates)


ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sizing.md"
MEASURED = ROOT / "docs" / "sizing.json"

_PRECISIONS: tuple[Precision, ...] = ("bf16", "fp8")


def written() -> str:
    """The page with its tables regenerated."""
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in (
        ("message", message_table()),
        ("rates", rate_table()),
        ("memory", memory_table()),
        ("measured", measured_table(read_measured())),
    ):
        begin, end = f"<!-- {name}: make sizing -->", f"<!-- /{name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        # A backslash would mean something in a replacement; none of these texts has one.
        text, count = pattern.subn("\n".join((begin, *lines, end)), text)
        if count != 1:
            raise ValueError(f"{PAGE}: {begin} ... {end} occurs {count} times")
    return text


def read_measured() -> list[dict[str, Any]]:
    """Stored runs of gpu-smoke, oldest first."""
    found: list[dict[str, Any]] = json.loads(MEASURED.read_text(encoding="utf-8"))["runs"]
    return found


def add_measured(run: dict[str, Any]) -> None:
    """Store one more run, and write the page."""
    kept = {"runs": [*read_measured(), run]}
    MEASURED.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(written(), encoding="utf-8")


def message_table() -> Iterator[str]:
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
    yield (
        "| GPU | weights | messages/s, no prefix hit | prefix hit | the adapter costs | "
        "a million messages, prefix hit |"
    )
    yield "|---|---|---|---|---|---|"
    for gpu in GPUS:
        for precision in _PRECISIONS:
            if precision == "fp8" and gpu.fp8 is None:
                continue  # stored in fp8 and computed in bf16: the same rates
            missed, hit = (messages_per_s(QWEN2_7B, gpu, precision, one) for one in (NO_HIT, HIT))
            bare = messages_per_s(QWEN2_7B, gpu, precision, HIT, rank=None)
            lost = [1 - with_it / without for with_it, without in zip(hit, bare, strict=True)]
            high, low = cost_of_a_million(gpu, hit)
            yield (
                f"| {gpu.name} | {precision} | {missed[0]:.0f} to {missed[1]:.0f} | "
                f"{hit[0]:.0f} to {hit[1]:.0f} | {lost[0]:.0%} to {lost[1]:.0%} | "
                f"{low:.1f} to {high:.1f} |"
            )


def memory_table() -> Iterator[str]:
    yield "| GPU | weights | weights, GB | left for keys and values | which is, tokens | start, s |"
    yield "|---|---|---|---|---|---|"
    for gpu in GPUS:
        for precision in _PRECISIONS:
            left = kv_left(QWEN2_7B, gpu, precision)
            quick, slow = start_seconds(QWEN2_7B, precision)
            yield (
                f"| {gpu.name} | {precision} | {weight_bytes(QWEN2_7B, precision) / 1e9:.1f} | "
                f"{left / 1e9:.1f} | {left / QWEN2_7B.kv_bytes:,.0f} | "
                f"{quick:.0f} to {slow:.0f} |"
            )


def measured_table(runs: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield (
        "| date | device | shape | ready after, s | messages/s | expected | memory, GB | "
        "largest difference from transformers | swap, s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for run in runs:
        expected = expected_rate(run["device"]) if run["shape"] == "7b" else None
        arithmetic = f"{expected[0]:.0f} to {expected[1]:.0f}" if expected else "none"
        yield (
            f"| {run['date']} | {run['device']} | {run['shape']} | "
            f"{run['ready_s']:.0f} | {run['messages_per_s']:.1f} | {arithmetic} | "
            f"{run['memory_bytes'] / 1e9:.1f} | {run['largest_difference']:.3f} | "
            f"{'no memory' if run['swap_s'] is None else format(run['swap_s'], '.1f')} |"
        )


def expected_rate(device: str) -> tuple[float, float] | None:
    """Messages per second of the GPU whose name is a word of ``device``."""
    words = set(re.split(r"[^A-Za-z0-9]+", device))
    found = next((gpu for gpu in GPUS if gpu.name.split()[0] in words), None)
    return messages_per_s(QWEN2_7B, found, "bf16", HIT) if found else None


def _row(name: str, cells: Iterable[str]) -> str:
    return " | ".join((f"| {name}", *cells)) + " |"


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` compare it."""
    text = written()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
    elif text != PAGE.read_text(encoding="utf-8"):
        print(f"{PAGE.relative_to(ROOT)} is out of date: make sizing")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
