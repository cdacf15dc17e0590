"""The output record: written by the worker, read back with checks."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rig import NOW, toy_record
from tests.support.toy_adapter import one_golden, small_manifest, toy_encoder_manifest, toy_spec
from worker.contract import Decision
from worker.contract.errors import RecordRefused
from worker.contract.records import (
    read_output,
    read_shadow,
    shadow_headers,
    to_json,
)
from worker.records.encode import OutputEncoder
from worker.records.types import Classified, Timing

ENCODER = OutputEncoder(small_manifest(), "9.9", ("fp32",))
HEAD_ENCODER = OutputEncoder(toy_encoder_manifest(golden=one_golden(toy_spec())), "9.9", ("int8",))
DECISION = Decision("billing", 0.75, {"billing": 0.75, "delivery": 0.25, "other": 0.0}, 0.125)
RESULT = Classified(DECISION, "msg-1", False, ("low_confidence",), Timing(0.25, 0.5))


def written(result: Classified = RESULT, **record: Any) -> bytes:
    value = ENCODER.encode(toy_record(**record), result, "out", NOW).value
    assert value is not None
    return value


def changed(*path: str, to: Any) -> bytes:
    """A record with the value at ``path`` replaced; ``...`` removes the key."""
    data: dict[str, Any] = json.loads(written())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return json.dumps(data).encode()


def test_what_the_worker_writes_is_read_back_whole() -> None:
    assert read_output(written()) == ENCODER.build(toy_record(), RESULT, NOW)


probabilities = st.floats(0, 1)


@given(
    probabilities,
    st.none() | probabilities,
    st.none() | st.text(),
    st.floats(0, 1e9),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([(), ("low_confidence",), ("off_label_mass", "out_of_scope")]),
    st.sampled_from([None, "eu"]),
)
def test_any_record_survives_both_encoders(  # noqa: PLR0917 - drawn one by one
    confidence: float,
    mass: float | None,
    message_id: str | None,
    seconds: float,
    timestamp_ms: int | None,
    review: Any,
    cluster: str | None,
) -> None:
    """The worker's fast encoder and the contract's encoder write the same JSON."""
    score = None if mass is None else -seconds
    decision = Decision("billing", confidence, {"billing": confidence, "ünï": 0.5}, mass, score)
    result = Classified(decision, message_id, True, review, Timing(seconds, seconds))
    given = toy_record(timestamp_ms=timestamp_ms, cluster=cluster)
    record = HEAD_ENCODER.build(given, result, NOW)
    fast, plain = HEAD_ENCODER.encode(given, result, "out", NOW).value, to_json(record)
    assert fast is not None
    assert json.loads(fast) == json.loads(plain)
    assert read_output(fast) == read_output(plain) == record
    assert to_json(read_output(plain)) == plain


def test_keys_of_a_later_worker_are_ignored() -> None:
    data = json.loads(written())
    data["added"] = {"text": 1}
    data["source"]["added"] = None
    assert read_output(json.dumps(data)) == read_output(written())


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "there is no value"),
        (b"\xff", "the value is not JSON"),
        (b"{}", "the value lacks"),
        (changed("schema_version", to=2), r"the value.schema_version must be one of \[1\]"),
        (changed("label", to="nowhere"), "scores lacks the chosen label"),
        (changed("scores", "other", to=-0.1), "the value.scores.other is -0.1; it must be from 0"),
        (changed("review", "needed", to=False), "review.needed and review.reasons contradict"),
        (
            changed("source", "offset", to=41),
            "id does not match source",
        ),
        (
            changed("source", "timestamp", to="now"),
            "source.timestamp: not a time in RFC 3339",
        ),
    ],
)
def test_malformed_output_records_are_refused_by_the_field_at_fault(
    value: bytes | None, problem: str
) -> None:
    with pytest.raises(RecordRefused, match=f"^the output record: .*{problem}"):
        read_output(value)


@given(st.binary() | st.text().map(str.encode))
def test_arbitrary_bytes_are_read_or_refused(value: bytes) -> None:
    with pytest.raises(RecordRefused) as caught:
        read_output(value)
    assert caught.value.__cause__ is None


# What a shadow said, next to what the main adapter said.


SHADOWED = Classified(Decision("other", 0.9, {"other": 0.9}, None), None, False, (), Timing(0, 0))
VALUE = (
    OutputEncoder(small_manifest(), "9.9", ("fp32",))
    .encode(toy_record(), SHADOWED, "shadow", NOW)
    .value
)


@pytest.mark.parametrize("place", [0, 1])
def test_a_shadow_record_without_its_headers_is_refused(place: int) -> None:
    with pytest.raises(RecordRefused, match=r"lacks the header clerk\.main\.label or"):
        read_shadow(VALUE, [shadow_headers("billing", "abc")[place]])
