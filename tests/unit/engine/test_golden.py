"""An engine whose head answers otherwise than the trainer's is not taken into service."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.toy_adapter import small_manifest, toy_lora_head_manifest
from worker.contract import AdapterRefused, Manifest
from worker.engine.fake import FakeEngine
from worker.engine.golden import check_golden
from worker.engine.port import Answer, CodeScores, HeadLogits
from worker.errors import MessageRejected

MANIFEST = toy_lora_head_manifest()
ADAPTER = Path("/adapter")
assert MANIFEST.head is not None
LOGITS = MANIFEST.head.golden_logits[0].logits


def check(answer: Answer | Exception, manifest: Manifest = MANIFEST) -> None:
    """Check an engine that has this one answer."""
    engine = FakeEngine(lambda _: answer, service_s=0.001, concurrency=1)
    try:
        check_golden(engine, ADAPTER, manifest)
    finally:
        engine.close()


def test_logits_that_rounding_explains_are_taken() -> None:
    check(HeadLogits(tuple(logit + 0.3 for logit in LOGITS)))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (HeadLogits(tuple(reversed(LOGITS))), "vLLM answers otherwise .* 3 off; 0.5 is allowed"),
        (HeadLogits(LOGITS[:2]), "has 2 logits instead of 4"),
        (HeadLogits((float("nan"), *LOGITS[1:])), "inf off"),
        (MessageRejected("engine_rejected", "too long"), "a golden prompt is rejected"),
    ],
)
def test_another_model_is_refused(answer: Answer | Exception, problem: str) -> None:
    with pytest.raises(AdapterRefused, match=problem):
        check(answer)


def test_of_codes_nothing_is_recorded() -> None:
    check(CodeScores({}), small_manifest())
