"""Messages that are the whole value, and what every textual format shares."""

from __future__ import annotations

from worker.contract.errors import MessageRejected
from worker.contract.records.message import InputFormat, SupportMessage


def decode_text(value: bytes, layout: InputFormat) -> SupportMessage:  # noqa: ARG001 - see Decoder
    """Take the whole value as the message. See ``Decoder``."""
    return SupportMessage(not_empty(utf8(value)), None)


def utf8(value: bytes) -> str:
    """Return the text of a value, without a byte order mark. Raises MessageRejected."""
    try:
        return value.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise MessageRejected(
            "not_utf8", f"the value is not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def not_empty(text: str) -> str:
    """Return a message's text. Raises MessageRejected where nothing but blanks is in it."""
    if not text.strip():
        raise MessageRejected("empty_message", "the message has no text")
    return text
