"""JSON Schemas (2020-12) of the records that others read and write, from the contract's classes.

python -m worker.records.schemas output > docs/output.schema.json
python -m worker.records.schemas correction > docs/correction.schema.json
"""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import sys
import types
import typing
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from worker.contract.marks import Doc, Pattern, Range
from worker.contract.records import Correction, OutputRecord

SCHEMAS: dict[str, type[Any]] = {"output": OutputRecord, "correction": Correction}
"""The published records by the name of their schema; each is at version 1."""


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of one of ``SCHEMAS``."""
    schema = TypeAdapter(_for_pydantic(SCHEMAS[name])).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:filing-clerk:{name}:1",
        **schema,
    }


def schema_text(name: str) -> str:
    """Return a schema as it stands in the repository."""
    return json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n"


def _for_pydantic(kind: Any) -> Any:
    """Return the same type with the contract's marks as those that pydantic reads."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _class_for_pydantic(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        marks = tuple(_field(mark) for mark in kind.__metadata__)
        return Annotated[(_for_pydantic(arguments[0]), *marks)]
    if origin in {types.UnionType, typing.Union}:
        return functools.reduce(operator.or_, map(_for_pydantic, arguments))
    if origin in {tuple, dict}:
        return origin[tuple(map(_for_pydantic, arguments))]
    return kind


@functools.cache
def _class_for_pydantic(kind: Any) -> Any:
    """One class for each of the contract's: a schema defines a class that occurs twice once."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return dataclasses.make_dataclass(
        kind.__name__,
        [
            # What has a default may be absent.
            (field.name, _for_pydantic(hints[field.name]), dataclasses.field(default=field.default))
            for field in dataclasses.fields(kind)
        ],
        namespace={"__doc__": kind.__doc__},
    )


def _field(mark: Any) -> Any:
    if isinstance(mark, Doc):
        return Field(description=mark.text)
    if isinstance(mark, Pattern):
        return Field(pattern=mark.regex)
    assert isinstance(mark, Range)
    return Field(ge=mark.least, le=mark.most)


if __name__ == "__main__":
    sys.stdout.write(schema_text(sys.argv[1]))
