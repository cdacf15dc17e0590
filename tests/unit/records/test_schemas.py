"""The published schemas are valid, versioned, and match the records that the programs write."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.desk_files import make_advice, make_proposal, make_task
from tests.support.rig import NOW, toy_record
from tests.support.toy_adapter import small_manifest
from worker.common.review_files import write_answers
from worker.contract import Decision
from worker.contract.codec import encode
from worker.contract.exchange import Answer, ProposalDecision, Suggestion
from worker.contract.text import message_sha256
from worker.records.encode import OutputEncoder
from worker.records.schemas import SCHEMAS, json_schema, schema_text
from worker.records.types import Classified, Timing

DOCS = Path(__file__).parents[3] / "docs"
RESULT = Classified(
    Decision("billing", 0.75, {"billing": 0.75}, 0.125), "msg-1", False, (), Timing(0.25, 0.5)
)

OPTIONAL = {
    "output": {"replay", "out_of_scope", "cascade"},
    "task": {"label", "label_source", "suggested", "confidence", "scores", "reasons", "neighbours",
             "guideline"},
    "proposal-decision": {"reason", "share"},
}  # fmt: skip
"""Fields that may be absent."""


def output() -> dict[str, Any]:
    value = (
        OutputEncoder(small_manifest(), "9.9", ("fp32",))
        .encode(toy_record(), RESULT, "out", NOW)
        .value
    )
    assert value is not None
    found: dict[str, Any] = json.loads(value)
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_is_up_to_date(name: str) -> None:
    assert (DOCS / f"{name}.schema.json").read_text(encoding="utf-8") == schema_text(name)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_valid_and_versioned(name: str) -> None:
    schema = json_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:filing-clerk:{name}:{SCHEMAS[name][1]}"
    assert schema["description"]
    assert set(schema["properties"]) - set(schema["required"]) == OPTIONAL.get(name, set())


def answer_cells(**changes: str) -> dict[str, str]:
    """A line of decisions as a spreadsheet reads it."""
    sha256 = message_sha256("where is my parcel?")
    answers = [Answer("1", sha256, "relabel", "refund", "=SUM(A1)", "p-1", purpose="check")]
    (cells,) = csv.DictReader(io.StringIO(write_answers(answers).decode("utf-8-sig"), newline=""))
    return cells | changes


CIRCLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "task": (encode(make_task("where is my parcel?")), {"purpose": "any"}),
    "suggestion": (
        encode(Suggestion("suggestions/1", "a" * 64, "refund", 0.5)), {"confidence": 2},
    ),
    "decision": (answer_cells(), {"new_label": ""}),
    "advice": (encode(make_advice("where is my parcel?", None)), {"schema": "advice/2"}),
    "proposal": (encode(make_proposal()), {"canary_share": 2}),
    "proposal-decision": (
        encode(ProposalDecision("proposal-decision/1", "1" * 32, "2" * 64, True, "ann",
                                "2026-05-06T09:00:00Z")),
        {"adapter": "2"},
    ),
}  # fmt: skip
"""A record of each kind between trainer and desk, and a change that makes it invalid."""


@pytest.mark.parametrize("name", CIRCLE)
def test_files_between_trainer_and_desk_match_their_schemas(name: str) -> None:
    record, broken = CIRCLE[name]
    validator = jsonschema.Draft202012Validator(json_schema(name))
    validator.validate(json.loads(json.dumps(record)))
    assert not validator.is_valid(record | broken)
    assert not validator.is_valid({})


def undescribed(schema: Any, at: str = "") -> list[str]:
    """Return the fields without a description, at any depth. A condition is not a field."""
    if isinstance(schema, list):
        return [name for each in schema for name in undescribed(each, at)]
    if not isinstance(schema, dict):
        return []
    found = []
    for name, field in schema.get("properties", {}).items():
        if not str(field.get("description", "")).strip():
            found.append(f"{at}.{name}")
        found += undescribed(field, f"{at}.{name}")
    for key, inner in schema.items():
        if key not in {"properties", "if", "then", "else"}:
            found += undescribed(inner, f"{at}/{key}")
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_has_a_description(name: str) -> None:
    """Consumers generate their types and their documentation from these files."""
    assert undescribed(json_schema(name)) == []
    assert undescribed({"properties": {"x": {"properties": {"y": {"description": " "}}}}}) == [
        ".x",
        ".x.y",
    ]
