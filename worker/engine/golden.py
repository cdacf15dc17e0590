"""Whether an engine computes what the trainer did: the golden prompts of a head, asked of vLLM."""

from __future__ import annotations

from pathlib import Path

from worker.contract import AdapterRefused, Manifest, disagreement
from worker.engine.port import Engine, HeadLogits
from worker.errors import MessageRejected

_LEAST = 0.5
_SHARE = 0.1
"""How far a logit may be off: so much, or this share of the largest of all golden logits. bfloat16
holds three digits, and a model rounds to them a hundred times over."""


def check_golden(engine: Engine, adapter: Path, manifest: Manifest) -> None:
    """Ask the golden prompts, and raise AdapterRefused where a head's logits are not the trainer's:
    an engine that left part of the adapter out would answer too. Of codes no logits are recorded.
    EngineDied where the engine is gone."""
    if manifest.head is None:
        return
    golden = manifest.head.golden_logits
    asked = [engine.submit(manifest.golden[each.prompt].ids) for each in golden]
    found = []
    for future in asked:
        try:
            answer = future.result()
        except MessageRejected as error:
            raise AdapterRefused(adapter, f"a golden prompt is rejected: {error}") from error
        assert isinstance(answer, HeadLogits)
        found.append(answer.logits)
    largest = max(abs(logit) for each in golden for logit in each.logits)
    tolerance = max(_LEAST, _SHARE * largest)
    if problem := disagreement(golden, found, tolerance):
        raise AdapterRefused(adapter, f"vLLM answers otherwise than the trainer's model: {problem}")
