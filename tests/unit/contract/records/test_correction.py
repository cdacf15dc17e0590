"""What reviewers decided and took back: the records that the desk writes for routers."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rig import NOW, toy_record
from tests.support.toy_adapter import small_manifest
from worker.contract import Decision
from worker.contract.errors import RecordRefused
from worker.contract.records import (
    Correction,
    OutputRecord,
    Retraction,
    correct,
    read_correction,
    read_output,
    to_json,
)
from worker.records.encode import OutputEncoder
from worker.records.schemas import json_schema
from worker.records.types import Classified, Timing

AT = "2024-05-06T09:00:00Z"
VALIDATOR = jsonschema.Draft202012Validator(json_schema("correction"))


def output(confidence: float = 0.5, message_id: str | None = "T-1") -> OutputRecord:
    decision = Decision("billing", confidence, {"billing": confidence}, None)
    result = Classified(decision, message_id, False, ("low_confidence",), Timing(0, 0))
    value = (
        OutputEncoder(small_manifest(), "9.9", ("fp32",))
        .encode(toy_record(), result, "review", NOW)
        .value
    )
    return read_output(value)


def corrected(**changes: Any) -> Correction:
    given_ = {"label": "delivery", "decided_by": "annotator-7", "decided_at": AT, **changes}
    return correct(output(), **given_)


def test_the_record_by_example() -> None:
    """A change here changes the contract with desk and trainer."""
    manifest = small_manifest()
    assert json.loads(to_json(corrected(guideline_version="3"))) == {
        "schema_version": 1,
        "kind": "correction",
        "id": "in-3-42",
        "source": {
            "topic": "in",
            "partition": 3,
            "offset": 42,
            "timestamp": "2023-11-14T22:13:20.123Z",
        },
        "message_id": "T-1",
        "label": "delivery",
        "taxonomy": {"name": "toy", "version": "1", "digest": manifest.taxonomy.digest},
        "decided_at": AT,
        "decided_by": "annotator-7",
        "guideline_version": "3",
        "machine": {
            "label": "billing",
            "confidence": 0.5,
            "adapter": {"name": "toy-1", "digest": manifest.digest},
        },
    }


def retracted(**changes: Any) -> Retraction:
    said = corrected()
    made = Retraction(1, "retraction", said.id, said.source, said.message_id, "undone", AT, "ann-7")
    return replace(made, **changes)


def test_a_retraction_by_example() -> None:
    """It has the correction's id, and no label. Written and read, and valid by its own schema."""
    value = json.loads(to_json(retracted()))
    assert value == {
        "schema_version": 1,
        "kind": "retraction",
        "id": "in-3-42",
        "source": {
            "topic": "in",
            "partition": 3,
            "offset": 42,
            "timestamp": "2023-11-14T22:13:20.123Z",
        },
        "message_id": "T-1",
        "reason": "undone",
        "retracted_at": AT,
        "retracted_by": "ann-7",
    }
    jsonschema.Draft202012Validator(json_schema("retraction")).validate(value)
    for made in (retracted(), retracted(reason="taxonomy_changed", retracted_by=None)):
        assert read_correction(to_json(made)) == made
    assert not VALIDATOR.is_valid(value)
    for wrong in ({"reason": "?"}, {"retracted_by": "Ann Example"}, {"id": "in-3-1"}):
        with pytest.raises(RecordRefused, match=f"^the retraction: .*{next(iter(wrong))}"):
            read_correction(json.dumps(value | wrong))


@given(
    st.text(),
    st.floats(0, 1),
    st.none() | st.text(),
    st.none() | st.text(),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
)
def test_any_correction_reads_back_and_is_valid(
    label: str,
    confidence: float,
    message_id: str | None,
    guideline_version: str | None,
    decided_by: str,
) -> None:
    found = correct(
        output(confidence, message_id),
        label=label,
        decided_by=decided_by,
        decided_at=AT,
        guideline_version=guideline_version,
    )
    assert read_correction(to_json(found)) == found
    VALIDATOR.validate(json.loads(to_json(found)))


@pytest.mark.parametrize(
    "name", ["", "ann@example.com", "Ann Example", "Ann Exämple", "a" * 65, "-ann", "ann\n"]
)
def test_names_and_addresses_are_refused_as_pseudonyms(name: str) -> None:
    """The error must not repeat the personal data."""
    with pytest.raises(ValueError, match="must be a pseudonym") as caught:
        corrected(decided_by=name)
    assert "ann" not in str(caught.value).casefold().replace("annotator", "")
    value = json.loads(to_json(corrected())) | {"decided_by": name}
    if not name.endswith("\n"):  # a dollar sign means the end in JSON Schema, not so in Python
        assert not VALIDATOR.is_valid(value)
    with pytest.raises(RecordRefused, match=r"the value\.decided_by does not match"):
        read_correction(json.dumps(value))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema_version": 2}, r"schema_version must be one of \[1\]"),
        ({"kind": "?"}, r"kind must be one of \['correction'\]"),
        ({"id": "in-3-41"}, "id does not match source"),
        ({"decided_at": "today"}, "decided_at: not a time in RFC 3339"),
    ],
)
def test_malformed_corrections_are_refused_by_the_field_at_fault(
    change: dict[str, Any], problem: str
) -> None:
    value = json.loads(to_json(corrected())) | change
    with pytest.raises(RecordRefused, match=f"^the correction: .*{problem}"):
        read_correction(json.dumps(value))


def test_keys_of_a_later_desk_are_ignored() -> None:
    value = json.loads(to_json(corrected())) | {"note": "?"}
    assert read_correction(json.dumps(value)) == corrected()
