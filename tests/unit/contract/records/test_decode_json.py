"""Messages in JSON: found by paths, or rejected with a reason that says where."""

import json
from typing import Any

import pytest
from hypothesis import given

from tests.support.records import any_text
from worker.contract.errors import MessageRejected
from worker.contract.records import InputFormat, decode_value
from worker.contract.records.decode_json import extract_message

FIELDS = InputFormat(text_fields=("subject", "ticket.body", "parts.0.text"))


def read(value: bytes | None, layout: InputFormat | None = None) -> tuple[str, str | None]:
    message = decode_value(value, layout or InputFormat())
    return message.text, message.message_id


def rejected(value: bytes | None, layout: InputFormat | None = None) -> MessageRejected:
    with pytest.raises(MessageRejected) as caught:
        read(value, layout)
    return caught.value


def test_the_message_and_its_id_are_found() -> None:
    """The default layout: ``message`` and ``id`` at the top."""
    assert read(b'{"message": "hi", "id": "a-1"}') == ("hi", "a-1")
    assert read(b'{"message": "hi", "id": 7}') == ("hi", "7")


@pytest.mark.parametrize("identity", ["null", "true", "1.5", "[1]", "{}"])
def test_an_id_that_is_no_id_is_left_out(identity: str) -> None:
    """It costs nobody a label: the record's own id is always there."""
    assert read(b'{"message": "hi", "id": %s}' % identity.encode()) == ("hi", None)


def test_the_id_may_be_nested_or_not_wanted() -> None:
    """Where the sender keeps it is a setting."""
    value = b'{"message": "hi", "id": 1, "meta": {"ids": ["x"]}}'
    assert read(value, InputFormat(id_field="meta.ids.0")) == ("hi", "x")
    assert read(value, InputFormat(id_field=None)) == ("hi", None)


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
    ],
)
def test_texts_are_found_by_dotted_paths_and_joined(data: Any, text: str) -> None:
    """Objects by key, lists by number; what is absent or null is passed over."""
    assert read(json.dumps(data).encode(), FIELDS)[0] == text


def test_a_key_of_digits_is_a_key_in_an_object() -> None:
    """The data decide whether a step is a number."""
    assert extract_message({"0": {"1": "x"}}, InputFormat(text_fields=("0.1",))).text == "x"
    for path in ("-1", "1", "x", "²"):
        with pytest.raises(MessageRejected, match="field_missing"):
            extract_message(["a"], InputFormat(text_fields=(path,)))


def test_a_byte_order_mark_is_no_part_of_the_message() -> None:
    """Some producers write one."""
    assert read(b'\xef\xbb\xbf{"message": "hi"}')[0] == "hi"


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "tombstone", "the record has no value"),
        (b"", "not_json", "at character 0"),
        (b"\xff", "not_utf8", "at byte 0"),
        (b"{", "not_json", "at character 1"),
        (b'{"message": "a" "b"}', "not_json", "at character 16"),
        (b"[" * 100_000, "not_json", "limits"),
        (b'{"message": %s}' % (b"9" * 5000), "not_json", "limits"),
        (b"{}", "field_missing", "no field 'message'"),
        (b"[]", "field_missing", "no field 'message'"),
        (b"null", "field_missing", "no field 'message'"),
        (b'"hi"', "field_missing", "no field 'message'"),
        (b'{"message": null}', "field_missing", "no field 'message'"),
        (b'{"message": 5}', "field_not_text", "'message' is a int"),
        (b'{"message": ["a"]}', "field_not_text", "'message' is a list"),
        (b'{"message": ""}', "empty_message", "no text"),
        (b'{"message": " \\n\\t"}', "empty_message", "no text"),
    ],
)
def test_each_kind_of_unreadable_value_has_its_reason(
    value: bytes | None, reason: str, detail: str
) -> None:
    """Reasons are few, fixed and countable; the detail says where."""
    error = rejected(value)
    assert error.reason == reason
    assert detail in error.detail


def test_missing_fields_are_listed() -> None:
    """Whoever set the paths reads which were looked for."""
    assert "['subject', 'ticket.body', 'parts.0.text']" in rejected(b"{}", FIELDS).detail


@given(any_text)
def test_any_id_can_be_written_out_again(identity: str) -> None:
    """JSON can carry halves of characters that no encoder writes: an id of them is kept as far
    as it can be."""
    found = read(json.dumps({"message": "hi", "id": identity}).encode())[1]
    assert found is not None
    found.encode("utf-8")
    if not any("\ud800" <= character <= "\udfff" for character in identity):
        assert found == identity


def test_halves_of_characters_in_an_id_are_marked() -> None:
    """The rest of the id stays readable, and whole pairs become the character they spell."""
    assert read(b'{"message": "hi", "id": "a\\ud800b"}')[1] == "a\ufffdb"
    assert read(b'{"message": "hi", "id": "\\ud83d\\ude00"}')[1] == "😀"
