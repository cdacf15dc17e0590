"""JSON Schemas (2020-12) of the public records, and the output's Avro schema, generated from the
contract's classes.

    python -m worker.records.schemas DIR    # writes one NAME.schema.json for each
    python -m worker.records.schemas --check DIR

Records on topics are ``output``, ``correction`` and ``retraction``; files of the circle are
``task`` (a line of tasks/1), ``suggestion`` (a line of suggestions/1), ``decision`` (a line of
decisions/2, as its CSV's cells), ``advice``, ``proposal`` and ``proposal-decision``.
"""

from __future__ import annotations

import json
import sys
import types
import typing
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter

from worker.contract.codec import Doc
from worker.contract.exchange import (
    ALLOWED,
    ANSWER_COLUMNS,
    ANSWERS_SCHEMA,
    Advice,
    Answer,
    Proposal,
    ProposalDecision,
    Suggestion,
    Task,
)
from worker.contract.records import Correction, OutputRecord, Retraction

SCHEMAS: dict[str, tuple[type[Any], int]] = {
    "output": (OutputRecord, 1),
    "correction": (Correction, 1),
    "retraction": (Retraction, 1),
    "task": (Task, 1),
    "suggestion": (Suggestion, 1),
    "decision": (Answer, 2),
    "advice": (Advice, 1),
    "proposal": (Proposal, 1),
    "proposal-decision": (ProposalDecision, 1),
}
"""The class and the version of each schema."""


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of one of ``SCHEMAS``."""
    kind, version = SCHEMAS[name]
    if kind is Answer:
        schema = _cells_schema()
    else:
        schema = TypeAdapter(kind).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:filing-clerk:{name}:{version}",
        **schema,
    }


def _cells_schema() -> dict[str, Any]:
    """Return the schema of a line of decisions: an object of its columns, each a text that may be
    empty."""
    hints = typing.get_type_hints(Answer, include_extras=True)
    cells: dict[str, Any] = {
        name: {"description": next(m.text for m in hint.__metadata__ if isinstance(m, Doc))}
        for name, hint in hints.items()
    }
    cells["schema"] = {"description": "The version of this format.", "const": ANSWERS_SCHEMA}
    for name, words in ALLOWED.items():
        optional = [] if name in {"decision", "label_source", "role"} else [""]
        cells[name]["enum"] = [*words, *optional]
    for cell in cells.values():
        cell["type"] = "string"
    cells["message_sha256"]["pattern"] = "^[0-9a-f]{64}$"
    with_label = {"properties": {"decision": {"const": "relabel"}}}
    return {
        "title": "Answer",
        "description": "A line of decisions/2 (CSV with a header), its cells by their columns. "
        + " ".join((Answer.__doc__ or "").split()),
        "type": "object",
        "properties": cells,
        "required": list(ANSWER_COLUMNS),
        "if": with_label,
        "then": {"properties": {"new_label": {"minLength": 1}}},
        "else": {"properties": {"new_label": {"maxLength": 0}}},
    }


def schema_text(name: str) -> str:
    """Return the text of a schema's file in the repository."""
    return json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n"


_AVRO: dict[Any, str] = {str: "string", int: "long", float: "double", bool: "boolean"}


def avro_schema(kind: Any, named: set[str]) -> Any:
    """Return the Avro schema of a class of records, or of a field's type. ``named`` are the classes
    that were described before, and then those that are.

    A literal is a string or a long, not an enum: readers keep working when it gets another value.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    found: Any
    if origin is Annotated:
        found = avro_schema(arguments[0], named)
    elif origin in {types.UnionType, typing.Union}:  # the records have only "or None"
        some = next(each for each in arguments if each is not type(None))
        found = ["null", avro_schema(some, named)]
    elif origin is tuple:
        found = {"type": "array", "items": avro_schema(arguments[0], named)}
    elif origin is dict:
        found = {"type": "map", "values": avro_schema(arguments[1], named)}
    elif isinstance(kind, type) and is_dataclass(kind):
        found = _avro_record(kind, named)
    else:
        found = _AVRO[type(arguments[0]) if origin is typing.Literal else kind]
    return found


def _avro_record(kind: type, named: set[str]) -> Any:
    name = f"filing_clerk.{kind.__name__}"
    if name in named:
        return name
    named.add(name)
    fields = []
    for field, hint in typing.get_type_hints(kind, include_extras=True).items():
        doc = next(mark.text for mark in hint.__metadata__ if isinstance(mark, Doc))
        schema = avro_schema(hint, named)
        default = {"default": None} if isinstance(schema, list) else {}
        fields.append({"name": field, "doc": doc, "type": schema, **default})
    doc = " ".join((kind.__doc__ or "").split())
    return {"type": "record", "name": name, "doc": doc, "fields": fields}


def avro_text(name: str) -> str:
    """Return the text of an Avro schema's file in the repository."""
    return json.dumps(avro_schema(SCHEMAS[name][0], set()), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write all schemas into a folder, or report which of its files are out of date."""
    folder = Path(arguments[-1])
    old = []
    files = {f"{name}.schema.json": schema_text(name) for name in SCHEMAS}
    files["output.avsc"] = avro_text("output")
    for name, text in files.items():
        path = folder / name
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            old.append(path)
    for path in old:
        print(f"{path} is out of date: run make schema")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
