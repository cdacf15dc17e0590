"""The trainer's half of the smoke test: adapters by its own code, what transformers makes of them,
and one training step beside its estimate. It needs PyTorch, transformers, PEFT and what they bring.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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

EXPECTED = "expected.json"
RANK, ALPHA = 16, 32.0
_SPREAD = 0.05
"""Of the second matrix's weights: the adapter then moves each layer's output by a fifth of it."""

_STEP_ROWS = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """What adapters of one base share."""

    base: Path
    store: Path
    taxonomy: Taxonomy
    tokenizer: BaseTokenizer
    spec: PromptSpec
    codes: dict[str, Code]


def run_trainer(
    work: Path, *, shape: str, device: str, messages: dict[str, str], step: bool
) -> dict[str, Any]:
    """Write two adapters into ``work/store`` and what is expected of them into ``work``; return
    the figures. The base is in ``work/base``."""
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
    labels = prepared.taxonomy.names
    scorer = Scorer(
        model, prepared.spec.prefix_ids, label_token_ids(prepared.codes, labels), layout="cached"
    )
    expected: dict[str, dict[str, list[float]]] = {}
    with model.without_adapter():
        expected["bare"] = dict(zip(messages, scorer.score(prompts).logprobs.tolist(), strict=True))
    digests = []
    for seed in (1, 2):
        manifest = write_random_adapter(prepared, model, seed)
        digests.append(manifest.digest)
        found = scorer.score(prompts)
        expected[manifest.digest] = dict(zip(messages, found.logprobs.tolist(), strict=True))
        figures["transformers_messages_per_s"] = len(prompts) / found.seconds
    write_pointer(prepared.store, pointer(digests[0], None))
    # Before the step: it takes minutes on a CPU, and may not fit.
    record = {"adapters": digests, "labels": list(labels), "messages": messages}
    text = json.dumps(record | {"expected": expected}, indent=1)
    (work / EXPECTED).write_text(text, encoding="utf-8")
    if step:
        figures["step"] = one_step(prepared, model, prompts[:_STEP_ROWS], shape)
    return figures


def prepare(base: Path, store: Path) -> Prepared:
    """Read the base's tokenizer, and make prompt and codes as a training does."""
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
    """Draw an adapter, leave it in ``model``, and store it as a training stores one."""
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
    """Return weights of the same names and shapes, drawn so that the adapter shows."""
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
    """Return the pointer that makes an adapter current; as one rolled back to, it is not compared
    with the one before, whose labels are as random as its own."""
    return Pointer(digest, "smoke", rfc3339_now(), previous, "gpu-smoke", None, "rollback")


def one_step(
    prepared: Prepared, model: LoraModel, prompts: Sequence[tuple[int, ...]], shape: str
) -> dict[str, Any]:
    """Do one training step on a few rows as the recipe for a 7B does it, packed and on a GPU by
    FlexAttention; return its seconds, its memory, and the estimate."""
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
    """Return the bytes that the trainer's preflight expects of a step (its own check before it
    loads anything); None where the recipe's library is not installed."""
    if find_spec("pydantic_settings") is None:
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
            "packing": True,
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
