"""A published adapter, verified and loaded on its base, ready to score. One of the files that
import ``safetensors``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from trainer.errors import BadInput
from trainer.model.student import WEIGHTS, LoraModel, load_student
from trainer.model.tokens import BaseTokenizer, load_tokenizer
from worker.contract import Code, Manifest, PromptSpec, build_prompt, verify_adapter


@dataclass(frozen=True, slots=True)
class OpenedAdapter:
    """An adapter on its base. ``student`` runs with the adapter's weights in it."""

    directory: Path
    manifest: Manifest
    tokenizer: BaseTokenizer
    student: LoraModel

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the taxonomy's order: the columns of every score."""
        return self.manifest.taxonomy.names


def read_adapter(directory: Path, base: Path) -> tuple[Manifest, BaseTokenizer]:
    """Verify everything a worker verifies (files, base, token ids, golden prompts).

    Raises AdapterRefused, or BadInput for an adapter that answers in words.
    """
    tokenizer = load_tokenizer(base)
    manifest = verify_adapter(directory, base, tokenizer.encoders)
    if manifest.decoding != "code":
        raise BadInput(
            f"{directory}: answers with decoding={manifest.decoding!r}, which has no score for "
            "every label; only adapters with decoding='code' can be evaluated"
        )
    return manifest, tokenizer


def load_adapter_student(
    directory: Path, base: Path, manifest: Manifest, *, device: str = "auto"
) -> LoraModel:
    """Load the base as it is served (not in 4 bits, whatever it was trained in) with the
    adapter's weights. Float32 on a CPU, bfloat16 elsewhere. Raises BadInput."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_cpu = torch.device(device).type == "cpu"
    student = load_student(
        base,
        rank=manifest.lora.rank,
        alpha=manifest.lora.alpha,
        dropout=0.0,
        base_dtype="float32" if on_cpu else "bfloat16",
        attention="eager" if on_cpu else "sdpa",
        device=device,
        gradient_checkpointing=False,
        layers=manifest.lora.target_modules,
    )
    weights = {name: one.float() for name, one in load_file(directory / WEIGHTS).items()}
    student.load(weights)
    student.peft.eval()
    return student


def open_adapter(directory: Path, base: Path, *, device: str = "auto") -> OpenedAdapter:
    """Verify and load. Raises AdapterRefused and BadInput."""
    manifest, tokenizer = read_adapter(directory, base)
    student = load_adapter_student(directory, base, manifest, device=device)
    return OpenedAdapter(directory, manifest, tokenizer, student)


def prompts_of(
    messages: Mapping[str, str], spec: PromptSpec, tokenizer: BaseTokenizer
) -> dict[str, tuple[int, ...]]:
    """Return each message's prompt ids by its id. Raises BadInput for a message with no text."""
    found = {}
    for name, message in messages.items():
        prompt = build_prompt(spec, message, tokenizer.encoders.plain)
        if prompt is None:
            raise BadInput(f"message {name}: nothing printable is in it: a worker would reject it")
        found[name] = prompt.ids
    return found


def code_ids(codes: Mapping[str, Code], labels: Sequence[str]) -> list[int]:
    """Return the codes' token ids in the labels' order."""
    return [codes[label].token_id for label in labels]


Progress = Callable[[int], None]
"""Told how many more messages are done."""
