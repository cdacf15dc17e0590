"""When fetching stops and when it goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.backpressure import Backpressure, Bounds


def test_fetching_pauses_once_at_the_high_mark_and_resumes_once_at_the_low_one() -> None:
    """Between the marks nothing changes: each pause throws a prefetch away."""
    pressure = Backpressure(Bounds(max_records=4, max_bytes=1000, resume_ratio=0.5))
    for _ in range(3):
        pressure.take(1)
        assert pressure.decide() is None
    pressure.take(1)
    assert (pressure.decide(), pressure.decide()) == ("pause", None)
    pressure.release(1, 1)
    assert pressure.decide() is None
    pressure.release(1, 1)
    assert (pressure.decide(), pressure.decide()) == ("resume", None)


def test_bytes_alone_can_pause() -> None:
    """A few large messages fill the memory bound long before the record bound."""
    pressure = Backpressure(Bounds(max_records=100, max_bytes=1000, resume_ratio=0.5))
    pressure.take(999)
    assert pressure.decide() is None
    pressure.take(1)
    assert pressure.decide() == "pause"
    pressure.release(1, 1)
    assert pressure.decide() is None
    pressure.release(1, 999)
    assert pressure.decide() == "resume"


@pytest.mark.parametrize("resume_ratio", [0.0, 0.5, 1.0])
@given(steps=st.lists(st.integers(-3, 3), max_size=50), max_records=st.integers(1, 5))
def test_no_mark_makes_fetching_hang_or_run_while_full(
    steps: list[int], max_records: int, resume_ratio: float
) -> None:
    """Whatever the marks: full means paused, and empty means fetching."""
    pressure = Backpressure(Bounds(max_records, 100, resume_ratio))
    for step in steps:
        for _ in range(max(0, step)):
            pressure.take(10)
        count = min(pressure.records, max(0, -step))
        pressure.release(count, 10 * count)
        pressure.decide()
        assert pressure.room == max(0, max_records - pressure.records)
        if pressure.records >= max_records:
            assert pressure.paused
        if pressure.records == 0:
            assert not pressure.paused
