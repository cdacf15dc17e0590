"""The note with a committed offset: read as it was written, small, and never an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.suspects import OffsetNote, Suspects, read_note

offsets = st.integers(100, 10_000)
deaths = st.dictionaries(offsets, st.integers(1, 9), max_size=40)


@given(offsets, st.integers(1, 512), deaths, st.sampled_from([None, "p1"]))
def test_a_note_is_read_as_it_was_written(
    first: int, length: int, proven: dict[int, int], owner: str | None
) -> None:
    """Whichever offset it was committed with."""
    note = OffsetNote(owner, range(first, first + length), proven)
    assert read_note(note.encode(100), 100) == note


def test_an_empty_note_is_written_as_nothing() -> None:
    """As brokers and other tools leave it."""
    assert OffsetNote().encode(7) == ""
    assert read_note("", 7) == OffsetNote()


@given(st.dictionaries(offsets, st.integers(1, 9), max_size=2_000))
def test_a_note_stays_small(proven: dict[int, int]) -> None:
    """However many records have crashed the engine: Kafka takes 4,096 bytes."""
    assert len(OffsetNote("12345678", range(100, 612), proven).encode(0)) < 1500


@pytest.mark.parametrize(
    "text",
    [
        "anything",
        "[]",
        "7",
        '{"v":2,"by":"p"}',
        '{"v":1,"suspects":7}',
        '{"v":1,"suspects":[1]}',
        '{"v":1,"suspects":[-1,2]}',
        '{"v":1,"suspects":["a","b"]}',
        '{"v":1,"suspects":[true,1]}',
        '{"v":1,"deaths":true}',
        '{"v":1,"deaths":[1,2,3]}',
        "[" * 100_000,
    ],
)
def test_a_note_that_is_not_ours_is_ignored(text: str) -> None:
    """Another program's, another version's, or broken."""
    assert read_note(text, 0) == OffsetNote()


def test_what_is_committed_or_cleared_is_no_longer_suspect() -> None:
    """The note names what is left."""
    note = OffsetNote("p0", deaths={3: 1})
    suspects = Suspects.take_over(note, 0, range(6), "p1")
    assert [offset for offset in range(8) if offset in suspects] == [0, 1, 2, 3, 4, 5]
    for offset in (0, 1, 3, 4):
        suspects.clear(offset)
    assert [offset for offset in range(8) if offset in suspects] == [2, 5]
    assert read_note(suspects.note(1), 1) == OffsetNote("p1", range(2, 6))
    suspects.commit(6)
    assert len(suspects) == 0
    assert read_note(suspects.note(6, closing=True), 6) == OffsetNote()
