"""A partition that is delivered from before its committed offset: what was published stays so."""

from __future__ import annotations

import pytest

from tests.support.fakes import isolation
from tests.support.rig import Rig
from worker.errors import PublishAborted
from worker.records.types import CommittedOffset
from worker.stream.fake import FakeStream


def begun(stream: FakeStream, *, isolated: bool) -> Rig:
    """A worker on a partition with three records, the first two published before it came."""
    for text in ("old", "older", "new"):
        stream.add(text.encode())
    stream.committed[stream.sources[0]] = 2
    stream.forgets_committed = True
    rig = Rig(isolation=isolation() if isolated else None, shared=stream)
    stream.assign(0)
    return rig


@pytest.mark.parametrize("isolated", [False, True])
def test_what_was_published_before_is_left_out(isolated: bool) -> None:
    """The client began at the beginning: what lies before the committed offset gets no second
    result, counts as held no more, and the committed offset does not go back."""
    stream = FakeStream()
    rig = begun(stream, isolated=isolated)
    rig.iterate(2)
    assert rig.engine.pending == ["new"]
    assert rig.loop.state.in_flight_records == 1
    rig.answer("new")
    assert rig.events.kinds("published") == [("published", ["in-0-2"])]
    assert stream.committed[stream.sources[0]] == 3
    assert rig.events.kinds("rewound") == [("rewound", 0, 0, 2)]
    assert rig.loop.state.in_flight_records == 0


def test_a_long_log_is_not_read_again_up_to_the_committed_offset() -> None:
    """The worker seeks it: a million records would be read, and held as waiting, for nothing."""
    stream = FakeStream()
    for number in range(100_000):
        stream.add(str(number).encode())
    stream.committed[stream.sources[0]] = 99_999
    stream.forgets_committed = True
    rig = Rig(shared=stream)
    stream.assign(0)
    rig.iterate(3)
    assert rig.engine.pending == ["99999"]


@pytest.mark.parametrize("isolated", [False, True])
def test_also_what_comes_after_the_partition_was_opened(isolated: bool) -> None:
    """The client delivers a few at a time."""
    stream = FakeStream()
    rig = begun(stream, isolated=isolated)
    stream.log[stream.sources[0]], rest = [], stream.log[stream.sources[0]]
    stream.log[stream.sources[0]].append(rest[0])
    ends = lambda partitions: [CommittedOffset(each, 2, "", 3) for each in partitions]  # noqa: E731
    stream.read_committed = ends  # type: ignore[method-assign]
    rig.iterate(2)
    stream.log[stream.sources[0]].extend(rest[1:])
    rig.iterate()
    assert rig.engine.pending == ["new"]


@pytest.mark.parametrize("isolated", [False, True])
def test_a_log_that_was_cut_has_new_records(isolated: bool) -> None:
    """A committed offset beyond the end says nothing of what is there now."""
    stream = FakeStream()
    for text in ("a", "b"):
        stream.add(text.encode())
    stream.forgets_committed = True
    known = lambda partitions: [CommittedOffset(each, 9, "", 2) for each in partitions]  # noqa: E731
    stream.read_committed = known  # type: ignore[method-assign]
    rig = Rig(isolation=isolation() if isolated else None, shared=stream)
    stream.assign(0)
    rig.iterate(2)
    assert sorted(rig.engine.pending) == ["a", "b"]


def test_until_it_is_known_nothing_goes_to_the_engine() -> None:
    """Without crash isolation too: a partition whose committed offset is not told yet waits."""
    stream = FakeStream()
    rig = begun(stream, isolated=False)
    real, refusals = stream.read_committed, [PublishAborted("not yet", unreachable=True)]

    def read(partitions: object) -> object:
        if refusals:
            raise refusals.pop()
        return real(partitions)  # type: ignore[arg-type]

    stream.read_committed = read  # type: ignore[method-assign, assignment]
    rig.iterate()
    assert rig.engine.pending == []
    rig.iterate(2)
    assert rig.engine.pending == ["new"]
