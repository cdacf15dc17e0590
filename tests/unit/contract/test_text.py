"""Normalization before tokenizing, and the digest of a message."""

import hashlib
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.any_text import any_text
from worker.contract.text import MAX_CHARS, bound_marks, is_mark, message_sha256, normalize

pytestmark = pytest.mark.slow

MARKS = st.sampled_from(["\u0301", "\u0323", "\u0344", "\u0f73", "\u0345", "\u3099", "\u200b"])
LETTERS = st.sampled_from(["a", "\ufb2c", "\u1e69", "\U0001d160", " ", "\u00a0", "\n", "\u0915"])
lengthened = st.tuples(LETTERS, st.lists(MARKS, max_size=90).map("".join)).map("".join)
hostile_text = st.lists(any_text | lengthened, max_size=4).map("".join)


@given(hostile_text)
def test_normalization_is_settled_and_clean(text: str) -> None:
    """Normalizing twice changes nothing, so training rows and serving requests agree."""
    once = normalize(text)
    assert normalize(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c != "\n" for c in once)
    assert "  " not in once
    assert "\n\n\n" not in once


@settings(max_examples=20)
@given(hostile_text, st.integers(0, 70))
def test_normalization_of_long_text_is_settled_and_bounded(text: str, over: int) -> None:
    raw = text + "\ufb2c" * (MAX_CHARS - over - len(text)) + text
    once = normalize(raw)
    assert len(once) <= MAX_CHARS
    assert unicodedata.is_normalized("NFC", once)
    assert normalize(once) == once


def test_long_text_keeps_its_ends() -> None:
    found = normalize("first " + "x" * 200_000 + " last")
    assert found.startswith("first xx")
    assert found.endswith("xx last")
    assert len(found) == MAX_CHARS


@pytest.mark.long  # all of Unicode
def test_every_mark_of_unicode_is_known() -> None:
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        character = chr(code)
        is_bounded = bound_marks(f"a{character * 31}x") == f"a{character * 30}x"
        assert is_bounded == (code > 127 and is_mark(character)), hex(code)


@given(hostile_text)
def test_marks_are_bounded_and_nothing_else_is_lost(text: str) -> None:
    wanted, run = [], 0
    for character in text:
        run = run + 1 if is_mark(character) else 0
        if run <= 30:
            wanted.append(character)
    assert bound_marks(text) == "".join(wanted)


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
    assert normalize(raw) == clean


@given(any_text)
def test_a_message_and_its_normal_form_have_one_digest(text: str) -> None:
    assert message_sha256(text) == message_sha256(normalize(text))


def test_the_digest_is_that_of_the_normal_text() -> None:
    """Decision files identify messages by this digest, so it must not change."""
    assert message_sha256("  cafe\u0301\r\n") == hashlib.sha256("café".encode()).hexdigest()
