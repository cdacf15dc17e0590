"""Messages in JSON values: found by dotted paths."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from worker.contract.errors import MessageRejected
from worker.contract.records.decode_text import not_empty, utf8
from worker.contract.records.message import InputFormat, SupportMessage

_JSON = json.JSONDecoder()


def decode_json(value: bytes, layout: InputFormat) -> SupportMessage:
    """Find the message in JSON. See ``Decoder``."""
    return extract_message(_parse(utf8(value)), layout)


def extract_message(data: Any, layout: InputFormat) -> SupportMessage:
    """Find the message in parsed JSON. Raises MessageRejected."""
    texts = [
        _text_at(path, value)
        for path in layout.text_fields
        if (value := look_up(data, path)) is not None
    ]
    if not texts:
        raise MessageRejected("field_missing", f"the value has no {_any_of(layout.text_fields)}")
    message_id = None
    if layout.id_field is not None:
        found = look_up(data, layout.id_field)
        if isinstance(found, str | int) and not isinstance(found, bool):
            message_id = _encodable(str(found))
    return SupportMessage(not_empty("\n".join(texts)), message_id)


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


def _parse(text: str) -> Any:
    try:
        return _JSON.decode(text)
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


def _encodable(text: str) -> str:
    """Put U+FFFD for lone surrogates, which JSON can carry and no output can."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _any_of(paths: Sequence[str]) -> str:
    if len(paths) == 1:
        return f"field {paths[0]!r}"
    return f"field of {list(paths)}"
