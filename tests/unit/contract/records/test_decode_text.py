"""Messages that are the whole value."""

import pytest

from worker.contract.errors import MessageRejected
from worker.contract.records import InputFormat, decode_value

TEXT = InputFormat("text")


def test_plain_text_is_taken_whole() -> None:
    """With ``text`` nobody looks for fields."""
    message = decode_value('{"message": "ü"}'.encode(), TEXT)
    assert (message.text, message.message_id) == ('{"message": "ü"}', None)


def test_a_byte_order_mark_is_no_part_of_the_message() -> None:
    """Some producers write one."""
    assert decode_value(b"\xef\xbb\xbfhi", TEXT).text == "hi"


@pytest.mark.parametrize(
    ("value", "at"), [(b"hi\xff", 2), (b"\xef\xbb\xbfhi\xff", 5), (b"\xef\xbb", 0)]
)
def test_the_place_of_a_byte_that_is_no_utf8_is_told(value: bytes, at: int) -> None:
    """Counted in the value as it came, a byte order mark included."""
    with pytest.raises(MessageRejected, match=f"at byte {at}$") as caught:
        decode_value(value, TEXT)
    assert caught.value.reason == "not_utf8"


@pytest.mark.parametrize("value", [b"", b" \n"])
def test_empty_plain_text_is_rejected(value: bytes) -> None:
    """Nothing to label."""
    with pytest.raises(MessageRejected) as caught:
        decode_value(value, TEXT)
    assert caught.value.reason == "empty_message"
