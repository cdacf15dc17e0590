"""From a record's bytes to the text to label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from worker.errors import MessageRejected
from worker.records.types import Record, SupportMessage


@dataclass(frozen=True, slots=True)
class InputFormat:
    """How to read a record's value.

    ``text_fields`` and ``id_field`` are dotted paths into the JSON value (``ticket.body``,
    ``parts.0.text``); the texts found are joined by a line end. With ``text`` the whole value is
    the message and the fields are not looked at.
    """

    format: Literal["json", "text"] = "json"
    text_fields: tuple[str, ...] = ("message",)
    id_field: str | None = "id"


def decode_record(record: Record, layout: InputFormat) -> SupportMessage:
    """Find the message in a record. Raises MessageRejected, with no message text in it."""
    if record.value is None:
        raise MessageRejected("tombstone", "the record has no value")
    try:
        text = record.value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MessageRejected(
            "not_utf8", f"the value is not UTF-8: {error.reason} at byte {error.start}"
        ) from None
    if layout.format == "text":
        return SupportMessage(_not_empty(text), None)
    data = _parse_json(text)
    return extract_message(data, layout)


def extract_message(data: Any, layout: InputFormat) -> SupportMessage:
    """Find the message in parsed JSON. Raises MessageRejected."""
    texts = [
        _text_at(path, value)
        for path in layout.text_fields
        if (value := look_up(data, path)) is not None
    ]
    if not texts:
        raise MessageRejected("field_missing", f"the value has no {_one_of(layout.text_fields)}")
    identity = None
    if layout.id_field is not None:
        found = look_up(data, layout.id_field)
        if isinstance(found, str | int) and not isinstance(found, bool):
            identity = _encodable(str(found))
    return SupportMessage(_not_empty("\n".join(texts)), identity)


def look_up(data: Any, path: str) -> Any:
    """Return what is at a dotted path of parsed JSON; None where nothing is, or null."""
    value = data
    for step in path.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise MessageRejected(
            "not_json", f"the value is not JSON: {error.msg} at character {error.pos}"
        ) from None
    except (RecursionError, ValueError):
        raise MessageRejected("not_json", "the value is JSON beyond this parser's limits") from None


def _text_at(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise MessageRejected(
            "field_not_text", f"the field {path!r} is a {type(value).__name__}, not text"
        )
    return value


def _not_empty(text: str) -> str:
    if not text.strip():
        raise MessageRejected("empty_message", "the message has no text")
    return text


def _encodable(text: str) -> str:
    """Put U+FFFD for lone surrogates, which JSON can carry and no output can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _one_of(paths: Sequence[str]) -> str:
    if len(paths) == 1:
        return f"field {paths[0]!r}"
    return f"field of {list(paths)}"
