"""What may be published of a partition: only what has nothing unfinished before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.watermark import Watermark

offsets = st.lists(st.integers(0, 1000), unique=True, max_size=30).map(sorted)


def filled(*numbers: int) -> Watermark[str]:
    mark: Watermark[str] = Watermark()
    for number in numbers:
        mark.add(number)
    return mark


@given(st.data(), offsets)
def test_any_order_of_finishing_gives_the_finished_prefix_in_order(
    data: st.DataObject, added: list[int]
) -> None:
    """However answers come in, what may be published is the unbroken run from the oldest on."""
    mark = filled(*added)
    finished: set[int] = set()
    confirmed = 0
    for offset in data.draw(st.permutations(added)):
        mark.finish(offset, f"r{offset}")
        finished.add(offset)
        left = added[confirmed:]
        unbroken = next((i for i, offset in enumerate(left) if offset not in finished), len(left))
        assert mark.ready == unbroken
        assert mark.peek(1000) == [(offset, f"r{offset}") for offset in left[:unbroken]]
        bound = data.draw(st.integers(0, 1001))
        assert mark.ready_below(bound) == sum(offset < bound for offset in left[:unbroken])
        count = data.draw(st.integers(0, unbroken))
        mark.confirm(count)
        confirmed += count
        assert len(mark) == len(added) - confirmed
    assert mark.ready == len(mark)


@given(st.data(), offsets)
def test_records_may_come_while_others_finish(data: st.DataObject, added: list[int]) -> None:
    """A record that is fetched later never unlocks one before it, nor hides it."""
    mark: Watermark[int] = Watermark()
    open_now: list[int] = []
    published: list[int] = []
    coming = list(added)
    while coming or open_now:
        if coming and (not open_now or data.draw(st.booleans())):
            mark.add(coming[0])
            open_now.append(coming.pop(0))
        else:
            offset = open_now.pop(data.draw(st.integers(0, len(open_now) - 1)))
            mark.finish(offset, offset)
        got = mark.peek(3)
        assert all(offset not in open_now for offset, _ in got)
        mark.confirm(len(got))
        published += [result for _, result in got]
    mark_rest = mark.peek(1000)
    assert published + [offset for _, offset in mark_rest] == added


def test_an_offset_that_was_read_before_is_refused() -> None:
    """A log that goes backwards is told, not published twice; also after all is confirmed."""
    mark = filled(5)
    mark.finish(5, "a")
    mark.confirm(1)
    for offset in (5, 4):
        with pytest.raises(ValueError, match=f"offset {offset} after 5"):
            mark.add(offset)


def test_finishing_twice_or_the_unknown_is_an_error() -> None:
    """A record has one result; a second one is a mistake of the caller's."""
    mark = filled(1)
    mark.finish(1, "a")
    for offset in (1, 2):
        with pytest.raises(KeyError):
            mark.finish(offset, "b")


def test_a_finished_result_can_be_replaced_and_keeps_its_place() -> None:
    """An output that is too large becomes a dead letter without losing its turn."""
    mark = filled(1, 2)
    mark.finish(1, "large")
    mark.replace(1, "small")
    assert mark.peek(2) == [(1, "small")]
    with pytest.raises(KeyError):
        mark.replace(2, "not finished")


def test_more_than_is_finished_cannot_be_confirmed() -> None:
    """A count that would skip an unfinished record is refused, and nothing is forgotten."""
    mark = filled(1, 2)
    mark.finish(1, "a")
    with pytest.raises(ValueError, match="2 records confirmed and 1 are finished"):
        mark.confirm(2)
    assert mark.peek(2) == [(1, "a")]
