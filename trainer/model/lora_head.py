"""A LoRA adapter of a language model with a linear head over the last token's hidden state.

The head and the files are those of PEFT's sequence classification (``modules_to_save``), which
vLLM's pooling runner reads too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import BadInput
from trainer.model.forward import Layout, PromptIds, answer_states
from trainer.model.lora_model import LoraModel, load_empty_adapter, read_weights
from trainer.model.scoring import verify_prompts
from worker.contract import Lora, Manifest

HEAD_MODULE = "score"
"""The name that transformers gives the head of a language model that classifies."""

HEAD_KEY = f"base_model.model.{HEAD_MODULE}.weight"
"""The head's weights in the adapter's file, (classes, hidden size). It has no bias."""


@dataclass(frozen=True, slots=True)
class LoraHeadModel:
    """LoRA layers on a language model, and the head that reads its last state.

    ``prefix_ids`` is the prompts' fixed part, and ``layout`` one that this architecture allows.
    """

    body: LoraModel
    head: torch.nn.Linear
    prefix_ids: tuple[int, ...]
    layout: Layout

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.body.device

    @property
    def lora(self) -> Lora:
        """The shape of the LoRA layers."""
        return self.body.lora

    @property
    def classes(self) -> int:
        """How many outputs the head has."""
        return self.head.out_features

    def trainable_parameters(self) -> list[Tensor]:
        """Return the parameters that have gradients, the head's included."""
        return [*self.body.trainable_parameters(), self.head.weight]

    def head_parameters(self) -> list[Tensor]:
        """Return the head's, which starts from nothing and learns faster."""
        return [self.head.weight]

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of what is learnt, under the names PEFT publishes it by."""
        return self.body.state_dict() | {HEAD_KEY: self.head.weight.detach().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace what is learnt. Raises BadInput when names or shapes do not fit."""
        rest = dict(state)
        head = rest.pop(HEAD_KEY, None)
        if head is None or head.shape != self.head.weight.shape:
            found = "missing" if head is None else f"of {list(head.shape)}"
            raise BadInput(
                f"the weights do not fit: {HEAD_KEY} is {found}, and the head has "
                f"{list(self.head.weight.shape)}"
            )
        self.body.load_state_dict(rest)
        with torch.no_grad():
            self.head.weight.copy_(head)

    def start_training(self) -> None:
        """Switch dropout on."""
        self.body.start_training()

    def without_dropout(self) -> AbstractContextManager[None]:
        """Switch dropout off; it is as before afterwards."""
        return self.body.without_dropout()

    def logits(self, prompts: Sequence[PromptIds]) -> Tensor:
        """Return float32 logits, (prompts, classes); the head computes in float32 under autocast
        too."""
        prefix = torch.tensor(self.prefix_ids, device=self.device)
        states = answer_states(self.body.causal_lm, prefix, prompts, layout=self.layout)
        with torch.autocast(self.device.type, enabled=False):
            logits: Tensor = self.head(states.float())
            return logits

    def adapter_config(self, base_name: str) -> dict[str, Any]:
        """Return ``adapter_config.json`` as PEFT reads it for a model that classifies."""
        return self.body.adapter_config(base_name) | {
            "task_type": "SEQ_CLS",
            "modules_to_save": [HEAD_MODULE],
        }

    def verify(self, prompts: Sequence[PromptIds]) -> None:
        """Compare the forward pass on a few prompts with the base's own. Raises ProofFailed."""
        verify_prompts(self.body, self.prefix_ids, prompts, layout=self.layout)


def add_head(
    body: LoraModel, classes: int, prefix_ids: tuple[int, ...], *, layout: Layout
) -> LoraHeadModel:
    """Put a head of zeros on a language model with LoRA layers."""
    width = int(body.causal_lm.get_output_embeddings().weight.shape[1])
    head = torch.nn.Linear(width, classes, bias=False, device=body.device)
    torch.nn.init.zeros_(head.weight)
    return LoraHeadModel(body, head, prefix_ids, layout if prefix_ids else "whole")


def load_lora_head(
    directory: Path, base: Path, manifest: Manifest, *, device: str
) -> LoraHeadModel:
    """Load a published adapter with its head on the base as it is served. Raises BadInput."""
    assert manifest.head is not None
    body = load_empty_adapter(directory, base, manifest, device=device)
    prefix_ids = manifest.prompt.prefix_ids
    model = add_head(body, len(manifest.head.outputs), prefix_ids, layout="cached")
    model.load_state_dict(read_weights(directory))
    return model
