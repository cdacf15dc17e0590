"""A small encoder with a linear head over its pooled output, for training or as published.

BERT, RoBERTa, ModernBERT, DeBERTa and others that ``AutoModel`` loads from a directory. Two kinds
of model have this form: fine-tuned encoders (whole, or by LoRA), and frozen sentence embeddings
with logistic regression.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from trainer.errors import BadInput
from trainer.model.device import quiet_transformers, resolve_device
from trainer.model.lora_model import (
    CONFIG,
    WEIGHTS,
    adapter_config,
    add_by_addmm,
    choose_layers,
    linear_layers,
)
from worker.contract import Lora, Manifest, Pooling, verify_base
from worker.contract.digest import write_atomically

POOLING_FILE = Path("1_Pooling/config.json")
"""The file with a sentence-transformers model's pooling."""


BACKBONE = "model.safetensors"
"""The whole encoder, with the parameter names of ``AutoModel``."""
HEAD = "head.safetensors"
BASE_CONFIG = "config.json"
TOKENIZER = "tokenizer.json"

_BODY, _HEAD = "backbone.", "head."
_LORA = ".default.weight"
"""PEFT's suffix for an adapter in a model, which its files leave out."""


class Classifier(torch.nn.Module):
    """Token ids to class logits: backbone, pooling, L2 norm (``unit``) or none, linear head.

    ``forward`` takes ids and mask, (messages, tokens), and returns float32 logits, (messages,
    classes).
    """

    def __init__(
        self, backbone: Any, head: torch.nn.Linear, *, pooling: Pooling, unit: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.pooling = pooling
        self.unit = unit

    def pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return one float32 vector a message, (messages, width)."""
        states = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state.float()
        pooled = states[:, 0] if self.pooling == "cls" else pool_mean(states, attention_mask)
        return torch.nn.functional.normalize(pooled, dim=1) if self.unit else pooled

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits, computed in float32 even under autocast."""
        pooled = self.pool(input_ids, attention_mask)
        if not torch.is_autocast_enabled(pooled.device.type):
            return self.head(pooled)  # type: ignore[no-any-return]
        with torch.autocast(pooled.device.type, enabled=False):
            return self.head(pooled)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class EncoderModel:
    """An encoder with its head. ``lora`` is None if it is trained whole or frozen. The trained
    parameters are those with gradients. ``pad_id`` pads short rows."""

    classifier: Classifier
    lora: Lora | None
    device: torch.device
    pad_id: int

    def trainable_parameters(self) -> list[Tensor]:
        """Return the parameters that have gradients, the head's included."""
        return [weights for _, weights in self._trainable()]

    def head_parameters(self) -> list[Tensor]:
        """Return the head's parameters, which start from zero and get a higher learning rate."""
        return list(self.classifier.head.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the trained parameters, by name."""
        return {name: weights.detach().clone() for name, weights in self._trainable()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace the trained parameters. Raises BadInput if names or shapes do not fit."""
        own = dict(self._trainable())
        expected = {(name, tuple(weights.shape)) for name, weights in own.items()}
        odd = sorted(expected ^ {(name, tuple(weights.shape)) for name, weights in state.items()})
        if odd:
            raise BadInput(f"the weights do not fit this encoder: {odd[0]}")
        with torch.no_grad():
            for name, weights in state.items():
                own[name].copy_(weights)

    def start_training(self) -> None:
        """Switch dropout on."""
        self.classifier.train()

    @property
    def classes(self) -> int:
        """The number of the head's outputs."""
        return self.classifier.head.out_features

    def logits(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the head's float32 logits, (prompts, classes), of one batch."""
        # Multiples of 8: oneDNN compiles kernels for each new shape, often longer than they run.
        longest = max(len(prompt) for prompt in prompts)
        positions = getattr(self.classifier.backbone.config, "max_position_embeddings", longest)
        width = min(-(-longest // 8) * 8, positions)
        batch = collate_rows(prompts, self.pad_id, self.device, width=width)
        logits: Tensor = self.classifier(*batch)
        return logits

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """Switch dropout off within the context."""
        was_training = self.classifier.training
        self.classifier.eval()
        try:
            yield
        finally:
            self.classifier.train(was_training)

    def total_weights(self) -> int:
        """Return the number of weights."""
        return sum(weights.numel() for weights in self.classifier.parameters())

    def _trainable(self) -> list[tuple[str, Tensor]]:
        named = self.classifier.named_parameters()
        return [(name, weights) for name, weights in named if weights.requires_grad]


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """An encoder without its weights: the number of classes, the pooling, whether vectors are
    scaled to length 1, and LoRA's layers, if any."""

    classes: int
    pooling: Pooling
    unit: bool
    lora: Lora | None


def load_encoder(
    base: Path,
    shape: EncoderShape,
    *,
    device: str,
    dropout: float = 0.0,
    frozen: bool = False,
    gradient_checkpointing: bool = False,
) -> EncoderModel:
    """Load a base in float32 with a head of zeros. ``dropout`` is for LoRA's layers; a ``frozen``
    base has no gradients. Raises BadInput."""
    from transformers import AutoModel  # takes seconds

    try:
        with _quiet():
            backbone = AutoModel.from_pretrained(
                base, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{base}: cannot load the encoder: {error}") from error
    return _make(backbone, shape, device, dropout, frozen, gradient_checkpointing)


def load_empty_encoder(config: Path, shape: EncoderShape, *, device: str) -> EncoderModel:
    """Make an encoder from a directory's config only, to load weights into it. Raises BadInput."""
    from transformers import AutoConfig, AutoModel

    try:
        with _quiet():
            read = AutoConfig.from_pretrained(config, local_files_only=True)
            backbone = AutoModel.from_config(read)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{config}: cannot read the encoder's config: {error}") from error
    return _make(backbone.float(), shape, device, 0.0, False, False)


def find_pooling(base: Path, wanted: Literal["auto"] | Pooling) -> Pooling:
    """Return the pooling: the wanted one, else that of the directory (sentence-transformers), else
    the mean. Raises BadInput."""
    if wanted != "auto":
        return wanted
    # A wrong pooling is not an error anywhere; it only makes every embedding worse.
    path = base / POOLING_FILE
    if not path.is_file():
        return "mean"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}): set pooling to mean or cls") from error
    return "cls" if settings.get("pooling_mode_cls_token") else "mean"


def collate_rows(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device, *, width: int = 0
) -> tuple[Tensor, Tensor]:
    """Return ids and mask, (rows, longest row or ``width``), padded on the right."""
    width = max(width, *(len(row) for row in rows))
    ids = [[*row, *[pad_id] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def pool_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of a row's states, (rows, tokens, width), over its mask, (rows, tokens)
    (Reimers & Gurevych 2019, arXiv 1908.10084)."""
    weights = mask[:, :, None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' warnings about unused weights, and DeBERTa's deprecation warnings."""
    quiet_transformers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _make(
    backbone: Any,
    shape: EncoderShape,
    device: str,
    dropout: float,
    frozen: bool,
    gradient_checkpointing: bool,
) -> EncoderModel:
    config, chosen = backbone.config, resolve_device(device)
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # for next-sentence prediction; not used here
    if frozen or shape.lora is not None:
        backbone.requires_grad_(False)
    if gradient_checkpointing:
        # The reentrant variant needs an input with gradients and would leave LoRA layers over
        # frozen embeddings without any.
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
    if shape.lora is not None:
        from peft import LoraConfig, get_peft_model

        targets = choose_layers(linear_layers(backbone), shape.lora.target_modules)
        lora_config = LoraConfig(
            task_type="FEATURE_EXTRACTION",
            r=shape.lora.rank,
            lora_alpha=shape.lora.alpha,
            lora_dropout=dropout,
            target_modules=list(targets),
            bias="none",
        )
        backbone = get_peft_model(backbone, lora_config, autocast_adapter_dtype=True)
        add_by_addmm(backbone)
    head = torch.nn.Linear(int(config.hidden_size), shape.classes)
    # Zeros: a single softmax layer has no symmetry to break, and training does not depend on a
    # draw.
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    classifier = Classifier(backbone, head, pooling=shape.pooling, unit=shape.unit)
    # Not every config has one, and masked positions may hold any id.
    pad_id = getattr(config, "pad_token_id", None)
    lora = None
    if shape.lora is not None:
        lora = Lora(shape.lora.rank, shape.lora.alpha, targets)
    return EncoderModel(classifier.to(chosen).eval(), lora, chosen, int(pad_id or 0))


def write_encoder_files(
    directory: Path,
    base: Path,
    model: EncoderModel,
    state: Mapping[str, Tensor],
    *,
    base_name: str,
    dtype: str,
) -> tuple[str, ...]:
    """Write the trained parameters into a new ``directory``, with the base's config and tokenizer.
    Return the names of the weight files."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    stored = getattr(torch, dtype)
    parts: dict[str, dict[str, Tensor]] = {}
    for name in sorted(state):
        file, key = _place(name, lora=model.lora is not None)
        parts.setdefault(file, {})[key] = state[name].cpu().to(stored).contiguous()
    for file, tensors in parts.items():
        write_atomically(directory / file, save(tensors, metadata={"format": "pt"}))
    for name in (BASE_CONFIG, TOKENIZER):
        write_atomically(directory / name, (base / name).read_bytes())
    if model.lora is not None:
        config = adapter_config(model.classifier.backbone, base_name)
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        write_atomically(directory / CONFIG, text.encode("utf-8"))
    return tuple(sorted(parts))


def read_encoder_state(directory: Path) -> dict[str, Tensor]:
    """Read the trained parameters as float32, by the names of ``EncoderModel.state_dict``."""
    state = {f"{_HEAD}{key}": weights for key, weights in load_file(directory / HEAD).items()}
    if holds_whole_encoder(directory):
        whole = load_file(directory / BACKBONE)
        state |= {f"{_BODY}{key}": weights for key, weights in whole.items()}
    if (directory / WEIGHTS).is_file():
        lora = load_file(directory / WEIGHTS)
        state |= {
            f"{_BODY}{key.removesuffix('.weight')}{_LORA}": weights for key, weights in lora.items()
        }
    return {name: weights.float() for name, weights in state.items()}


def holds_whole_encoder(directory: Path) -> bool:
    """Return whether an adapter's directory has its whole model, and so needs no base."""
    return (directory / BACKBONE).is_file()


def load_trained_encoder(
    directory: Path, base: Path | None, manifest: Manifest, *, device: str
) -> EncoderModel:
    """Load a published encoder in float32. One that was trained whole needs no base. Raises
    BadInput, and AdapterRefused for a wrong base."""
    head = manifest.head
    assert head is not None
    assert head.pooling is not None  # an imported one is scored by its ONNX file
    shape = EncoderShape(
        classes=len(head.outputs), pooling=head.pooling, unit=head.normalize, lora=manifest.lora
    )
    if holds_whole_encoder(directory):
        model = load_empty_encoder(directory, shape, device=device)
    elif base is None:
        raise BadInput(
            f"{directory}: needs its base, {manifest.base.name}: name its directory with --base"
        )
    else:
        verify_base(base, manifest.base)
        frozen = manifest.kind == "embedding-linear"
        model = load_encoder(base, shape, device=device, frozen=frozen)
    model.load_state_dict(read_encoder_state(directory))
    return model


def _place(name: str, *, lora: bool) -> tuple[str, str]:
    """Return the file of a parameter, and its name there."""
    if name.startswith(_HEAD):
        return HEAD, name.removeprefix(_HEAD)
    key = name.removeprefix(_BODY)
    if lora:
        return WEIGHTS, f"{key.removesuffix(_LORA)}.weight"
    return BACKBONE, key
