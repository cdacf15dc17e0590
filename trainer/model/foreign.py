"""Classifiers that were trained elsewhere, read as data: nothing in them is run or unpickled.

Two forms: a Hugging Face folder with a sequence classifier, and an ONNX file
(``trainer.model.foreign_onnx``). ``open_foreign`` tells them apart.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from trainer.errors import BadInput
from trainer.model.bases import describe_source
from trainer.model.device import quiet_transformers
from trainer.model.encoder import BASE_CONFIG, TOKENIZER
from trainer.model.forward import PromptIds
from trainer.model.onnx_files import OnnxPrecision, export_classifier
from trainer.model.prompt import most_message_tokens
from trainer.model.scoring import Floats
from trainer.progress import track
from worker.contract import BaseModel, describe_base
from worker.contract.head import OutOfScopeMethod

Form = Literal["huggingface", "onnx"]


_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_PAGE = "docs/import.md"


ASKING = "asking the original"
"""The work that takes an import most of its time."""


class Foreign(Protocol):
    """A classifier that was trained elsewhere, with one raw score (a logit) for each output.

    ``outputs`` are its own names for them; ``tokenizer`` is the content of the ``tokenizer.json``
    that its prompts need; ``room`` the most tokens of a message, None if it sets no limit;
    ``weights`` the number of weights.
    """

    form: Form
    outputs: tuple[str, ...]
    tokenizer: bytes
    room: int | None
    base: BaseModel
    vocabulary: int
    pad_id: int
    weights: int
    out_of_scope: OutOfScopeMethod

    @property
    def default_room(self) -> int:
        """The most tokens of a message, if no setting says it."""

    def original(self, texts: Sequence[str]) -> Floats:
        """Return the logits, (texts, outputs), of texts as its own library reads them: by its own
        tokenizer, cut at the end."""

    def logits(self, prompts: Sequence[PromptIds]) -> Floats:
        """Return the original's logits, (prompts, outputs), of token ids."""

    def write(self, directory: Path, precisions: Sequence[OnnxPrecision]) -> list[OnnxPrecision]:
        """Write the ONNX files that a worker serves, and return their precisions. Raises
        BadInput."""


def open_foreign(source: Path, labels: Path | None) -> Foreign:
    """Open a Hugging Face folder, or an ONNX file. ``labels`` names the outputs, if the model does
    not, or not well. Raises BadInput that says which form is accepted and how to make it."""
    if source.suffix.casefold() in _PICKLES:
        raise BadInput(_refused_pickle(source))
    if source.suffix.casefold() == ".onnx":
        from trainer.model.foreign_onnx import OnnxClassifier

        return OnnxClassifier(source, read_outputs(source.parent, labels))
    if not source.is_dir():
        missing = "" if source.exists() else "there is no such file or folder; "
        raise BadInput(
            f"{source}: {missing}give a folder with config.json, *.safetensors and tokenizer.json, "
            f"or an .onnx file ({_PAGE} shows the lines that make one)"
        )
    return HuggingFaceClassifier(source, labels)


def _refused_pickle(path: Path) -> str:
    return (
        f"{path}: a {path.suffix} file is a pickle, which can run any code when it is loaded, so "
        "none is loaded here: where you trust it, save the model as safetensors or ONNX "
        f"({_PAGE} has the lines) and import that"
    )


def read_outputs(folder: Path, labels: Path | None) -> tuple[str, ...]:
    """Return the names of a classifier's outputs, in the order of its scores: of a file with one
    name a line, a JSON list, or JSON with ``id2label`` (``config.json``, by default the one in
    ``folder``). Raises BadInput."""
    path = labels or folder / BASE_CONFIG
    if labels is None and not path.is_file():
        raise BadInput(
            f"{folder}: has no {BASE_CONFIG} that names the outputs: give --labels FILE with a "
            "label a line, in the order of the model's scores"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
    if isinstance(found, dict):
        named = found.get("id2label", found if labels else None)
        found = _in_order(named) if isinstance(named, dict) else None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise BadInput(
            f"{path}: names no outputs (id2label): give --labels FILE with a label a line, in the "
            "order of the model's scores"
        )
    names = tuple(name.strip() for name in found if name.strip())
    if len(names) < 2 or len(set(names)) != len(names):
        raise BadInput(
            f"{path}: names {len(set(names))} different outputs of {len(names)}: it needs two or "
            "more, each once, in the order of the model's scores"
        )
    return names


def _in_order(named: dict[str, Any]) -> list[Any] | None:
    places = {str(at) for at in range(len(named))}
    return [named[str(at)] for at in range(len(named))] if set(named) == places else None


class HuggingFaceClassifier:
    """See ``Foreign``: ``AutoModelForSequenceClassification`` from safetensors, in float32 on the
    CPU."""

    form: Form = "huggingface"
    out_of_scope: OutOfScopeMethod = "energy"

    def __init__(self, folder: Path, labels: Path | None) -> None:
        config = _read_config(folder)
        _refuse_files(folder)
        self.outputs = read_outputs(folder, labels)
        self.tokenizer = (folder / TOKENIZER).read_bytes()
        self._folder = folder
        self._model = _load(folder)
        wide = int(self._model.config.num_labels)
        if wide != len(self.outputs):
            raise BadInput(
                f"{labels or folder / BASE_CONFIG}: names {len(self.outputs)} outputs, but the "
                f"model has {wide}: name each, in the order of its scores"
            )
        if config.get("problem_type") == "multi_label_classification":
            raise BadInput(
                f"{folder}: gives a message several labels (problem_type in {BASE_CONFIG}), and "
                "here it has exactly one: train a model here on its answers instead"
            )
        self.room: int | None = most_message_tokens(folder)
        self.base = describe_base(folder, *describe_source(folder))
        self.vocabulary = int(self._model.get_input_embeddings().weight.shape[0])
        self.pad_id = int(getattr(self._model.config, "pad_token_id", None) or 0)
        self.weights = sum(each.numel() for each in self._model.parameters())

    @property
    def default_room(self) -> int:
        """See ``Foreign``: as many as a recipe's, if the model reads so many."""
        return min(512, self.room or 512)

    def original(self, texts: Sequence[str]) -> Floats:
        """See ``Foreign``."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            self._folder, local_files_only=True, trust_remote_code=False
        )
        assert self.room is not None
        longest = min(self.room + tokenizer.num_special_tokens_to_add(), tokenizer.model_max_length)
        known = inspect.signature(self._model.forward).parameters
        rows = []
        for text in track(ASKING, texts):
            given = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
            rows.append(self._ask({name: ids for name, ids in given.items() if name in known}))
        return np.array(rows)

    def logits(self, prompts: Sequence[PromptIds]) -> Floats:
        """See ``Foreign``."""
        rows = []
        for prompt in track(ASKING, prompts):
            ids = torch.tensor([prompt])
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            rows.append(self._ask(given))
        return np.array(rows)

    def write(self, directory: Path, precisions: Sequence[OnnxPrecision]) -> list[OnnxPrecision]:
        """See ``Foreign``."""
        try:
            export_classifier(_Logits(self._model), self.pad_id, directory, precisions)
        except BadInput:
            raise
        except Exception as error:  # PyTorch's exporter raises many kinds
            raise BadInput(
                f"{self._folder}: {type(self._model).__name__} cannot be exported to ONNX "
                f"({type(error).__name__}): export it with its own tools and import the .onnx file"
            ) from error
        return list(precisions)

    def _ask(self, given: dict[str, Tensor]) -> Floats:
        # One at a time, as a worker does: padding to the longest of a batch changes the rounding.
        with torch.inference_mode():
            found: Floats = self._model(**given).logits[0].double().numpy()
        return found


class _Logits(torch.nn.Module):
    """A classifier of transformers as a function of ids and mask."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float()


def _read_config(folder: Path) -> dict[str, Any]:
    """Return the content of config.json. Raises BadInput without one, or if the model needs its own
    Python code."""
    found: dict[str, Any] = {}
    for name in (BASE_CONFIG, "tokenizer_config.json"):
        file = folder / name
        if name != BASE_CONFIG and not file.is_file():
            continue
        try:
            read = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not JSON"
            raise BadInput(f"{file}: {why}: save the model with save_pretrained") from error
        if not isinstance(read, dict):
            raise BadInput(f"{file}: not a JSON object: save the model with save_pretrained")
        if "auto_map" in read:
            raise BadInput(
                f"{file}: has auto_map: the model brings its own Python code, which is never run "
                "here: where you trust that code, export the model to ONNX and import the file"
            )
        found = found or read
    return found


def _refuse_files(folder: Path) -> None:
    """Raise BadInput if the weights are pickles or missing, or there is no fast tokenizer."""
    pickles = sorted(path for path in folder.iterdir() if path.suffix.casefold() in _PICKLES)
    if not any(folder.glob("*.safetensors")):
        if pickles:
            raise BadInput(_refused_pickle(pickles[0]))
        raise BadInput(
            f"{folder}: has no *.safetensors: save it with save_pretrained of a newer transformers"
        )
    heads = [path for path in pickles if path.name.startswith("model_head")]
    if heads:  # SetFit: the safetensors are the body alone
        raise BadInput(_refused_pickle(heads[0]))
    if not (folder / TOKENIZER).is_file():
        raise BadInput(
            f"{folder}: has no {TOKENIZER}: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
            " writes one"
        )


def _load(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    quiet_transformers()
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers and safetensors raise many kinds
        raise BadInput(
            f"{folder}: cannot be loaded as a sequence classifier: {_first_line(error)}"
        ) from error
    # transformers would draw missing weights at random, for example a whole head.
    if missing := sorted(loading["missing_keys"]):
        raise BadInput(
            f"{folder}: its safetensors lack {missing[0]}: it is not a whole sequence classifier, "
            "such as AutoModelForSequenceClassification saves"
        )
    return model.eval()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
