"""The output record, on which routers depend, and the dead letter."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rig import NOW, toy_record
from tests.support.toy_adapter import (
    cascade_of,
    one_golden,
    scores,
    small_manifest,
    toy_encoder_manifest,
    toy_manifest,
    toy_spec,
)
from worker.contract.errors import RecordRefused
from worker.contract.records import InputFormat, Replay, read_dead_letter
from worker.contract.records.output import read_output
from worker.contract.scoring import Decision
from worker.core.labeller import Labeller
from worker.records.encode import DeadLetterEncoder, OutputEncoder
from worker.records.schemas import json_schema
from worker.records.types import Classified, Outgoing, Rejected, Timing

ENCODER = OutputEncoder(small_manifest(), "9.9", ("bf16",))
DECISION = Decision("billing", 0.75, {"billing": 0.75, "delivery": 0.25, "other": 0.0}, 0.125)
RESULT = Classified(DECISION, "msg-1", False, (), Timing(0.25, 0.5))
VALIDATOR = jsonschema.Draft202012Validator(json_schema("output"))


def encode(result: Classified = RESULT, **record: Any) -> Outgoing:
    return ENCODER.encode(toy_record(**record), result, "out", NOW)


def value_of(outgoing: Outgoing) -> dict[str, Any]:
    assert outgoing.value is not None
    value = json.loads(outgoing.value)
    VALIDATOR.validate(value)
    assert isinstance(value, dict)
    return value


def test_the_record_by_example() -> None:
    """As it is documented: a change here changes every router."""
    manifest = small_manifest()
    assert value_of(encode()) == {
        "schema_version": 1,
        "id": "in-3-42",
        "source": {
            "topic": "in",
            "partition": 3,
            "offset": 42,
            "timestamp": "2023-11-14T22:13:20.123Z",
        },
        "message_id": "msg-1",
        "label": "billing",
        "confidence": 0.75,
        "scores": {"billing": 0.75, "delivery": 0.25, "other": 0.0},
        "off_label_mass": 0.125,
        "review": {"needed": False, "reasons": []},
        "truncated": False,
        "adapter": {"name": "toy-1", "digest": manifest.digest, "precision": "bf16"},
        "taxonomy": {"name": "toy", "version": "1", "digest": manifest.taxonomy.digest},
        "base_model": {"name": "toy-base", "revision": "main"},
        "labelled_at": "2024-05-06T07:08:09.123Z",
        "latency": {"queue_s": 0.25, "engine_s": 0.5},
        "worker_version": "9.9",
    }


def test_key_and_headers_of_the_input_are_kept() -> None:
    outgoing = encode()
    assert (outgoing.topic, outgoing.key) == ("out", b"customer-7")
    assert outgoing.headers == (("trace", b"\xff\x00"), ("none", None))
    assert encode(key=None, headers=()).key is None


def test_the_message_is_not_copied_to_the_output() -> None:
    record = toy_record(b'{"message": "my card is 4111", "id": "x"}')
    labeller = Labeller(
        small_manifest(),
        lambda text: [10 + ord(c) for c in text],
        small_manifest().thresholds,
        InputFormat(),
    )
    prepared = labeller.prepare(record)
    decision = labeller.decide(scores("billing"))
    result = Classified(decision, prepared.message_id, False, (), Timing(0, 0))
    value = ENCODER.encode(record, result, "out", NOW).value
    assert value is not None
    assert b"4111" not in value
    assert b"card" not in value


def test_a_head_has_an_out_of_scope_score_instead_of_off_label_mass() -> None:
    encoder = OutputEncoder(toy_encoder_manifest(golden=one_golden(toy_spec())), "9.9", ("int8",))
    decision = replace(DECISION, off_label_mass=None, out_of_scope=-3.25)
    result = replace(RESULT, decision=decision, review=("out_of_scope",), truncated=True)
    value = value_of(encoder.encode(toy_record(), result, "out", NOW))
    assert value["off_label_mass"] is None
    assert value["out_of_scope"] == {"method": "energy", "score": -3.25}
    assert value["review"] == {"needed": True, "reasons": ["out_of_scope"]}
    assert value["truncated"] is True
    assert "replay" not in value


def test_a_cascades_record_has_the_stage_that_answered_and_the_earlier_answers() -> None:
    small = toy_encoder_manifest(name="small", golden=one_golden(toy_spec()))
    large = toy_manifest(name="large", golden=one_golden(toy_spec()))
    cascade = cascade_of(small, large)
    encoder = OutputEncoder(cascade, "9.9", ("int8", "bf16"))
    thought = Decision("other", 0.4, {"other": 0.4}, None, -3.25)
    second = replace(RESULT, decision=replace(DECISION, earlier=(thought,)))
    value = value_of(encoder.encode(toy_record(), second, "out", NOW))
    VALIDATOR.validate(value)
    name = cascade.name
    assert value["adapter"] == {"name": name, "digest": cascade.digest, "precision": "bf16"}
    assert value["cascade"] == {
        "stage": 2,
        "stages": 2,
        "answered": {"name": "large", "digest": large.digest, "precision": "bf16"},
        "earlier": [
            {
                "adapter": {"name": "small", "digest": small.digest, "precision": "int8"},
                "label": "other",
                "confidence": 0.4,
            }
        ],
    }
    assert "out_of_scope" not in value
    assert read_output(encoder.encode(toy_record(), second, "out", NOW).value).cascade is not None
    first = value_of(encoder.encode(toy_record(), replace(RESULT, decision=thought), "out", NOW))
    assert (first["cascade"]["stage"], first["cascade"]["earlier"]) == (1, [])
    assert (first["adapter"]["digest"], first["adapter"]["precision"]) == (cascade.digest, "int8")
    assert first["out_of_scope"] == {"method": "energy", "score": -3.25}
    assert "cascade" not in value_of(encode())
    value["cascade"]["stage"] = 1
    with pytest.raises(RecordRefused, match=r"cascade\.stage and cascade\.earlier"):
        read_output(json.dumps(value))


@given(
    st.floats(0, 1),
    st.none() | st.floats(0, 1),
    st.none() | st.text(),
    st.floats(0, 1e9),
    st.none() | st.binary(),
)
def test_every_result_validates_against_the_published_schema(
    confidence: float, mass: float | None, identity: str | None, seconds: float, key: bytes | None
) -> None:
    decision = Decision("billing", confidence, {"billing": confidence}, mass)
    result = Classified(decision, identity, True, (), Timing(seconds, seconds))
    value = value_of(encode(result, key=key))
    assert value["message_id"] == identity
    assert value["confidence"] == pytest.approx(confidence, abs=1e-6)


def test_a_replay_is_named_in_its_records_only() -> None:
    assert "replay" not in value_of(encode())
    replay = Replay("after-the-fix", "2026-03-02T08:15:27.402Z", "adapter 9f2c was wrong")
    written = value_of(ENCODER.encode(toy_record(), RESULT, "out", NOW, replay))
    assert written["replay"] == {"id": replay.id, "at": replay.at, "reason": replay.reason}
    assert written["id"] == "in-3-42"


REJECTED = Rejected("not_json", "decode", "the value is not JSON", attempts=3)
LETTERS = DeadLetterEncoder("dead", "9.9", "abc")


@pytest.mark.parametrize("value", [b"\xff\x00 raw", b"", None])
def test_a_dead_letter_keeps_key_value_and_headers_byte_by_byte(value: bytes | None) -> None:
    record = toy_record(value, key=b"\x00\xff")
    letter = LETTERS.encode(record, REJECTED)
    assert (letter.topic, letter.key, letter.value) == ("dead", b"\x00\xff", value)
    assert letter.headers[: len(record.headers)] == record.headers


def test_the_headers_of_a_dead_letter_by_example() -> None:
    letter = LETTERS.encode(toy_record(headers=()), REJECTED)
    assert dict(letter.headers) == {
        "clerk.reason": b"not_json",
        "clerk.stage": b"decode",
        "clerk.error": b"the value is not JSON",
        "clerk.source.topic": b"in",
        "clerk.source.partition": b"3",
        "clerk.source.offset": b"42",
        "clerk.source.timestamp": b"1700000000123",
        "clerk.attempt": b"3",
        "clerk.worker.version": b"9.9",
        "clerk.adapter.digest": b"abc",
    }


def test_a_second_dead_letter_replaces_the_headers_of_the_first() -> None:
    record = toy_record()
    for once in (
        LETTERS.encode(record, REJECTED),
        LETTERS.without_payload(record, REJECTED),
    ):
        sent_again = toy_record(headers=(*once.headers, ("mine", b"1")), offset=77)
        later = Rejected("deadline_exceeded", "engine", "no answer")
        again = LETTERS.encode(sent_again, later)
        names = [name for name, _ in again.headers]
        assert len(names) == len(set(names))
        expected = LETTERS.encode(toy_record(headers=(), offset=77), later)
        assert set(names) == {name for name, _ in expected.headers} | {"mine"} | (
            {"trace", "none"} if once.value else set()
        )
        assert (read_dead_letter(again.headers).offset, read_dead_letter(again.headers).reason) == (
            77,
            "deadline_exceeded",
        )


def test_a_dead_letter_without_payload_has_the_records_place_and_size() -> None:
    record = toy_record(b"v" * 1000, key=b"k" * 10, headers=(("h", b"x" * 100), ("n", None)))
    letter = LETTERS.without_payload(record, REJECTED)
    assert (letter.key, letter.value) == (None, None)
    names = [name for name, _ in letter.headers]
    assert "h" not in names
    headers = dict(letter.headers)
    assert headers["clerk.payload.omitted.bytes"] == b"1112"
    assert headers["clerk.source.offset"] == b"42"
