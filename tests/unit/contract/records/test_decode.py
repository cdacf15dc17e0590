"""What holds for every decoder: each input format is enumerated from the registry."""

import json
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.errors import MessageRejected, RejectReason
from worker.contract.records import (
    DECODERS,
    FormatName,
    InputFormat,
    SupportMessage,
    decode_value,
)
from worker.settings import RecordSettings

DOCS = Path(__file__).parents[4] / "docs" / "records.md"


def outcome(value: bytes | None, layout: InputFormat) -> SupportMessage | MessageRejected:
    try:
        return decode_value(value, layout)
    except MessageRejected as error:
        return error


def test_every_format_has_a_decoder_and_can_be_set() -> None:
    """A name without a decoder, or a decoder that no setting reaches, is a mistake."""
    assert set(DECODERS) == set(typing.get_args(FormatName))
    assert {RecordSettings(format=name).format for name in DECODERS} == set(DECODERS)


@pytest.mark.parametrize("name", DECODERS)
def test_every_format_is_documented(name: FormatName) -> None:
    """Where people look for it."""
    assert f'`"{name}"`' in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DECODERS)
def test_a_record_without_a_value_is_a_tombstone_in_every_format(name: FormatName) -> None:
    """Compacted topics hold them."""
    found = outcome(None, InputFormat(name))
    assert isinstance(found, MessageRejected)
    assert (found.reason, found.detail) == ("tombstone", "the record has no value")


@pytest.mark.parametrize("value", [b"", b" \n", b"\xff"])
@pytest.mark.parametrize("name", DECODERS)
def test_what_holds_no_text_is_rejected_in_every_format(name: FormatName, value: bytes) -> None:
    """With one of the known reasons."""
    found = outcome(value, InputFormat(name))
    assert isinstance(found, MessageRejected)
    assert found.reason in typing.get_args(RejectReason)


FIELDS = ("subject", "ticket.body", "parts.0.text")
LAYOUTS = [
    InputFormat(name, text_fields)
    for name in DECODERS
    for text_fields in (("message",), FIELDS, ("message.0",))
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["message", "subject", "id", "ticket", "body"]), inner)
    ),
    max_leaves=8,
)


@given(st.none() | st.binary() | st.text().map(str.encode), st.sampled_from(LAYOUTS))
def test_arbitrary_bytes_give_a_message_or_a_rejection(
    value: bytes | None, layout: InputFormat
) -> None:
    """No producer can crash the worker."""
    found = outcome(value, layout)
    assert found.text.strip() if isinstance(found, SupportMessage) else found.reason


@given(json_values, st.sampled_from(LAYOUTS))
def test_arbitrary_json_gives_a_message_or_a_rejection(value: Any, layout: InputFormat) -> None:
    """Of whatever shape."""
    found = outcome(json.dumps(value).encode(), layout)
    assert found.text.strip() if isinstance(found, SupportMessage) else found.reason


MARKER = "4111-1111-QQ"


@given(
    st.sampled_from(
        [
            b'{"message": "%s',
            b'{"message": %s}',
            b'%s{"message": "x"}',
            b'{"message": {"%s": 1}}',
            b'{"message": ["%s"]}',
            b'{"%s": "x"}',
            b'["%s"]',
            b'"%s"',
            b'{"message": "\\%s"}',
            b'{"message": "\x01%s"}',
            b"\xff%s",
            b'{"message": "", "x": "%s"}',
        ]
    ),
    st.binary(max_size=5),
    st.sampled_from(LAYOUTS),
)
def test_a_rejection_never_repeats_the_message(
    template: bytes, noise: bytes, layout: InputFormat
) -> None:
    """Details go to logs and headers, where a customer's words have no business."""
    value = template.replace(b"%s", MARKER.encode() + noise)
    found = outcome(value, layout)
    if isinstance(found, MessageRejected):
        assert "4111" not in str(found)
        # Nor does a traceback, which would show the parser's error with it.
        assert found.__cause__ is None
        assert found.__suppress_context__ or found.__context__ is None
