"""The base model with LoRA layers in it. The only file that imports ``peft``, and with
``forward`` the only one that imports ``transformers``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from trainer.errors import BadInput
from trainer.model.prompt import Render
from worker.contract import Lora

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class LoraModel:
    """The model in training: ``causal`` is the language model with LoRA layers inside (only they
    have gradients), ``peft`` PEFT's wrapper around it."""

    causal: Any
    peft: Any
    lora: Lora
    device: torch.device

    def parameters(self) -> list[Tensor]:
        """Return the trainable parameters."""
        return [one for one in self.peft.parameters() if one.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the adapter's weights, under the names PEFT publishes them by."""
        state = get_peft_model_state_dict(self.peft, save_embedding_layers=False)
        return {name: one.detach().clone().contiguous() for name, one in state.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put weights back. Raises BadInput when names or shapes do not fit."""
        want = {name: tuple(one.shape) for name, one in self.state().items()}
        got = {name: tuple(one.shape) for name, one in state.items()}
        if want != got:
            odd = sorted(set(want.items()) ^ set(got.items()))
            raise BadInput(f"the weights do not fit this base: {odd[0]}")
        set_peft_model_state_dict(self.peft, dict(state))

    def config(self, base_name: str) -> dict[str, Any]:
        """Return ``adapter_config.json`` as PEFT reads it, naming the base and no local path."""
        config: dict[str, Any] = self.peft.peft_config["default"].to_dict()
        config |= {"base_model_name_or_path": base_name, "inference_mode": True}
        plain: dict[str, Any] = json.loads(json.dumps(config, default=sorted, sort_keys=True))
        plain["target_modules"] = sorted(plain["target_modules"])
        return plain


def load_renderer(base: Path) -> Render:
    """Return the base's chat template as a function; it raises ValueError where the template
    refuses a chat. Raises BadInput when the base has none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"{base}: cannot load the base's tokenizer: {error}") from error
    if not tokenizer.chat_template:
        raise BadInput(f"{base}: the base has no chat template; use an instruct model")

    def render(chat: list[dict[str, str]]) -> str:
        try:
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ValueError(f"the chat template refuses this chat: {error}") from error
        return str(text)

    return render


def load_student(
    base: Path,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    base_dtype: str,
    attention: str,
    device: str,
    gradient_checkpointing: bool,
    base_bits: int = 16,
    layers: Sequence[str] = (),
) -> LoraModel:
    """Load the frozen base and put LoRA layers of ``rank`` on every linear layer but the head
    (Hu et al. 2021, arXiv 2106.09685; all layers as in Dettmers et al. 2023, arXiv 2305.14314).

    ``layers`` limits them to some (``q_proj``...). With ``base_bits`` = 4 the base is loaded in
    4-bit NormalFloat with double quantization (QLoRA, the same paper; needs bitsandbytes), else
    in ``base_dtype``. Adapter weights are float32 whatever the base is. Raises BadInput.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, base_dtype)
    try:
        causal = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            use_safetensors=True,
            **({} if base_bits == 16 else {"quantization_config": _four_bits(dtype)}),
            **({} if base_bits == 16 else {"device_map": {"": device}}),
        )
    except (OSError, ValueError) as error:
        raise BadInput(f"{base}: cannot load the base model: {error}") from error
    if base_bits == 16:
        causal.to(device)
    if gradient_checkpointing:
        causal.gradient_checkpointing_enable({"use_reentrant": False})
    targets = _chosen(linear_layers(causal), layers)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        bias="none",
    )
    peft = get_peft_model(causal, config, autocast_adapter_dtype=True)
    return LoraModel(peft.get_base_model(), peft, Lora(rank, alpha, targets), torch.device(device))


def _chosen(found: tuple[str, ...], wanted: Sequence[str]) -> tuple[str, ...]:
    unknown = sorted(set(wanted) - set(found))
    if unknown:
        raise BadInput(f"lora_layers: this base has no {unknown}; it has {list(found)}")
    return tuple(sorted(wanted)) if wanted else found


def _four_bits(compute: torch.dtype) -> Any:
    if find_spec("bitsandbytes") is None:
        raise BadInput("base_bits = 4 needs bitsandbytes: install the extra 'qlora'")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def linear_layers(causal: Any) -> tuple[str, ...]:
    """Return the last name parts of all linear layers but the head (``q_proj``, ``up_proj``...),
    sorted: the form every LoRA loader reads, where PEFT's "all-linear" may write whole paths."""
    head = causal.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, module in causal.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return tuple(sorted(found))


def versions() -> dict[str, str]:
    """Return the versions of the libraries that shape an adapter."""
    return {
        name: version(name)
        for name in ("torch", "transformers", "peft", "accelerate", "tokenizers")
    }
