"""The demo's adapter with a classification head in the place of its codes: a `lora-head` on disk.

The head's weights are drawn from a seed; the golden logits are the trainer's.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support.published import digests
from trainer.model.head_scoring import Floats, HeadScorer
from trainer.model.lora_head import HEAD_KEY, HEAD_MODULE, add_head
from trainer.model.lora_model import CONFIG, WEIGHTS, load_adapter_model, read_weights
from worker.contract import (
    GoldenLogits,
    Head,
    HeadOutput,
    Manifest,
    Thresholds,
    read_manifest,
    write_manifest,
)

_SPREAD = 6.0
"""Standard deviation of the golden logits: most messages have a clear winner."""


def write_head_adapter(
    directory: Path, lora_code: Path, base: Path, *, finer: int = 2, seed: int = 1
) -> Manifest:
    """Write the adapter into a new ``directory``: ``finer`` outputs for each label. Return its
    manifest."""
    shutil.copytree(lora_code, directory)
    original = read_manifest(lora_code)
    names = original.taxonomy.names
    outputs = tuple(HeadOutput(f"{name}.{at}", name) for name in names for at in range(finer))
    body = load_adapter_model(lora_code, base, original, device="cpu")
    model = add_head(body, len(outputs), original.prompt.prefix_ids, layout="whole")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.head.weight.copy_(torch.randn(model.head.weight.shape, generator=generator))
    prompts = [golden.ids for golden in original.golden]
    scorer = HeadScorer(model)
    with torch.no_grad():
        model.head.weight.mul_(_SPREAD / float(scorer.logits(prompts).std()))
    logits = scorer.logits(prompts)
    weights = read_weights(lora_code) | {HEAD_KEY: model.head.weight.detach().clone()}
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    config |= {"task_type": "SEQ_CLS", "modules_to_save": [HEAD_MODULE]}
    (directory / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    found = digests(directory)
    manifest = replace(
        original,
        name="head-0",
        kind="lora-head",
        decoding=None,
        codes={},
        thresholds=Thresholds(0.5, None, 0.0),
        head=_head(outputs, logits, vocabulary=int(body.causal_lm.config.vocab_size)),
        files={name: found[name] for name in (CONFIG, WEIGHTS)},
        reference=None,
    )
    write_manifest(directory, manifest)
    return read_manifest(directory)


def _head(
    outputs: tuple[HeadOutput, ...],
    logits: Floats,
    *,
    vocabulary: int,
) -> Head:
    return Head(
        outputs=outputs,
        pooling="last",
        normalize=False,
        out_of_scope="energy",
        vocabulary=vocabulary,
        pad_id=0,
        weights=(WEIGHTS,),
        golden_logits=tuple(
            GoldenLogits(at, tuple(map(float, row))) for at, row in enumerate(logits)
        ),
    )
