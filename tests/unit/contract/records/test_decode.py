"""Properties of every decoder in the registry, and of each format."""

import json
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.any_text import any_text
from worker.contract.errors import MessageRejected, RejectReason
from worker.contract.records import DECODERS, FormatName, InputFormat, SupportMessage, decode_value
from worker.contract.records.decode import extract_message
from worker.settings import RecordSettings

DOCS = Path(__file__).parents[4] / "docs" / "records.md"


def outcome(value: bytes | None, layout: InputFormat) -> SupportMessage | MessageRejected:
    try:
        return decode_value(value, layout)
    except MessageRejected as error:
        return error


def test_every_format_has_a_decoder_and_can_be_set() -> None:
    assert set(DECODERS) == set(typing.get_args(FormatName))
    assert {RecordSettings(format=name).format for name in DECODERS} == set(DECODERS)


@pytest.mark.parametrize("name", DECODERS)
def test_every_format_is_documented(name: FormatName) -> None:
    assert f'`"{name}"`' in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DECODERS)
def test_a_record_without_a_value_is_a_tombstone_in_every_format(name: FormatName) -> None:
    found = outcome(None, InputFormat(name))
    assert isinstance(found, MessageRejected)
    assert (found.reason, found.detail) == ("tombstone", "the record has no value")


@pytest.mark.parametrize("value", [b"", b" \n", b"\xff"])
@pytest.mark.parametrize("name", DECODERS)
def test_values_without_text_are_rejected_in_every_format(name: FormatName, value: bytes) -> None:
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
    found = outcome(value, layout)
    assert found.text.strip() if isinstance(found, SupportMessage) else found.reason


@given(json_values, st.sampled_from(LAYOUTS))
def test_arbitrary_json_gives_a_message_or_a_rejection(value: Any, layout: InputFormat) -> None:
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
    """Details go to logs and headers."""
    value = template.replace(b"%s", MARKER.encode() + noise)
    found = outcome(value, layout)
    if isinstance(found, MessageRejected):
        assert "4111" not in str(found)
        # Nor does a traceback, which would show the parser's error with it.
        assert found.__cause__ is None
        assert found.__suppress_context__ or found.__context__ is None


# Messages that are the whole value.


TEXT = InputFormat("text")


def test_plain_text_is_taken_whole() -> None:
    message = decode_value('{"message": "ü"}'.encode(), TEXT)
    assert (message.text, message.message_id) == ('{"message": "ü"}', None)


def test_a_byte_order_mark_is_no_part_of_the_message() -> None:
    assert decode_value(b"\xef\xbb\xbfhi", TEXT).text == "hi"


@pytest.mark.parametrize(
    ("value", "at"), [(b"hi\xff", 2), (b"\xef\xbb\xbfhi\xff", 5), (b"\xef\xbb", 0)]
)
def test_the_position_of_an_invalid_byte_is_reported(value: bytes, at: int) -> None:
    with pytest.raises(MessageRejected, match=f"at byte {at}$") as caught:
        decode_value(value, TEXT)
    assert caught.value.reason == "not_utf8"


# Messages in JSON: found by paths, or rejected with a reason that says where.


JSON_FIELDS = InputFormat(text_fields=("subject", "ticket.body", "parts.0.text"))


def read(value: bytes | None, layout: InputFormat | None = None) -> tuple[str, str | None]:
    message = decode_value(value, layout or InputFormat())
    return message.text, message.message_id


def rejected(value: bytes | None, layout: InputFormat | None = None) -> MessageRejected:
    with pytest.raises(MessageRejected) as caught:
        read(value, layout)
    return caught.value


def test_the_message_and_its_id_are_found() -> None:
    assert read(b'{"message": "hi", "id": "a-1"}') == ("hi", "a-1")
    assert read(b'{"message": "hi", "id": 7}') == ("hi", "7")


@pytest.mark.parametrize("identity", ["null", "true", "1.5", "[1]", "{}"])
def test_malformed_ids_are_left_out(identity: str) -> None:
    assert read(b'{"message": "hi", "id": %s}' % identity.encode()) == ("hi", None)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"subject": "s"}, "s"),
        ({"ticket": {"body": "b"}}, "b"),
        ({"parts": [{"text": "p"}, {"text": "q"}]}, "p"),
        ({"subject": "s", "ticket": {"body": "b"}, "parts": [{"text": "p"}]}, "s\nb\np"),
        ({"subject": None, "ticket": {"body": "b"}}, "b"),
        ({"subject": "s", "ticket": [], "parts": {}}, "s"),
        ({"subject": "s", "parts": []}, "s"),
        ({"subject": "a < b", "ticket": {"body": "<p>b<br>c</p>"}}, "a < b\nb\nc"),
        ({"subject": "<p>", "ticket": {"body": "<div>b</div>\nWhy?"}}, "<p>\n<div>b</div>\nWhy?"),
    ],
)
def test_texts_are_found_by_dotted_paths_and_joined(data: Any, text: str) -> None:
    assert read(json.dumps(data).encode(), JSON_FIELDS)[0] == text


def test_a_key_of_digits_is_a_key_in_an_object() -> None:
    assert extract_message({"0": {"1": "x"}}, InputFormat(text_fields=("0.1",))).text == "x"
    for path in ("-1", "1", "x", "²"):
        with pytest.raises(MessageRejected, match="field_missing"):
            extract_message(["a"], InputFormat(text_fields=(path,)))


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "tombstone", "the record has no value"),
        (b"", "not_json", "at character 0"),
        (b"\xff", "not_utf8", "at byte 0"),
        (b"{", "not_json", "at character 1"),
        (b"[" * 100_000, "not_json", "limits"),
        (b'{"message": %s}' % (b"9" * 5000), "not_json", "limits"),
        (b"{}", "field_missing", "no field 'message'"),
        (b'{"message": 5}', "field_not_text", "'message' is a int"),
        (b'{"message": ""}', "empty_message", "no text"),
        (b'{"message": " \\n\\t"}', "empty_message", "no text"),
    ],
)
def test_each_kind_of_unreadable_value_has_its_reason(
    value: bytes | None, reason: str, detail: str
) -> None:
    error = rejected(value)
    assert error.reason == reason
    assert detail in error.detail


def test_missing_fields_are_listed() -> None:
    assert "['subject', 'ticket.body', 'parts.0.text']" in rejected(b"{}", JSON_FIELDS).detail


@given(any_text)
def test_any_id_can_be_written_out_again(identity: str) -> None:
    """JSON can carry lone surrogates, which UTF-8 cannot."""
    found = read(json.dumps({"message": "hi", "id": identity}).encode())[1]
    assert found is not None
    found.encode("utf-8")
    if not any("\ud800" <= character <= "\udfff" for character in identity):
        assert found == identity


def test_halves_of_characters_in_an_id_are_marked() -> None:
    assert read(b'{"message": "hi", "id": "a\\ud800b"}')[1] == "a\ufffdb"
    assert read(b'{"message": "hi", "id": "\\ud83d\\ude00"}')[1] == "😀"
