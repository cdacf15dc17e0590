"""From a record to a prompt, and from an answer to an outcome."""

import math

import pytest

from tests.support.rig import toy_record
from tests.support.toy_adapter import encode_plain, scores, small_manifest
from worker.contract import Thresholds
from worker.contract.errors import MessageRejected
from worker.contract.records import InputFormat
from worker.core.labeller import Labeller
from worker.engine.port import CodeScores, HeadLogits


def labeller(thresholds: Thresholds | None = None) -> Labeller:
    manifest = small_manifest()
    return Labeller(manifest, encode_plain, thresholds or manifest.thresholds, InputFormat())


def test_a_record_becomes_the_prompt_of_its_message() -> None:
    prepared = labeller().prepare(toy_record(b'{"message": "hi", "id": 7}'))
    spec = small_manifest().prompt
    assert prepared.prompt_ids == (*spec.prefix_ids, *encode_plain("hi"), *spec.suffix_ids)
    assert (prepared.message_id, prepared.truncated) == ("7", False)


def test_a_long_message_is_marked_as_shortened() -> None:
    prepared = labeller().prepare(toy_record(b'{"message": "%s"}' % (b"x" * 100)))
    assert prepared.truncated
    assert len(prepared.prompt_ids) == small_manifest().prompt.max_prompt_tokens


@pytest.mark.parametrize("text", ["\\u200b", "\\u0000\\u0001", "\\ud800"])
def test_a_message_of_nothing_printable_is_rejected(text: str) -> None:
    with pytest.raises(MessageRejected) as caught:
        labeller().prepare(toy_record(f'{{"message": "{text}"}}'.encode()))
    assert caught.value.reason == "empty_message"


@pytest.mark.parametrize(
    "answer",
    [
        CodeScores({}),
        CodeScores(dict.fromkeys(small_manifest().codes, math.nan)),
        CodeScores({"twelfth category": -0.1}),
        HeadLogits((1.0,)),
    ],
)
def test_an_answer_that_is_not_a_label_is_rejected(answer: CodeScores | HeadLogits) -> None:
    with pytest.raises(MessageRejected) as caught:
        labeller().decide(answer)
    assert caught.value.reason == "invalid_answer"


@pytest.mark.parametrize(
    ("thresholds", "reasons"),
    [
        (Thresholds(None, None), ()),
        (Thresholds(0.1, 0.9), ()),
        (Thresholds(0.99, None), ("low_confidence",)),
        (Thresholds(None, 0.01), ("off_label_mass",)),
        (Thresholds(0.99, 0.01), ("low_confidence", "off_label_mass")),
    ],
)
def test_review_reasons_follow_the_thresholds(
    thresholds: Thresholds, reasons: tuple[str, ...]
) -> None:
    made = labeller(thresholds)
    assert made.review_reasons(made.decide(scores("billing", p=0.9))) == reasons
