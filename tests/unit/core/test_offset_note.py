"""What is written beside a committed offset says what it should, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.offset_note import OffsetNote, read_note, to_ranges, without

offsets = st.sets(st.integers(100, 1_000), max_size=40)


@given(offsets, offsets, st.integers(0, 9), st.integers(0, 3), st.booleans())
def test_a_note_is_read_as_it_was_written(
    group: set[int], suspects: set[int], deaths: int, unproven: int, alone: bool
) -> None:
    """Whichever offset it was written beside."""
    note = OffsetNote(
        "p1", to_ranges(group), alone, deaths, 1, to_ranges(suspects), ((107, 4),), unproven
    )
    assert read_note(note.encode(100), 100) == note
    moved = read_note(note.encode(100), 5100)
    assert moved.condemned == ((5107, 4),)


def test_nothing_to_say_is_nothing_written() -> None:
    """So is what brokers and other tools leave."""
    assert OffsetNote().encode(7) == ""
    assert read_note("", 7) == OffsetNote()


@given(st.sets(st.integers(0, 5_000), min_size=1, max_size=600))
def test_a_note_stays_small(suspects: set[int]) -> None:
    """However scattered they are: some are suspected that need not be, none is left out."""
    ranges = to_ranges(suspects)
    text = OffsetNote("12345678", ranges, False, 3, 0, ranges).encode(0)
    assert len(text) < 1500
    read = read_note(text, 0).suspects
    assert all(any(offset in each for each in read) for offset in suspects)


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
        '{"v":1,"deaths":true}',
        '{"v":1,"deaths":1e9}',
        '{"v":1,"condemned":[1,2,3]}',
        '{"v":1,"group":null}',
        "[" * 100_000,
    ],
)
def test_what_is_not_ours_says_nothing(text: str) -> None:
    """Another program's, another version's, or broken: never an error."""
    assert read_note(text, 0) == OffsetNote()


@given(offsets, offsets, st.integers(100, 1_000))
def test_ranges_without_some(all_of: set[int], some: set[int], before: int) -> None:
    """As sets have it."""
    left = without(to_ranges(all_of), before, some)
    assert {at for each in left for at in each} == {at for at in all_of - some if at >= before}
