"""The published schemas: valid, versioned, and those of the classes that write and read."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.fakes import NOW
from tests.support.records import toy_record
from tests.support.toy_adapter import small_manifest
from worker.contract import Decision
from worker.records.output import OutputEncoder
from worker.records.schemas import SCHEMAS, json_schema, schema_text
from worker.records.types import Classified, Timing

DOCS = Path(__file__).parents[3] / "docs"
OUTPUT = jsonschema.Draft202012Validator(json_schema("output"))
RESULT = Classified(
    Decision("billing", 0.75, {"billing": 0.75}, 0.125), "msg-1", False, (), Timing(0.25, 0.5)
)

OPTIONAL = {"output": {"replay", "out_of_scope", "cascade"}, "correction": set()}
"""What came to a schema after its first publication, and so may be absent."""


def output() -> dict[str, Any]:
    value = OutputEncoder(small_manifest(), "9.9").encode(toy_record(), RESULT, "out", NOW).value
    assert value is not None
    found: dict[str, Any] = json.loads(value)
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_is_that_of_the_code(name: str) -> None:
    """Consumers generate code from the file."""
    assert (DOCS / f"{name}.schema.json").read_text(encoding="utf-8") == schema_text(name)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_valid_and_versioned(name: str) -> None:
    """It is itself valid, has an id with its version, and a description of each record."""
    schema = json_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:filing-clerk:{name}:1"
    assert schema["description"]
    assert set(schema["properties"]) - set(schema["required"]) == OPTIONAL[name]


@pytest.mark.parametrize(
    "change",
    [{"schema_version": 2}, {"confidence": 1.5}, {"label": None}, {"review": {"needed": True}}],
)
def test_the_schema_refuses_what_is_none_of_our_records(change: dict[str, Any]) -> None:
    """It is strict enough to be worth validating with."""
    value = {**output(), **change}
    assert not OUTPUT.is_valid(value)


def test_the_schema_is_one_and_names_every_field() -> None:
    """It is itself valid, versioned, and requires what is always there."""
    schema = json_schema("output")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == "urn:filing-clerk:output:1"
    assert set(schema["required"]) == set(output())
    assert json.loads(schema_text("output")) == schema
