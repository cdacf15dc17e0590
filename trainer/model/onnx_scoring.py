"""A published encoder scored as a worker serves it: by the ONNX file that it was judged with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.errors import ProofFailed
from trainer.model.forward import PromptIds
from trainer.model.onnx_export import onnx_logits, require_onnx
from trainer.model.scoring import BATCH_SIZE, Scores
from worker.contract import Manifest, disagreement


@dataclass(frozen=True, slots=True)
class OnnxScorer:
    """One ONNX file; its raw scores are the head's logits, in float32 or of 8-bit weights."""

    path: Path
    classes: int
    pad_id: int

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,  # noqa: ARG002 - a worker runs each message alone
        autocast: bool = False,  # noqa: ARG002 - the file has its arithmetic
        on_progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """Score prompts, each alone: the scale of 8-bit activations is taken over a batch. See
        ``PromptScorer``."""
        seconds = np.empty(len(prompts))

        def note(chosen: list[int], took: float) -> None:
            seconds[chosen] = took
            if on_progress:
                on_progress(len(chosen))

        started = time.perf_counter()
        logits = onnx_logits(
            self.path,
            prompts,
            classes=self.classes,
            pad_id=self.pad_id,
            batch_size=1,
            on_batch=note,
        )
        in_set = np.ones(len(prompts), dtype=bool)
        return Scores(logits, in_set, seconds, time.perf_counter() - started)


def open_onnx(directory: Path, manifest: Manifest) -> OnnxScorer | None:
    """Return what scores as a worker does: by the file that temperature and thresholds were made
    with (``Head.judged``); None where the encoder has no ONNX file. Raises ProofFailed where its
    golden logits are not the trainer's on this machine, and BadInput where a package is missing.
    """
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
            f"{directory / model.file}: answers otherwise than the trainer's model on this "
            f"machine: {problem}. Evaluate on another processor, or train without that file: "
            'onnx = ["fp32"]'
        )
    return scorer
