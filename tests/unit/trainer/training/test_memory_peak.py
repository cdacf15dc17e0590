"""The estimate is what PyTorch holds: at a 7B's width, with tensors that have no memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, Qwen2Config, masking_utils

from tests.support.fake_memory import PeakMemory, on_device
from trainer.model.lora_model import LoraModel, add_lora
from trainer.model.prompt import IGNORE_INDEX, TrainingRow
from trainer.model.scoring import BATCH_TOKENS, score_batch, token_batches
from trainer.training.layout import attention_of, layout_of
from trainer.training.memory import MemoryParts, estimate
from trainer.training.objective import CodeObjective
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.shape import BaseShape

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[4] / "config" / "trainer.toml"
PLACES = {"base": Path("base"), "dataset": Path("data"), "run": Path("run")}
CPU = torch.device("cpu")
RANK, PREFIX, LONGEST = 16, 96, 512
LABELS = tuple(range(11))
LAYERS = 4
"""Enough that what each layer keeps is most of it; all 28 take minutes."""


@dataclass(frozen=True)
class Case:
    """A recipe's settings and whether arithmetic is rounded to bfloat16."""

    bf16: bool
    settings: dict[str, Any]


WHOLE = {"share_prefix": False, "attn_implementation": "sdpa", "micro_batch_size": 4}
PACKED = {"packing": True, "attn_implementation": "sdpa"}
CASES = {
    "as shipped": Case(True, PACKED | {"gradient_checkpointing": True}),
    "packed, not checkpointed": Case(True, PACKED | {"gradient_checkpointing": False}),
    "whole rows, checkpointed": Case(True, WHOLE | {"gradient_checkpointing": True}),
    "not checkpointed": Case(True, WHOLE | {"gradient_checkpointing": False}),
    "without dropout": Case(True, WHOLE | {"gradient_checkpointing": False, "lora_dropout": 0}),
    "plain bfloat16": Case(
        False, WHOLE | {"gradient_checkpointing": False, "mixed_precision": "no"}
    ),
    "plain bfloat16, checkpointed": Case(
        False, WHOLE | {"gradient_checkpointing": True, "mixed_precision": "no"}
    ),
    "cached prefix": Case(
        True, WHOLE | {"gradient_checkpointing": False, "share_prefix": True, "packing": False}
    ),
    "float32": Case(
        False,
        WHOLE
        | {
            "gradient_checkpointing": False,
            "base_dtype": "float32",
            "mixed_precision": "no",
            "lora_dropout": 0,
        },
    ),
}


@pytest.fixture(autouse=True)
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers takes fake tensors for a trace, and then makes a mask that it needs nowhere."""
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda _: None)


def recipe(case: Case) -> Recipe:
    return load_recipe(CONFIG, PLACES | case.settings)


def qwen_7b(layers: int, dtype: str, attention: str, device: str = "meta") -> tuple[Any, BaseShape]:
    """Return Qwen2.5-7B, as wide as it is and with so many layers, and its shape."""
    config = Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=layers,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    with torch.device(device):
        causal_lm = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation=attention
        )
    linear = [
        module
        for name, module in causal_lm.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    shape = BaseShape(
        weights=sum(weights.numel() for weights in causal_lm.parameters()),
        linear_weights=sum(module.weight.numel() for module in linear),
        adapter_weights_per_rank=sum(sum(module.weight.shape) for module in linear),
        layers=layers,
        hidden=3584,
        intermediate=18944,
        heads=28,
        attention=3584,
        key_value=512,
        vocabulary=152064,
    )
    return causal_lm, shape


def model_without_memory(given: Recipe) -> tuple[LoraModel, BaseShape]:
    """Return the base with LoRA layers, on no device yet."""
    causal_lm, shape = qwen_7b(LAYERS, given.base_dtype, given.attn_implementation)
    model = add_lora(
        causal_lm,
        rank=RANK,
        alpha=32,
        dropout=given.lora_dropout,
        device=torch.device("meta"),
        gradient_checkpointing=given.gradient_checkpointing is True,
    )
    return replace(model, device=CPU), shape


def step_peak(model: LoraModel, given: Recipe, *, bf16: bool, device: str = "cpu") -> int:
    """Return the bytes of a training step at its peak, the optimizer's moments among them."""
    prompt = (1,) * LONGEST
    row = TrainingRow("x", (*prompt, 2), (IGNORE_INDEX,) * LONGEST + (2,))
    weights = model.trainable_parameters()
    moments = [torch.zeros_like(tensor) for tensor in weights for _ in range(2)]
    for tensor in weights:
        tensor.grad = torch.zeros_like(tensor)
    gradients = [tensor.grad for tensor in weights if tensor.grad is not None]
    held = [*model.peft_model.parameters(), *model.peft_model.buffers(), *moments, *gradients]
    objective = CodeObjective(
        model,
        torch.zeros(PREFIX, dtype=torch.long, device=device),
        LABELS,
        (),
        layout=layout_of(given, on_gpu=False),
        label_smoothing=0.0,
        sublabel_weight=0.0,
    )
    model.peft_model.train()
    memory = PeakMemory(held)
    with memory:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            total, *_ = objective.summed([row] * given.micro_batch_size)
        total.backward()  # type: ignore[no-untyped-call]
    return memory.peak


def scoring_peak(model: LoraModel, given: Recipe) -> int:
    """Return the bytes of a scoring batch at its peak: the longest rows that there are."""
    lengths = [LONGEST] * 64
    prompts = [(1,) * LONGEST for _ in next(token_batches(lengths))]
    assert LONGEST * len(prompts) <= BATCH_TOKENS
    model.peft_model.eval()
    memory = PeakMemory([*model.peft_model.parameters(), *model.peft_model.buffers()])
    with memory, torch.inference_mode():
        prefix, codes = torch.zeros(PREFIX, dtype=torch.long), torch.tensor(LABELS)
        score_batch(model.causal_lm, prefix, codes, prompts, layout=layout_of(given, on_gpu=False))
    return memory.peak


def estimated(case: Case, given: Recipe, shape: BaseShape) -> MemoryParts:
    """Return the estimate for the operations that a CPU is given, without its heap's holes."""
    return estimate(
        shape,
        given,
        prefix_tokens=PREFIX,
        longest_tokens=LONGEST,
        bf16=case.bf16,
        gradient_checkpointing=given.gradient_checkpointing is True,
        on_cpu=True,
        heap=1.0,
    )


@pytest.mark.parametrize("name", CASES)
def test_a_training_step_holds_what_was_estimated(name: str) -> None:
    """Within 5 % of the whole, and within a tenth of what there is beside the weights."""
    case, given = CASES[name], recipe(CASES[name])
    model, shape = model_without_memory(given)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_device(model.peft_model, "cpu")
        peak = step_peak(model, given, bf16=case.bf16)
    found = estimated(case, given, shape)
    assert found.training - found.overhead == pytest.approx(peak, rel=0.05)
    weights = found.base + found.adapter
    assert found.activations + found.logits == pytest.approx(peak - weights, rel=0.1)


@pytest.mark.parametrize(
    "name", ["as shipped", "whole rows, checkpointed", "cached prefix", "float32"]
)
def test_scoring_holds_what_was_estimated(name: str) -> None:
    """Within 5 % of the whole, and within a tenth of what there is beside the weights. No
    optimizer takes part: of the adapter there are its values."""
    case, given = CASES[name], recipe(CASES[name])
    model, shape = model_without_memory(given)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_device(model.peft_model, "cpu")
        peak = scoring_peak(model, given)
    found = estimated(case, given, shape)
    weights = found.served_base + 4 * RANK * shape.adapter_weights_per_rank
    assert weights + found.scoring == pytest.approx(peak, rel=0.05)
    assert found.scoring == pytest.approx(peak - weights, rel=0.1)


def test_dropout_is_in_the_estimate_where_its_masks_are_kept() -> None:
    """A byte for each number that a LoRA layer reads, on a GPU; on a CPU a float."""
    _, shape = qwen_7b(1, "bfloat16", "sdpa")
    with_it, without = CASES["not checkpointed"], CASES["without dropout"]
    sizes: Any = {"prefix_tokens": PREFIX, "longest_tokens": LONGEST, "bf16": True}
    sizes["gradient_checkpointing"] = False
    found = [estimate(shape, recipe(case), **sizes) for case in (with_it, without)]
    difference = found[0].activations - found[1].activations
    read = 5 * shape.hidden + shape.attention + shape.intermediate
    assert difference >= 4 * LONGEST * read


def on_a_gpu(given: Recipe, *, bf16: bool) -> tuple[int, MemoryParts]:
    """Return a real step's peak on this GPU, and its estimate."""
    attention = attention_of(given, on_gpu=True)
    causal_lm, shape = qwen_7b(LAYERS, given.base_dtype, attention, "cuda")
    model = add_lora(
        causal_lm,
        rank=RANK,
        alpha=32,
        dropout=given.lora_dropout,
        device=torch.device("cuda"),
        gradient_checkpointing=given.gradient_checkpointing is True,
    )
    torch.cuda.reset_peak_memory_stats()
    peak = step_peak(model, given, bf16=bf16, device="cuda")
    assert peak > 0
    found = estimate(
        shape,
        given,
        prefix_tokens=PREFIX,
        longest_tokens=LONGEST,
        bf16=bf16,
        gradient_checkpointing=given.gradient_checkpointing is True,
    )
    return torch.cuda.max_memory_allocated(), found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(
    "name", ["as shipped", "packed, not checkpointed", "not checkpointed", "without dropout"]
)
def test_a_gpu_holds_what_was_estimated(name: str) -> None:
    """With its own kernels, whose dropout keeps a byte, FlexAttention's where it packs. Within a
    tenth."""
    case = CASES[name]
    given = recipe(replace(case, settings=case.settings | {"attn_implementation": "auto"}))
    peak, found = on_a_gpu(given, bf16=case.bf16)
    assert found.training - found.overhead == pytest.approx(peak, rel=0.1)
