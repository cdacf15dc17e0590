"""What an engine's answer means by the contract of the adapter that was asked."""

from __future__ import annotations

from dataclasses import replace

from worker.contract.errors import InvalidScores
from worker.contract.manifest import Manifest
from worker.contract.scoring import (
    Decision,
    decide_from_choice,
    decide_from_codes,
    decide_from_logits,
)
from worker.engine.port import Answer, CodeScores, HeadLogits, StageDecisions
from worker.errors import MessageRejected


def decide(answer: Answer, manifest: Manifest) -> Decision:
    """Turn an answer into a label. Raises MessageRejected when it is none."""
    temperature = manifest.calibration.temperature
    names = manifest.taxonomy.names
    try:
        if isinstance(answer, StageDecisions):
            *earlier, last = answer.decisions
            return replace(last, earlier=tuple(earlier))
        if isinstance(answer, CodeScores):
            return decide_from_codes(answer.logprobs, manifest.codes, temperature)
        if isinstance(answer, HeadLogits):
            return decide_from_logits(answer.logits, manifest.head, names, temperature)
        return decide_from_choice(answer.text, answer.logprob, names)
    except InvalidScores as error:
        raise MessageRejected("invalid_answer", str(error)) from error
