"""Export an encoder to ONNX files, in float32 and with 8-bit weights, and score with them.

The trainer's only file that imports ``onnxruntime``; PyTorch's exporter also needs ``onnx``.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from trainer.errors import ProofFailed, require
from trainer.model.encoder import Classifier, EncoderModel, collate_rows
from trainer.model.forward import PromptIds
from trainer.model.lora_model import fold_lora
from trainer.model.scoring import BATCH_SIZE, Floats, Scores
from trainer.progress import progress
from worker.common.quantize import quantize
from worker.contract import Manifest, disagreement
from worker.contract.head import TEXT_INPUT, text_of

OnnxPrecision = Literal["fp32", "int8"]

FILES: dict[OnnxPrecision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
"""The file of each precision."""

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"

_OPSET = 17
_ROWS = ((1, 2, 3), (1, 2, 3, 4, 5))
"""Example rows for tracing the graph: of different lengths, so that padding is traced too."""


def require_onnx() -> None:
    """Raise BadInput if a package for the export is not installed."""
    for package in ("onnx", "onnxruntime"):
        require(package, "trainer", "the recipe's setting onnx")


def onnx_versions() -> dict[str, str]:
    """Return the versions of the libraries that shape an ONNX file."""
    names = ("torch", "transformers", "peft", "onnx", "onnxruntime")
    return {name: version(name) for name in names}


def export_onnx(model: EncoderModel, directory: Path, precisions: Sequence[OnnxPrecision]) -> None:
    """Write an encoder as ONNX into ``directory``: from ``input_ids`` and ``attention_mask``
    (int64, (messages, tokens)) to ``logits`` (float32, (messages, classes)), LoRA folded in.

    The same weights and library versions give the same bytes on every processor. Raises BadInput if
    a package is missing.
    """
    export_classifier(_merged(model), model.pad_id, directory, precisions)


def export_classifier(
    classifier: torch.nn.Module,
    pad_id: int,
    directory: Path,
    precisions: Sequence[OnnxPrecision],
) -> None:
    """Write a module that maps ids and mask to logits, on the CPU: see ``export_onnx``."""
    require_onnx()
    whole = directory / FILES["fp32"]
    _export(classifier, pad_id, whole)
    if "int8" in precisions:
        quantize(whole, directory / FILES["int8"])
    if "fp32" not in precisions:
        whole.unlink()


def onnx_logits(
    path: Path,
    prompts: Sequence[PromptIds],
    *,
    classes: int,
    pad_id: int,
) -> Floats:
    """Return ONNX Runtime's logits, (prompts, classes), on the CPU."""
    session = open_session(path)
    reads_text = [each.name for each in session.get_inputs()] == [TEXT_INPUT]
    found = np.empty((len(prompts), classes))
    # Each alone, as a worker does: the scale of 8-bit activations is computed over a batch.
    with progress("scoring", len(prompts)) as advance:
        for at, prompt in enumerate(prompts):
            if reads_text:
                given = {TEXT_INPUT: np.array([text_of(prompt)], dtype=object)}
            else:
                ids, mask = collate_rows([prompt], pad_id, torch.device("cpu"))
                given = dict(zip(INPUTS, (ids.numpy(), mask.numpy()), strict=True))
            found[at] = session.run([OUTPUT], given)[0][0]
            advance()
    return found


def open_session(model: Path | bytes) -> Any:
    """Return ONNX Runtime's session of a file, or of its content, on the CPU. Raises the library's
    own errors, of many kinds."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised as well
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def _export(classifier: torch.nn.Module, pad_id: int, path: Path) -> None:
    example = collate_rows(_ROWS, pad_id, torch.device("cpu"))
    axes = {key: {0: "messages", 1: "tokens"} for key in INPUTS} | {OUTPUT: {0: "messages"}}
    with warnings.catch_warnings(), torch.inference_mode():
        # The old exporter, which warns that it is old: the new one takes six times as long, needs
        # another package, and writes the same products.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            classifier,
            example,
            str(path),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )


def _merged(model: EncoderModel) -> Classifier:
    """Return a copy on the CPU with the LoRA layers folded into the weights."""
    classifier: Any = copy.deepcopy(model.classifier).cpu().eval()
    if model.lora is not None:
        fold_lora(classifier.backbone)
        classifier.backbone = classifier.backbone.unload()
    made: Classifier = classifier
    return made


@dataclass(frozen=True, slots=True)
class OnnxScorer:
    """A scorer of one ONNX file; the raw scores are the head's logits."""

    path: Path
    classes: int
    pad_id: int

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,  # noqa: ARG002 - a worker scores each message alone
        autocast: bool = False,  # noqa: ARG002 - the file fixes the arithmetic
    ) -> Scores:
        """Score prompts: see ``PromptScorer``."""
        started = time.perf_counter()
        logits = onnx_logits(
            self.path,
            prompts,
            classes=self.classes,
            pad_id=self.pad_id,
        )
        return Scores(logits, np.ones(len(prompts), dtype=bool), time.perf_counter() - started)


def open_onnx(directory: Path, manifest: Manifest) -> OnnxScorer | None:
    """Return the scorer of the file with which temperature and thresholds were fitted
    (``Head.judged``), as workers use it; None if the encoder has no ONNX file. Raises ProofFailed
    if its golden logits differ on this machine, and BadInput if a package is missing."""
    head = manifest.head
    if head is None or head.judged is None:
        return None
    require_onnx()
    model = head.judged
    scorer = OnnxScorer(directory / model.file, len(head.outputs), head.pad_id)
    prompts = [manifest.golden[golden.prompt].ids for golden in head.golden_logits]
    found = scorer.score(prompts).logprobs.tolist()
    if problem := disagreement(head.golden_logits, found, model.tolerance):
        raise ProofFailed(
            f"{directory / model.file}: differs from the trainer's model on this machine: "
            f"{problem}: evaluate on another processor, or train without that file "
            '(onnx = ["fp32"])'
        )
    return scorer
