"""Find the text to label in a record's bytes: one decoder for each input format.

To add a format, write a decoder and add it to ``FormatName``, ``DECODERS`` and docs/records.md. The
settings, the chart's schema and the tests of every decoder follow from these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from worker.contract.errors import MessageRejected
from worker.contract.html_text import html_to_text

FormatName = Literal["json", "text"]


@dataclass(frozen=True, slots=True)
class InputFormat:
    """How to read a record's value.

    ``text_fields`` and ``id_field`` are dotted paths into a JSON value (``ticket.body``,
    ``parts.0.text``); the texts found are joined by a line end. With the format ``text`` the whole
    value is the message and the paths are ignored. Of several fields, those that are HTML are
    reduced to their text before they are joined.
    """

    format: FormatName = "json"
    text_fields: tuple[str, ...] = ("message",)
    id_field: str | None = "id"


@dataclass(slots=True)
class SupportMessage:
    """The text to label, and the sender's id for it."""

    text: str
    message_id: str | None


def decode_text(value: bytes, layout: InputFormat) -> SupportMessage:  # noqa: ARG001 - see Decoder
    """Use the whole value as the message. See ``Decoder``."""
    return SupportMessage(not_empty(utf8(value)), None)


def utf8(value: bytes) -> str:
    """Return the text of a value, without a byte order mark. Raises MessageRejected."""
    try:
        # Not the codec utf-8-sig: it is written in Python, and this runs for every record.
        return value.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise MessageRejected(
            "not_utf8", f"the value is not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def not_empty(text: str) -> str:
    """Return ``text``. Raises MessageRejected if it is blank."""
    if not text.strip():
        raise MessageRejected("empty_message", "the message has no text")
    return text


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
        # Any other id is dropped rather than rejected: a bad id must not cost a message its label.
        if isinstance(found, str | int) and not isinstance(found, bool):
            message_id = _encodable(str(found))
    return SupportMessage(not_empty(join_fields(texts)), message_id)


def join_fields(texts: Sequence[str]) -> str:
    """Return the texts of a message's fields as one."""
    # HTML is told by how a body begins: behind a subject it would not be recognized.
    parts = texts if len(texts) == 1 else map(html_to_text, texts)
    return "\n".join(parts)


def look_up(data: Any, path: str) -> Any:
    """Return the value at a dotted path of parsed JSON; None if absent or null."""
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
    except (RecursionError, ValueError):  # nested too deeply, or a number of 5,000 digits
        raise MessageRejected("not_json", "the value is JSON beyond this parser's limits") from None


def _text_at(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise MessageRejected(
            "field_not_text", f"the field {path!r} is a {type(value).__name__}, not text"
        )
    return value


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can carry and UTF-8 cannot, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _any_of(paths: Sequence[str]) -> str:
    if len(paths) == 1:
        return f"field {paths[0]!r}"
    return f"field of {list(paths)}"


Decoder = Callable[[bytes, InputFormat], SupportMessage]
"""Finds the message in a value of one input format.

Returns a message that is not blank or raises MessageRejected, whatever the bytes: a producer must
not be able to stop a worker. The error's detail quotes nothing of the value.
"""

DECODERS: Mapping[FormatName, Decoder] = {"json": decode_json, "text": decode_text}


def decode_value(value: bytes | None, layout: InputFormat) -> SupportMessage:
    """Find the message in a record's value. Raises MessageRejected."""
    if value is None:
        raise MessageRejected("tombstone", "the record has no value")
    return DECODERS[layout.format](value, layout)
