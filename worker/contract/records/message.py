"""The message of an input record, and how a deployment says where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FormatName = Literal["json", "text"]
"""The input formats; ``decode.DECODERS`` has a decoder for each."""


@dataclass(frozen=True, slots=True)
class InputFormat:
    """How to read a record's value.

    ``text_fields`` and ``id_field`` are dotted paths into a structured value (``ticket.body``,
    ``parts.0.text``); the texts found are joined by a line end. With ``text`` the whole value is
    the message and the paths do not matter.
    """

    format: FormatName = "json"
    text_fields: tuple[str, ...] = ("message",)
    id_field: str | None = "id"


@dataclass(frozen=True, slots=True)
class SupportMessage:
    """What was found in a record: the text to label and the sender's own id for it."""

    text: str
    message_id: str | None
