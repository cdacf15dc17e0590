"""From what vLLM gives back to an answer of the engine port; it needs no vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.contract import Manifest
from worker.engine.port import Answer, ChoiceAnswer, CodeScores
from worker.errors import EngineDied, MessageRejected


def read_answer(manifest: Manifest, params: Sequence[Any], completions: Sequence[Any]) -> Answer:
    """Return the answer that vLLM's completions hold, one for each of the requests ``params``.
    Raises EngineDied and MessageRejected."""
    for completion in completions:
        if completion.finish_reason == "abort":
            raise EngineDied("the engine is shutting down")
        if completion.finish_reason == "error":
            raise MessageRejected("engine_rejected", "the engine failed on this prompt")
    if manifest.decoding == "choice":
        (words,) = completions
        return ChoiceAnswer(words.text, float(words.cumulative_logprob))
    scores: dict[int, float] = {}
    for asked, completion in zip(params, completions, strict=True):
        found = completion.logprobs[0]
        ids = asked.logprob_token_ids
        scores |= {one: float(found[one].logprob) for one in ids if one in found}
    return CodeScores(scores)
