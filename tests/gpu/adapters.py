"""The trainer's half of the smoke test: adapters written by its own code, transformers' answers,
and one training step next to its estimate. It needs PyTorch, transformers and PEFT.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from trainer.model.device import describe_device, free_memory, peak_memory, resolve_device
from trainer.model.forward import answer_logits
from trainer.model.lora_model import (
    LoraModel,
    encode_prompts,
    label_token_ids,
    load_lora_model,
    round_weights,
    write_weights,
)
from trainer.model.prompt import BaseTokenizer, load_renderer, load_tokenizer, make_prompt
from trainer.model.scoring import Scorer
from worker.contract import (
    Calibration,
    Code,
    Manifest,
    PromptSpec,
    Taxonomy,
    Thresholds,
    describe_base,
    load_adapter,
    make_golden,
    verify_tokens,
    write_manifest,
)
from worker.contract.store import Pointer, write_pointer
from worker.contract.timestamps import rfc3339_now

# A base with the shape of a 7B, or a small one, generated with random weights.
#
# Its answers are worth nothing, but it takes as long and computes as much as a real one. Weights
# are drawn and written one file at a time, so no more than one is in memory.


SHAPES: dict[str, dict[str, Any]] = {
    # config.json of Qwen2.5-7B-Instruct.
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "sliding_window": 131072,
        "rope_theta": 1_000_000.0,
    },
    "small": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 2048,
        "max_position_embeddings": 4096,
        "max_window_layers": 2,
        "rope_theta": 10_000.0,
    },
    # Next to nothing to compute: what is left is the host's work for a message.
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 2048,
        "max_position_embeddings": 4096,
        "max_window_layers": 1,
        "rope_theta": 10_000.0,
    },
}

_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LEARNED = 1024
"""Tokens learned from the messages; the rest of the vocabulary never occurs."""

_PADDED = 418
"""Unused rows at the end of Qwen2.5's tables: it has 152,064 rows for 151,646 tokens. Left
out in small vocabularies."""

_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BASE_SPREAD = 0.02
_FILE_BYTES = 2_000_000_000


def make_base(directory: Path, shape: str, texts: list[str], device: str, seed: int = 1) -> None:
    """Write a base of that shape into a new directory: config, tokenizer, weights in bfloat16.
    The tokenizer is learned from ``texts``; weights are drawn on ``device``."""
    directory.mkdir(parents=True)
    sizes = SHAPES[shape]
    tokenizer = make_tokenizer(texts, sizes["vocab_size"])
    tokenizer.save_pretrained(directory)
    config = Qwen2Config(
        **sizes,
        hidden_act="silu",
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        use_sliding_window=False,
        bos_token_id=tokenizer.convert_tokens_to_ids(_CONTROL[0]),
        eos_token_id=tokenizer.convert_tokens_to_ids(_CONTROL[2]),
        dtype="bfloat16",
        architectures=["Qwen2ForCausalLM"],
    )
    config.save_pretrained(directory)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    write_random_weights(directory, dict(model.state_dict()), device, seed)


def make_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer with as many tokens as a base of that vocabulary. Tokens that
    are not learned from ``texts`` are fillers that no text contains, so that ids and tables
    are as large as the real ones."""
    control = vocabulary - (_PADDED if vocabulary > 4 * _PADDED else 0) - len(_CONTROL)
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=min(_LEARNED, control),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learned.train_from_iterator(texts, trainer)
    model = json.loads(learned.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    merges = [tuple(pair) for pair in model["merges"]]
    vocab |= {f"<unused-{number}>": number for number in range(len(vocab), control)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(_CONTROL))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=_CONTROL[2],
        pad_token=_CONTROL[0],
        chat_template=_CHAT,
        clean_up_tokenization_spaces=False,
    )


def write_random_weights(
    directory: Path, shapes: dict[str, Tensor], device: str, seed: int
) -> None:
    """Draw weights of these shapes (tensors without memory) and write them, with their index."""
    generator = torch.Generator(device).manual_seed(seed)
    files = list(_files(shapes))
    index: dict[str, str] = {}
    for number, names in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        drawn = {one: _draw(one, shapes[one], generator).cpu() for one in names}
        save_file(drawn, directory / name, metadata={"format": "pt"})
        index |= dict.fromkeys(names, name)
    total = sum(2 * one.numel() for one in shapes.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
    (directory / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _files(shapes: dict[str, Tensor]) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if names and size + 2 * shape.numel() > _FILE_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += 2 * shape.numel()
    yield names


def _draw(name: str, shape: Tensor, generator: torch.Generator) -> Tensor:
    made = torch.empty(shape.shape, dtype=torch.bfloat16, device=generator.device)
    if "norm" in name:
        return made.fill_(1.0)
    return made.normal_(0.0, _BASE_SPREAD, generator=generator)


EXPECTED = "expected.json"
RANK, ALPHA = 16, 32.0
_SPREAD = 0.05
"""Of the second matrix's weights: the adapter then moves each layer's output by a fifth."""

_STEP_ROWS = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    base: Path
    store: Path
    taxonomy: Taxonomy
    tokenizer: BaseTokenizer
    spec: PromptSpec
    codes: dict[str, Code]


def run_trainer(
    work: Path, *, shape: str, device: str, messages: dict[str, str], step: bool
) -> dict[str, Any]:
    """Write two adapters into ``work/store`` and their expected scores into ``work``; return the
    figures. The base is in ``work/base``."""
    began = time.perf_counter()
    prepared = prepare(work / "base", work / "store")
    chosen = resolve_device(device)
    model = load_lora_model(
        prepared.base,
        rank=RANK,
        alpha=ALPHA,
        dropout=0.0,
        base_dtype="bfloat16",
        attn_implementation="sdpa",
        device=str(chosen),
        gradient_checkpointing=shape == "7b",
    )
    figures: dict[str, Any] = {
        "device": describe_device(device),
        "load_s": time.perf_counter() - began,
        "versions": {"torch": torch.__version__},
    }
    prompts = list(encode_prompts(messages, prepared.spec, prepared.tokenizer).values())
    scorer = Scorer(model, prepared.spec.prefix_ids, prepared.codes, layout="cached")
    expected: dict[str, dict[str, list[float]]] = {}
    with model.without_adapter():
        expected["bare"] = dict(zip(messages, scorer.score(prompts).logprobs.tolist(), strict=True))
    labels = prepared.taxonomy.names
    digests = []
    for seed in (1, 2):
        manifest = write_random_adapter(prepared, model, seed)
        digests.append(manifest.digest)
        found = scorer.score(prompts)
        expected[manifest.digest] = dict(zip(messages, found.logprobs.tolist(), strict=True))
        figures["transformers_messages_per_s"] = len(prompts) / found.seconds
    write_pointer(prepared.store, pointer(digests[0], None))
    # Before the step, which takes minutes on a CPU and may not fit.
    record = {"adapters": digests, "labels": list(labels), "messages": messages}
    text = json.dumps(record | {"expected": expected}, indent=1)
    (work / EXPECTED).write_text(text, encoding="utf-8")
    if step:
        figures["step"] = one_step(prepared, model, prompts[:_STEP_ROWS], shape)
    return figures


def prepare(base: Path, store: Path) -> Prepared:
    """Read the base's tokenizer; make prompt and codes as training does."""
    tokenizer = load_tokenizer(base)
    taxonomy = Taxonomy.from_toml(Path(__file__).parents[2] / "config" / "taxonomy.toml")
    spec, codes = make_prompt(
        taxonomy,
        tokenizer.encoders,
        load_renderer(base),
        instruction="File the customer's message under one category. Answer with its letter.",
        list_labels=True,
        descriptions=True,
        max_message_tokens=256,
        prefix_block=None,
    )
    return Prepared(base, store, taxonomy, tokenizer, spec, dict(codes))


def write_random_adapter(prepared: Prepared, model: LoraModel, seed: int) -> Manifest:
    """Draw an adapter, leave it in ``model``, and store it as training does."""
    state = round_weights(draw(model.state_dict(), seed), "bfloat16")
    model.load_state_dict(state)
    draft = prepared.store / f".draft-{seed}"
    name = f"smoke-{seed}"
    base = describe_base(prepared.base, "random", "1")
    manifest = Manifest(
        name=name,
        created_at=rfc3339_now(),
        kind="lora-code",
        base=base,
        taxonomy=prepared.taxonomy,
        prompt=prepared.spec,
        decoding="code",
        codes=prepared.codes,
        lora=model.lora,
        calibration=Calibration(1.0, 1),
        thresholds=Thresholds(None),
        golden=make_golden(prepared.spec, prepared.tokenizer.encoders),
        files=write_weights(draft, state, model.adapter_config("random"), "bfloat16"),
    )
    write_manifest(draft, manifest)
    made = load_adapter(draft)
    verify_tokens(made, prepared.tokenizer.encoders, prepared.base / "tokenizer.json")
    draft.rename(prepared.store / made.digest)
    return made


def draw(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Random weights of the same names and shapes, large enough for the adapter to show."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, old in state.items():
        made = torch.empty(old.shape)
        if "lora_B" in name:
            made.normal_(0.0, _SPREAD, generator=generator)
        else:
            bound = old.shape[-1] ** -0.5
            made.uniform_(-bound, bound, generator=generator)
        drawn[name] = made.to(old.device)
    return drawn


def pointer(digest: str, previous: str | None) -> Pointer:
    """The pointer that makes an adapter current, as a rollback: then it is not compared with the
    previous one, whose labels are just as random."""
    return Pointer(digest, "smoke", rfc3339_now(), previous, "gpu-smoke", None, "rollback")


def one_step(
    prepared: Prepared, model: LoraModel, prompts: Sequence[tuple[int, ...]], shape: str
) -> dict[str, Any]:
    """One training step on a few rows as in the 7B recipe, packed, and on a GPU with
    FlexAttention; returns its seconds, its memory, and the estimate."""
    device = model.device
    if device.type == "cuda":
        model.causal_lm.set_attn_implementation("flex_attention")
        torch.cuda.reset_peak_memory_stats(device)
    estimated = estimate_step(prepared, max(map(len, prompts)), shape, device)
    ids = label_token_ids(prepared.codes, prepared.taxonomy.names)
    drawn = random.Random(1)
    targets = torch.tensor([drawn.choice(ids) for _ in prompts], device=device)
    prefix = torch.tensor(prepared.spec.prefix_ids, device=device)
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-4)
    model.peft_model.train()
    began = time.perf_counter()
    logits = answer_logits(model.causal_lm, prefix, prompts, layout="packed")
    loss = torch.nn.functional.cross_entropy(logits, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    value = float(loss.detach())
    found: dict[str, Any] = {
        "loss": value,
        "seconds": time.perf_counter() - began,
        "rows": len(prompts),
        "peak_bytes": peak_memory(device),
        "estimated_bytes": estimated,
        "free_bytes": free_memory(device),
    }
    if not value > 0:
        raise RuntimeError(f"the step's loss is {value}")
    return found


def estimate_step(prepared: Prepared, longest: int, shape: str, device: torch.device) -> int | None:
    """The trainer's own preflight estimate of a step in bytes; None if the recipe's library is
    not installed."""
    if find_spec("pydantic") is None:
        return None
    from trainer.training.memory import estimate, heap_on, read_shape
    from trainer.training.recipe import load_recipe

    recipe = load_recipe(
        Path(__file__).parents[2] / "config" / "trainer.toml",
        {
            "base": prepared.base,
            "dataset": prepared.store,
            "run": prepared.store,
            "micro_batch_size": _STEP_ROWS,
            "lora_dropout": 0.0,
            "prompt_layout": "packed",
            "attn_implementation": "flex_attention" if device.type == "cuda" else "sdpa",
        },
    )
    found = estimate(
        read_shape(prepared.base),
        recipe,
        prefix_tokens=len(prepared.spec.prefix_ids),
        longest_tokens=longest,
        bf16=False,
        gradient_checkpointing=shape == "7b",
        on_cpu=device.type == "cpu",
        heap=heap_on(device),
    )
    return found.training
