"""The memory estimate is read from file headers, and is close to what PyTorch then holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, Qwen2Config, masking_utils

from tests.support.fake_memory import PeakMemory, on_device
from trainer.errors import BadInput
from trainer.model.encoder import Classifier
from trainer.model.lora_model import LoraModel, add_lora
from trainer.model.prompt import Row
from trainer.model.scoring import BATCH_TOKENS, score_batch, token_batches
from trainer.training import memory
from trainer.training.arithmetic import layout_of
from trainer.training.memory import (
    OVERHEAD,
    BaseShape,
    MemoryParts,
    estimate,
    estimate_encoder,
    plan_memory,
    read_shape,
)
from trainer.training.objective import CodeObjective
from trainer.training.recipe import Recipe, load_recipe

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[4] / "config"
PLACES = {"base": Path("base"), "dataset": Path("data"), "run": Path("run")}
SEVEN_B = BaseShape(7_615_616_512, 6_525_288_448, 2_523_136, 28, 3584, 18944, 28, 3584, 512, 152064)
CUDA = torch.device("cuda")


def recipe(name: str = "trainer.toml", **more: object) -> Recipe:
    return load_recipe(CONFIG / name, PLACES | more)


def test_the_shape_is_read_without_loading_a_weight(
    tiny_base: Path, make_lora_model: Callable[..., LoraModel]
) -> None:
    from transformers import AutoModelForCausalLM

    shape = read_shape(tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    assert shape.weights == sum(weights.numel() for weights in model.parameters())
    adapter = make_lora_model().trainable_parameters()
    assert 4 * shape.adapter_weights_per_rank == sum(weights.numel() for weights in adapter)
    some = read_shape(tiny_base, ("q_proj",))
    assert 0 < some.adapter_weights_per_rank < shape.adapter_weights_per_rank
    with pytest.raises(BadInput, match=r"config\.json"):
        read_shape(tiny_base / "nowhere")


def test_weights_that_a_base_holds_twice_are_counted_once(tiny_base: Path, tmp_path: Path) -> None:
    """Mistral's bases have ``consolidated.safetensors`` in addition to the shards of the index."""
    whole = read_shape(tiny_base)
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    shutil.copy(base / "model.safetensors", base / "consolidated.safetensors")
    assert read_shape(base) == whole
    state = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: state[name] for name in held}, base / file)
    index = {name: file for file, held in shards.items() for name in held}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), "utf-8")
    assert read_shape(base) == whole


def test_the_recipe_for_7b_fits_a_card_of_24_gb() -> None:
    """As config/trainer.toml claims."""
    sizes: Any = {"prefix_tokens": 90, "longest_tokens": 600, "bf16": True}
    found = estimate(SEVEN_B, recipe(), gradient_checkpointing=True, **sizes)
    assert found.base == pytest.approx(15.2e9, rel=0.01)
    assert found.adapter == pytest.approx(0.73e9, rel=0.02)
    assert 1.1 * found.total < 24e9
    assert found.scored < found.training
    without = estimate(SEVEN_B, recipe(), gradient_checkpointing=False, **sizes)
    assert without.total > 24e9
    four_bits = recipe(load_in_4bit=True, serve_in_4bit=True)
    small = estimate(SEVEN_B, four_bits, gradient_checkpointing=True, **sizes)
    assert 1.1 * small.total < 12e9


def test_a_base_of_four_bits_that_is_served_in_more_needs_room_for_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is calibrated on the base that serves."""
    sizes: Any = {"prefix_tokens": 90, "longest_tokens": 600, "bf16": True}
    monkeypatch.setattr(memory, "free_memory", lambda _: 16_000_000_000)
    with pytest.raises(BadInput, match=r"served base 15\.2 GB, .* serve_in_4bit=true, if workers"):
        plan_memory(SEVEN_B, recipe(load_in_4bit=True), CUDA, **sizes)
    plan = plan_memory(SEVEN_B, recipe(load_in_4bit=True, serve_in_4bit=True), CUDA, **sizes)
    assert plan.estimate.served_base == plan.estimate.base < 6e9


def test_checkpointing_starts_when_memory_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" is off if the training fits, on if it does not; an error if that does not help."""
    sizes: Any = {"prefix_tokens": 90, "longest_tokens": 600, "bf16": True}
    for free, wanted in ((80e9, False), (24e9, True)):
        monkeypatch.setattr(memory, "free_memory", lambda _, free=free: int(free))
        assert plan_memory(SEVEN_B, recipe(), CUDA, **sizes).gradient_checkpointing is wanted
    monkeypatch.setattr(memory, "free_memory", lambda _: 10_000_000_000)
    with pytest.raises(BadInput, match=r"about 19\.\d GB, but 10\.0 GB .* load_in_4bit=true"):
        plan_memory(SEVEN_B, recipe(), CUDA, **sizes)
    unchecked = plan_memory(SEVEN_B, recipe(memory_check=False), CUDA, **sizes)
    assert unchecked.gradient_checkpointing is True


# The estimate for an encoder, compared with PyTorch's tensors (fake ones, without memory) at the
# width of all-MiniLM-L6-v2.


HIDDEN, ENCODER_LAYERS = 384, 6
ROWS, CLASSES = 32, 77
SHIPPED = Path(__file__).parents[4] / "config" / "trainer-encoder.toml"


def encoder_recipe(**more: object) -> Recipe:
    return load_recipe(
        SHIPPED, {"base": "b", "dataset": "d", "run": "r", "batch_size": ROWS} | more
    )


def minilm() -> Any:
    """Return a BERT of that shape."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=ENCODER_LAYERS,
        num_attention_heads=12,
        vocab_size=30522,
        attn_implementation="sdpa",
    )
    return BertModel(config, add_pooling_layer=False)


def peak_of_a_step(tokens: int, *, bf16: bool) -> int:
    """Return the bytes at the peak of a training step on a GPU's kernels, weights included."""
    with torch.device("meta"):
        backbone = minilm()
        head = torch.nn.Linear(HIDDEN, CLASSES)
    classifier = Classifier(backbone, head, pooling="mean", unit=False).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_device(classifier, "cpu")
        weights = list(classifier.parameters())
        optimizer = torch.optim.AdamW(weights, foreach=False)
        ids = torch.ones(ROWS, tokens, dtype=torch.int64)
        with PeakMemory(weights) as memory:
            for _ in range(2):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                    loss = classifier(ids, torch.ones_like(ids)).logsumexp(dim=1).sum()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    return int(memory.peak)


def shape() -> BaseShape:
    with torch.device("meta"):
        model = minilm()
    config, weights = model.config, sum(each.numel() for each in model.parameters())
    return BaseShape(
        weights=weights,
        linear_weights=weights // 2,
        adapter_weights_per_rank=0,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        attention=config.hidden_size,
        key_value=config.hidden_size,
        vocabulary=config.vocab_size,
    )


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("tokens", [32, 192])
def test_the_estimate_is_what_a_step_holds(tokens: int, bf16: bool) -> None:
    parts = estimate_encoder(
        shape(), encoder_recipe(), longest_tokens=tokens, classes=CLASSES, bf16=bf16, heap=1.0
    )
    found = peak_of_a_step(tokens, bf16=bf16)
    assert 0.95 < (parts.training - OVERHEAD) / found < 1.5


# The estimate for LoRA, compared with PyTorch's fake tensors at a 7B's width.


GPU_RECIPE = Path(__file__).parents[4] / "config" / "trainer.toml"
CPU = torch.device("cpu")
RANK, PREFIX, LONGEST = 16, 96, 512
LABELS = tuple(range(11))
LAYERS = 4
"""Enough that layers dominate; all 28 take minutes."""


@dataclass(frozen=True)
class Case:
    """A recipe's settings, and whether it computes in bfloat16."""

    bf16: bool
    settings: dict[str, Any]


WHOLE = {"prompt_layout": "whole", "attn_implementation": "sdpa", "micro_batch_size": 4}
PACKED = {"prompt_layout": "packed", "attn_implementation": "sdpa"}
CASES = {
    "as shipped": Case(True, PACKED | {"gradient_checkpointing": True}),
    "whole rows, checkpointed": Case(True, WHOLE | {"gradient_checkpointing": True}),
    "not checkpointed": Case(True, WHOLE | {"gradient_checkpointing": False}),
    "plain bfloat16": Case(
        False, WHOLE | {"gradient_checkpointing": False, "mixed_precision": "no"}
    ),
    "cached prefix": Case(
        True, WHOLE | {"gradient_checkpointing": False, "prompt_layout": "cached"}
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
    """Transformers mistakes fake tensors for a trace and would build an unneeded mask."""
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda _: None)


def peak_recipe(case: Case) -> Recipe:
    return load_recipe(GPU_RECIPE, PLACES | case.settings)


def qwen_7b(layers: int, dtype: str, attention: str) -> tuple[Any, BaseShape]:
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
    with torch.device("meta"):
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


def step_peak(model: LoraModel, given: Recipe, *, bf16: bool) -> int:
    """Return the bytes of a training step at its peak, the optimizer's moments among them."""
    prompt = (1,) * LONGEST
    row = Row("x", prompt, 2)
    weights = model.trainable_parameters()
    moments = [torch.zeros_like(tensor) for tensor in weights for _ in range(2)]
    for tensor in weights:
        tensor.grad = torch.zeros_like(tensor)
    gradients = [tensor.grad for tensor in weights if tensor.grad is not None]
    held = [*model.peft_model.parameters(), *model.peft_model.buffers(), *moments, *gradients]
    objective = CodeObjective(
        model,
        torch.zeros(PREFIX, dtype=torch.long),
        LABELS,
        (),
        layout=layout_of(given, on_gpu=False),
        label_smoothing=0.0,
        sublabel_weight=0.0,
    )
    model.peft_model.train()
    memory = PeakMemory(held)
    with memory:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
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
    """Within 5 % of the total, and within 10 % without the weights."""
    case, given = CASES[name], peak_recipe(CASES[name])
    model, shape = model_without_memory(given)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_device(model.peft_model, "cpu")
        peak = step_peak(model, given, bf16=case.bf16)
    found = estimated(case, given, shape)
    assert found.training - found.overhead == pytest.approx(peak, rel=0.05)
    weights = found.base + found.adapter
    assert found.activations + found.logits == pytest.approx(peak - weights, rel=0.1)


@pytest.mark.parametrize("name", ["as shipped", "cached prefix", "float32"])
def test_scoring_holds_what_was_estimated(name: str) -> None:
    """Within 5 % of the total, and within 10 % without the weights."""
    case, given = CASES[name], peak_recipe(CASES[name])
    model, shape = model_without_memory(given)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_device(model.peft_model, "cpu")
        peak = scoring_peak(model, given)
    found = estimated(case, given, shape)
    weights = found.served_base + 4 * RANK * shape.adapter_weights_per_rank
    assert weights + found.scoring == pytest.approx(peak, rel=0.05)
    assert found.scoring == pytest.approx(peak - weights, rel=0.1)
