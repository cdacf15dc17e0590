"""A set of offsets: what a set of numbers does, in an eighth of a byte each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.offline.offset_set import OffsetSet

# Near each other and in stretches far apart.
offsets = st.integers(0, 300) | st.integers(65_500, 65_600) | st.integers(0, 2**40)


def of(numbers: list[int]) -> OffsetSet:
    found = OffsetSet()
    for number in numbers:
        found.add(number)
    return found


@given(st.lists(offsets), st.lists(offsets), offsets)
def test_it_does_what_a_set_does(first: list[int], second: list[int], below: int) -> None:
    bitmap = of(first)
    assert list(bitmap) == sorted(set(first))
    assert len(bitmap) == len(set(first))
    assert [number in bitmap for number in second] == [number in first for number in second]
    assert list(bitmap.without(of(second))) == sorted(set(first) - set(second))
    bitmap.update(of(second))
    assert list(bitmap) == sorted({*first, *second})
    for number in second:
        bitmap.discard(number)
    bitmap.discard(below)
    left = {*first} - {*second, below}
    assert list(bitmap) == sorted(left)
    bitmap.discard_before(below)
    assert list(bitmap) == sorted(number for number in left if number >= below)
