"""What is done to a text before it is tokenized, and the digest that names it."""

import hashlib
import unicodedata

import pytest
from hypothesis import given

from tests.support.records import any_text
from worker.contract.text import message_sha256, normalize


@given(any_text)
def test_normalization_is_settled_and_clean(text: str) -> None:
    """Normal text is normal: training rows and serving requests cannot differ by a second pass."""
    once = normalize(text)
    assert normalize(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c != "\n" for c in once)
    assert "  " not in once
    assert "\n\n\n" not in once


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("cafe\u0301", "café"),
        ("a\x00b\x1bc\x7f", "abc"),
        ("a\ud800b\udfff", "ab"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("  a \t\u00a0 b  ", "a b"),
        ("\ufeffa\u200bb\u2060", "ab"),
        ("😀 日本語 العربية", "😀 日本語 العربية"),
        ("\x00\u200b\n ", ""),
    ],
)
def test_normalization_by_example(raw: str, clean: str) -> None:
    """What stays and what goes."""
    assert normalize(raw) == clean


@given(any_text)
def test_a_message_and_its_normal_form_have_one_digest(text: str) -> None:
    """A decision on a message as it came holds for the same message in a dataset."""
    assert message_sha256(text) == message_sha256(normalize(text))


def test_the_digest_is_that_of_the_normal_text() -> None:
    """Files that people filled in name messages by it: it does not move."""
    assert message_sha256("  cafe\u0301\r\n") == hashlib.sha256("café".encode()).hexdigest()
