"""LoRA: a base model with an adapter, for training or as published, and the layers' arithmetic."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from trainer.errors import BadInput
from trainer.model.device import has_bf16_units, quiet_transformers, resolve_device
from trainer.model.prompt import BaseTokenizer
from worker.contract import Code, FileDigest, Lora, Manifest, PromptSpec, build_prompt
from worker.contract.digest import sha256_file, write_atomically

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_ADAPTER = "default"
"""PEFT's default name of an adapter."""

_ROUNDED = "_weight_under_autocast"
"""Attribute of a LoRA layer: see ``_rounded``."""


@dataclass(frozen=True, slots=True)
class LoraModel:
    """A base with an adapter: ``causal_lm`` is the language model with LoRA layers inside (only
    they have gradients), ``peft_model`` PEFT's wrapper around it."""

    causal_lm: Any
    peft_model: Any
    lora: Lora
    device: torch.device

    def trainable_parameters(self) -> list[Tensor]:
        """Return the parameters that have gradients: the adapter's."""
        return [weights for weights in self.peft_model.parameters() if weights.requires_grad]

    def head_parameters(self) -> list[Tensor]:
        """Return none: the answer is a token of the base's vocabulary."""
        return []

    def start_training(self) -> None:
        """Switch dropout on."""
        self.peft_model.train()

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """Switch dropout off within the context."""
        was_training = self.peft_model.training
        self.peft_model.eval()
        try:
            yield
        finally:
            self.peft_model.train(was_training)

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the adapter's weights, with PEFT's names."""
        from peft import get_peft_model_state_dict

        # Not PEFT's default "auto", which asks the Hugging Face Hub for the base's config if the
        # base's path is not a local folder.
        state = get_peft_model_state_dict(self.peft_model, save_embedding_layers=False)
        return {name: weights.detach().clone().contiguous() for name, weights in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace the adapter's weights. Raises BadInput if names or shapes do not fit."""
        from peft import set_peft_model_state_dict

        expected = {name: tuple(weights.shape) for name, weights in self.state_dict().items()}
        given = {name: tuple(weights.shape) for name, weights in state.items()}
        if expected != given:
            odd = sorted(set(expected.items()) ^ set(given.items()))
            raise BadInput(f"the weights do not fit this base: {odd[0]}")
        set_peft_model_state_dict(self.peft_model, dict(state))

    def adapter_config(self, base_name: str) -> dict[str, Any]:
        """Return ``adapter_config.json``."""
        return adapter_config(self.peft_model, base_name)

    def release(self) -> None:
        """Free the memory of all weights. The model cannot be used afterwards."""
        for module in self.peft_model.modules():
            module.__dict__.pop(_ROUNDED, None)
        for tensor in (*self.peft_model.parameters(), *self.peft_model.buffers()):
            # Emptied in place, because the loop and its optimizer still refer to the tensors.
            tensor.data = tensor.data.new_empty(0)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Switch the adapter off within the context."""
        with self.peft_model.disable_adapter():
            yield


def load_lora_model(
    base: Path,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    base_dtype: str,
    attn_implementation: str,
    device: str,
    gradient_checkpointing: bool,
    load_in_4bit: bool = False,
    target_modules: Sequence[str] = (),
) -> LoraModel:
    """Load the frozen base and put LoRA layers of ``rank`` on every linear layer but the head
    (Hu et al. 2021, arXiv 2106.09685; all layers as in Dettmers et al. 2023, arXiv 2305.14314).

    ``target_modules`` limits the layers (``q_proj``...). With ``load_in_4bit`` the base is loaded
    in 4-bit NormalFloat with double quantization (QLoRA, the second paper; needs bitsandbytes),
    and multiplied in bfloat16 where the GPU can, else in ``base_dtype``. Adapter weights are always
    float32. Raises BadInput.
    """
    from transformers import AutoModelForCausalLM  # takes seconds

    quiet_transformers()
    chosen = resolve_device(device)
    dtype = getattr(torch, base_dtype)
    quantized: dict[str, Any] = {}
    if load_in_4bit:
        # float32 products would take several times as long, and 4 bits hold no such precision.
        compute = torch.bfloat16 if has_bf16_units(chosen) else dtype
        quantized = {"quantization_config": _four_bits(compute), "device_map": {"": str(chosen)}}
    try:
        # use_safetensors, because a pickle can run code; local_files_only, because transformers
        # would otherwise ask the Hugging Face Hub for a newer version.
        causal_lm = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=dtype,
            attn_implementation=attn_implementation,
            local_files_only=True,
            use_safetensors=True,
            **quantized,
        )
    except (OSError, ValueError) as error:
        raise BadInput(f"{base}: cannot load the base model: {error}") from error
    if not load_in_4bit:
        causal_lm.to(chosen)
    return add_lora(
        causal_lm,
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        device=chosen,
        gradient_checkpointing=gradient_checkpointing,
        target_modules=target_modules,
    )


def add_lora(
    causal_lm: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    device: torch.device,
    gradient_checkpointing: bool,
    target_modules: Sequence[str] = (),
) -> LoraModel:
    """Put LoRA layers into a language model that is on ``device``; see ``load_lora_model``."""
    from peft import LoraConfig, get_peft_model

    if gradient_checkpointing:
        # The reentrant variant needs an input with gradients, and the frozen embeddings give none.
        causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    targets = choose_layers(linear_layers(causal_lm), target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        # vLLM declares lora_alpha as an integer in adapter_config.json.
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        bias="none",
    )
    # autocast_adapter_dtype keeps the adapter in float32 over a bfloat16 base: AdamW's small
    # updates would be rounded away in bfloat16.
    peft_model = get_peft_model(causal_lm, config, autocast_adapter_dtype=True)
    add_by_addmm(peft_model)
    return LoraModel(peft_model.get_base_model(), peft_model, Lora(rank, alpha, targets), device)


def adapter_config(peft_model: Any, base_name: str) -> dict[str, Any]:
    """Return ``adapter_config.json`` as PEFT reads it, with the base's name instead of a path."""
    config: dict[str, Any] = peft_model.peft_config[_ADAPTER].to_dict()
    config |= {"base_model_name_or_path": base_name, "inference_mode": True}
    # PEFT keeps target_modules as a set. Its order differs between processes and would change the
    # digest of the file.
    plain: dict[str, Any] = json.loads(json.dumps(config, default=sorted, sort_keys=True))
    plain["target_modules"] = sorted(plain["target_modules"])
    return plain


def linear_layers(model: Any) -> tuple[str, ...]:
    """Return the sorted last name parts of all linear layers except the head (``q_proj``,
    ``up_proj``...)."""
    # Not PEFT's "all-linear", which may write whole paths: not every LoRA loader reads those.
    head = model.get_output_embeddings()
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return tuple(sorted(names))


def choose_layers(layers: tuple[str, ...], wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted layers, sorted, or all layers if none is named. Raises BadInput."""
    unknown = sorted(set(wanted) - set(layers))
    if unknown:
        raise BadInput(f"lora_target_modules: this base has no {unknown}; it has {list(layers)}")
    return tuple(sorted(wanted)) if wanted else layers


def _four_bits(compute: torch.dtype) -> Any:
    if find_spec("bitsandbytes") is None:
        raise BadInput("load_in_4bit = true needs bitsandbytes: install the extra 'qlora'")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def load_adapter_model(
    directory: Path, base: Path, manifest: Manifest, *, device: str = "auto"
) -> LoraModel:
    """Load the base in its serving precision, with the adapter's weights. Raises BadInput."""
    # 4 bits only if the recipe serves in 4 bits; training in 4 bits does not matter here.
    recipe = manifest.data.get("recipe", {})
    if manifest.lora is None:
        raise BadInput(f"{directory}: is of kind {manifest.kind!r}, which has no LoRA weights")
    model = load_as_served(
        base,
        manifest.lora,
        device=device,
        in_4bit=bool(recipe.get("serve_in_4bit", False)),
    )
    model.load_state_dict(read_weights(directory))
    return model


def load_as_served(
    base: Path, lora: Lora, *, device: str, in_4bit: bool, dropout: float = 0.0
) -> LoraModel:
    """Load a base in the precision in which workers serve it (float32 on a CPU, else bfloat16 or 4
    bits), with LoRA layers of that shape, for scoring. Raises BadInput."""
    chosen = resolve_device(device)
    on_cpu = chosen.type == "cpu"
    model = load_lora_model(
        base,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=dropout,
        base_dtype="float32" if on_cpu else "bfloat16",
        attn_implementation="eager" if on_cpu else "sdpa",
        device=str(chosen),
        gradient_checkpointing=False,
        load_in_4bit=in_4bit,
        target_modules=lora.target_modules,
    )
    model.peft_model.eval()
    return model


def encode_prompts(
    messages: Mapping[str, str], spec: PromptSpec, tokenizer: BaseTokenizer
) -> dict[str, tuple[int, ...]]:
    """Return each message's prompt ids by its id. Raises BadInput for a message with no text."""
    prompts = {}
    for message_id, message in messages.items():
        prompt = build_prompt(spec, message, tokenizer.encoders.plain)
        if prompt is None:
            raise BadInput(
                f"message {message_id}: has no printable text, so a worker rejects it: remove it"
            )
        prompts[message_id] = prompt.ids
    return prompts


def label_token_ids(codes: Mapping[str, Code], labels: Sequence[str]) -> tuple[int, ...]:
    """Return the codes' token ids in the labels' order."""
    return tuple(codes[label].token_id for label in labels)


def round_weights(state: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Round float32 weights to ``dtype``, so that the evaluated weights are the published ones."""
    stored = getattr(torch, dtype)
    return {name: weights.to(stored).float() for name, weights in state.items()}


def write_weights(
    directory: Path, state: Mapping[str, Tensor], config: Mapping[str, Any], dtype: str
) -> dict[str, FileDigest]:
    """Write weights and config into a new ``directory``; return both files' digests."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    stored = getattr(torch, dtype)
    tensors = {name: state[name].cpu().to(stored).contiguous() for name in sorted(state)}
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(directory / CONFIG, text.encode("utf-8"))
    write_atomically(directory / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    return digests(directory)


def digests(directory: Path) -> dict[str, FileDigest]:
    """Return the digest of every file in a directory."""
    return {
        path.name: FileDigest(sha256_file(path), path.stat().st_size)
        for path in sorted(directory.iterdir())
    }


def read_weights(directory: Path, *, as_float: bool = True) -> dict[str, Tensor]:
    """Read an adapter's weights, as float32 or as they are stored."""
    stored = load_file(directory / WEIGHTS)
    return {name: weights.float() for name, weights in stored.items()} if as_float else stored


def add_by_addmm(peft_model: Any) -> int:
    """Replace the forward pass of a PEFT model's plain LoRA layers by a faster one, and return
    their number. State dicts, names and gradients stay the same.

    ``base(x) + scaling * x A' B'`` takes one ``addmm`` for the sum, the scale and the second
    product, and no float32 copy of ``x`` under autocast, which also rounds the frozen weights once
    instead of in each pass. PEFT's ``forward`` stays for 4-bit layers, other variants, merged or
    disabled layers, and inputs of another precision without autocast.
    """
    from peft.tuners.lora import Linear

    changed = 0
    for module in peft_model.modules():
        # Not of a subclass, which may have a forward pass of its own.
        plain = type(module) is Linear and type(module.base_layer) is torch.nn.Linear
        if plain and not module.lora_variant:
            module.forward = MethodType(_addmm_forward, module)
            changed += 1
    return changed


def _addmm_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if args or kwargs or self.disable_adapters or self.merged or not _is_of_one_type(self, x):
        found: Tensor = type(self).forward(self, x, *args, **kwargs)
        return found
    base = torch.nn.functional.linear(x, _rounded(self, x), self.base_layer.bias)
    down, up = self.lora_A[_ADAPTER].weight, self.lora_B[_ADAPTER].weight
    rows = self.lora_dropout[_ADAPTER](x).reshape(-1, x.shape[-1])
    summed = torch.addmm(
        base.reshape(-1, base.shape[-1]),
        rows @ down.t(),
        up.t(),
        alpha=self.scaling[_ADAPTER],
    )
    return summed.reshape(base.shape)


def _rounded(layer: Any, x: Tensor) -> Tensor:
    """Return a layer's frozen weight as autocast rounds it."""
    # Autocast keeps rounded weights only if they have gradients. Rounding all others in each pass
    # took a tenth of a training on a CPU, and more as its heap got fragmented.
    weight: Tensor = layer.base_layer.weight
    dtype = torch.get_autocast_dtype(x.device.type)
    if not torch.is_autocast_enabled(x.device.type) or weight.dtype == dtype:
        layer.__dict__.pop(_ROUNDED, None)  # the training is over: scoring needs the memory
        return weight
    kept = layer.__dict__.get(_ROUNDED)
    if kept is None or kept[0] != weight._version:  # changed in place meanwhile
        kept = layer.__dict__[_ROUNDED] = (weight._version, weight.detach().to(dtype))
    rounded: Tensor = kept[1]
    return rounded


def _is_of_one_type(layer: Any, x: Tensor) -> bool:
    if torch.is_autocast_enabled(x.device.type):
        return True
    return bool(x.dtype == layer.lora_A[_ADAPTER].weight.dtype == layer.base_layer.weight.dtype)


def fold_lora(peft_model: Any) -> None:
    """Add ``scaling * B A`` to the weights below a PEFT model's plain LoRA layers, in place. The
    model's ``unload`` then removes the layers."""
    # Not PEFT's merge_and_unload: its matrix product sums in another order on another processor.
    # Adding the rank's outer products in float64, one by one, gives files with the same digest
    # everywhere.
    from peft.tuners.lora import Linear

    with torch.no_grad():
        for module in peft_model.modules():
            if not isinstance(module, Linear):
                continue
            down = module.lora_A[_ADAPTER].weight.double()
            up = module.lora_B[_ADAPTER].weight.double()
            weight = module.get_base_layer().weight
            added = torch.zeros(weight.shape, dtype=torch.float64)
            for row, column in zip(down, up.T, strict=True):
                added += column[:, None] * row
            weight.copy_(weight.double() + module.scaling[_ADAPTER] * added)
