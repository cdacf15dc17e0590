"""What a GPU should do with a 7B, by arithmetic: work and bytes of a message, memory, time, money.

Every figure is worked out from the model's shape, the GPU's data sheet and the assumptions below,
which are named, because nothing of it has been measured. ``tests.gpu.page`` writes the tables of
docs/sizing.md from it, and ``make gpu-smoke`` puts what it measures beside them.

Work is counted as floating-point operations, two for a weight and token (Kaplan et al. 2020, arXiv
2001.08361, section 2.1), with attention's products; sizes are in bytes, times in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Precision = Literal["bf16", "fp8"]

MFU = (0.3, 0.6)
"""The share of the data sheet's dense peak that products reach, low and high. Prefill of large
batches is bound by them; below a third something is wrong, above six tenths is rare."""

READ_BYTES_PER_S = (2e8, 1e9)
"""How fast weights come: from a network volume, from a disk of the node."""

PREPARE_S = (60.0, 240.0)
"""Imports, compiling, CUDA graphs and warm-up: with a kept cache, and the first time on a slow
node. An assumption, and the widest of them."""

MEMORY_SHARE = 0.9
"""What vLLM takes of the GPU's memory (its ``gpu_memory_utilization``)."""

CONTEXT_BYTES = 1.5e9
"""CUDA's context, libraries' workspaces and captured graphs."""

UTILISATION = 0.3
"""The share of the throughput that money is counted at, as in config/cost.toml: peaks, nights and
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
        """Weights of all blocks' linear layers: what every token is multiplied by."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def head_weights(self) -> int:
        """Weights of the output layer, which one position of a message is multiplied by."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of them: blocks, embeddings, output layer, norms, biases."""
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
    """A data sheet: dense peaks in FLOP/s, memory in bytes and bytes/s. ``fp8`` is None where FP8
    is stored and not computed. ``hour`` is an example of a price; ``tokens``, ``sequences`` are
    what vLLM's server computes at a time there (docs/gpu.md)."""

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
    """Tokens of one message's prompt, and how many of them the prefix cache holds."""

    tokens: int
    cached: int = 0

    @property
    def new(self) -> int:
        """Tokens that are computed."""
        return self.tokens - self.cached


NO_HIT, HIT = Prompt(304), Prompt(304, 240)
"""An instruction with eleven labels and their descriptions (240 tokens, whole blocks of 16), and
a message with the end of the prompt (64)."""


def message_flops(shape: Shape, prompt: Prompt) -> tuple[float, float]:
    """Return the work of one message: in the blocks' linear layers, and the rest (attention, the
    output layer for one position), which stays in bfloat16 whatever the weights are."""
    seen = (prompt.tokens * (prompt.tokens + 1) - prompt.cached * (prompt.cached + 1)) // 2
    attention = 4 * shape.layers * shape.heads * shape.head_dim * seen
    return 2.0 * shape.block_weights * prompt.new, attention + 2.0 * shape.head_weights


def lora_flops(shape: Shape, rank: int, prompt: Prompt) -> float:
    """Return the work that an adapter adds to one message."""
    return 2.0 * shape.adapter_weights(rank) * prompt.new


def lora_bytes(shape: Shape, prompt: Prompt) -> int:
    """Return the bytes that an adapter moves for one message: each linear layer's input is read
    once more, its output read and written once more (bfloat16). The inner side, as wide as the
    rank, is left out."""
    token = sum(2 * inputs + 4 * outputs for inputs, outputs in shape.linears)
    return shape.layers * token * prompt.new


def weight_bytes(shape: Shape, precision: Precision) -> int:
    """Return the size of the weights. In FP8 the blocks' linear layers are a byte a weight, and
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
    """Return the time of one message in full batches: the longer of computing and of reading the
    weights once a batch, and what the adapter adds, whose kernels wait for memory."""
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
    """Return messages a second, low and high (``MFU``)."""
    low, high = (
        1 / message_seconds(shape, gpu, precision, prompt, mfu=mfu, rank=rank) for mfu in MFU
    )
    return low, high


def start_seconds(shape: Shape, precision: Precision) -> tuple[float, float]:
    """Return how long a start takes, quick and slow: weights read, and everything else."""
    size = weight_bytes(shape, precision)
    slow, quick = (size / speed for speed in READ_BYTES_PER_S)
    return quick + PREPARE_S[0], slow + PREPARE_S[1]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a GPU by what they are for; ``kv`` is what is left, below zero where nothing is."""

    weights: float
    adapters: float
    working: float
    context: float
    kv: float


def memory(
    shape: Shape, gpu: Gpu, precision: Precision, *, rank: int = 16, adapters: int = 2
) -> Memory:
    """Return where the memory goes. ``working`` is the widest layer's states of one batch (gate, up
    and their product) and the logits of its messages in float32 with a copy."""
    weights = float(weight_bytes(shape, precision))
    loras = 2.0 * shape.adapter_weights(rank) * adapters
    working = gpu.tokens * 3 * shape.intermediate * 2.0
    working += gpu.sequences * shape.vocabulary * 8.0
    left = gpu.memory * MEMORY_SHARE - weights - loras - working - CONTEXT_BYTES
    return Memory(weights, loras, working, CONTEXT_BYTES, left)


def cost_of_a_million(gpu: Gpu, rates: Sequence[float]) -> tuple[float, ...]:
    """Return the price of a million messages at each rate (messages/s, a share of it used)."""
    return tuple(gpu.hour / 3600 / (rate * UTILISATION) * 1e6 for rate in rates)
