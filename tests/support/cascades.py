"""Cascades of toy adapters: manifests that bind stages, and what fake engines answer for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.swapping import answer_with
from tests.support.toy_adapter import decode, one_golden, toy_manifest, toy_spec
from worker.contract import Calibration, CascadeStage, Manifest, Thresholds
from worker.engine.port import Answer, CodeScores
from worker.errors import MessageRejected


def cascade_of(*stages: Manifest, sure_from: float = 0.8, **changes: Any) -> Manifest:
    """A cascade of adapters with one taxonomy, the small one first; the first ones are sure from
    ``sure_from`` on. ``changes`` replace fields."""
    first, last = stages[0], stages[-1]
    thresholds = Thresholds(0.5, review_disagreement=0.0)
    given: dict[str, Any] = {
        "name": "toy-cascade",
        "created_at": "2024-05-06T07:08:09Z",
        "kind": "cascade",
        "base": last.base,
        "taxonomy": last.taxonomy,
        "prompt": first.prompt,
        "golden": first.golden,
        "calibration": Calibration(1.0, 100),
        "thresholds": thresholds,
        "files": {},
        "stages": bind(stages, sure_from, thresholds),
    }
    return Manifest(**given | changes)


def bind(
    stages: Sequence[Manifest], sure_from: float, thresholds: Thresholds
) -> tuple[CascadeStage, ...]:
    """Name these adapters as stages."""
    last = len(stages) - 1
    return tuple(
        CascadeStage(
            digest=stage.digest,
            name=stage.name,
            kind=stage.kind,
            base=stage.base.name,
            base_revision=stage.base.revision,
            thresholds=thresholds if at == last else Thresholds(None),
            share=1 / len(stages),
            sure_from=None if at == last else sure_from,
            out_of_scope=stage.head.out_of_scope if stage.head else None,
        )
        for at, stage in enumerate(stages)
    )


SMALL = toy_manifest(name="small", golden=one_golden(toy_spec()))
# Another prompt, so that a prompt of one stage given to the other would be seen.
LARGE = toy_manifest(
    name="large", prompt=toy_spec(max_message_tokens=16), golden=one_golden(toy_spec(16))
)
CASCADE = cascade_of(SMALL, LARGE, sure_from=0.8)


def message_in(manifest: Manifest, prompt: Sequence[int]) -> str:
    spec = manifest.prompt
    return decode(prompt[len(spec.prefix_ids) : len(prompt) - len(spec.suffix_ids)])


def small(prompt: Sequence[int]) -> Answer | Exception:
    """Sure of billing where the message says so; else it guesses delivery."""
    text = message_in(SMALL, prompt)
    if "reject" in text:
        return MessageRejected("engine_rejected", "of the small one")
    if "nothing" in text:
        return CodeScores({})
    return answer_with(SMALL, *(("billing", 0.9) if text.startswith("sure") else ("delivery", 0.6)))


def large(prompt: Sequence[int]) -> Answer | Exception:
    assert len(prompt) <= LARGE.prompt.max_prompt_tokens
    return answer_with(LARGE, "other", 0.7)
