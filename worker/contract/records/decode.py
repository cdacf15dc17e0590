"""From a record's bytes to the text to label: one decoder for each input format.

To add a format: a name in ``message.FormatName``, a decoder in a module of its own, a line in
``DECODERS``, and a paragraph in docs/records.md. The settings, the chart's schema and the tests
of every decoder follow from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from worker.contract.errors import MessageRejected
from worker.contract.records.decode_json import decode_json
from worker.contract.records.decode_text import decode_text
from worker.contract.records.message import FormatName, InputFormat, SupportMessage


class Decoder(Protocol):
    """Reads the values of one input format."""

    def __call__(self, value: bytes, layout: InputFormat) -> SupportMessage:
        """Find the message in a record's value.

        Any bytes give a message that is not blank, or raise MessageRejected, with a detail that
        repeats nothing of the value. No other error leaves it: a producer must not be able to
        stop a worker.
        """


DECODERS: Mapping[FormatName, Decoder] = {"json": decode_json, "text": decode_text}


def decode_value(value: bytes | None, layout: InputFormat) -> SupportMessage:
    """Find the message in a record's value, by its format. Raises MessageRejected."""
    if value is None:
        raise MessageRejected("tombstone", "the record has no value")
    return DECODERS[layout.format](value, layout)
