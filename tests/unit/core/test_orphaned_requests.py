"""An engine that hangs with nothing but records of partitions that have gone since."""

from __future__ import annotations

import pytest

from tests.support.fakes import isolation
from tests.support.rig import Rig
from worker.core.suspects import OffsetNote
from worker.errors import EngineDied

DEADLINE_S = 60


def hung_with_orphans(*, suspects: bool) -> Rig:
    """A worker that lost partition 0 with its engine hung, and has partition 1 since."""
    rig = Rig(partitions=2, isolation=isolation(), deadline_s=DEADLINE_S)
    rig.stream.assign(0)
    rig.add("gone")
    rig.iterate(2)
    rig.engine.begin("gone")
    rig.stream.lose(0)
    if suspects:
        rig.stream.notes[rig.stream.sources[1]] = OffsetNote(owner="p0").encode(0)
    rig.add("suspect", partition=1)
    rig.stream.assign(1)
    return rig


def test_a_hang_is_noticed_while_suspects_wait_for_the_engine_to_be_empty() -> None:
    """They wait for what it will never answer: only asking it something tells that it hangs."""
    rig = hung_with_orphans(suspects=True)
    with pytest.raises(EngineDied, match="answered nothing"):
        rig.iterate(DEADLINE_S)
    assert rig.engine.pending.count("suspect") == 0
    assert rig.stream.committed.get(rig.stream.sources[1], 0) == 0


def test_an_engine_that_finishes_what_is_not_wanted_any_more_goes_on() -> None:
    rig = hung_with_orphans(suspects=True)
    rig.pass_time(DEADLINE_S // 2)
    assert rig.engine.pending == ["gone"]
    rig.answer("gone")
    rig.iterate(2)
    rig.answer("suspect")
    rig.iterate()
    assert rig.ids == ["in-1-0"]


def test_without_suspects_the_next_record_tells_it() -> None:
    rig = hung_with_orphans(suspects=False)
    with pytest.raises(EngineDied, match="answered nothing"):
        rig.iterate(DEADLINE_S)
