"""An adapter whose engine has no room next to the one that serves: refused, or by a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.follower import AdapterStore, Follower
from tests.support.toy_adapter import ONE, THREE, TWO
from worker.engine.memory import TooLarge, check_room
from worker.engine.port import Declined
from worker.errors import RestartNeeded
from worker.lifecycle.arm_controller import Restart

NEED, FREE = 19 << 30, 4 << 30


def too_large(folder: Path) -> TooLarge:
    with pytest.raises(TooLarge) as caught:
        check_room(folder, NEED, FREE)
    return caught.value


class Drained:
    """A restart that notes how often the worker was told to drain."""

    def __init__(self, *, enabled: bool) -> None:
        self.times = 0
        self.restart = Restart(enabled=enabled)
        self.restart.when_wanted(self._drain)

    def _drain(self) -> None:
        self.times += 1


def test_it_is_refused_with_both_numbers_and_tried_again_when_there_may_be_room(
    tmp_path: Path,
) -> None:
    """The adapter in service serves on, and takes its place when the memory is there."""
    now = [0.0]
    drained = Drained(enabled=False)
    follower = Follower(AdapterStore(tmp_path), ONE, restart=drained.restart, clock=lambda: now[0])
    follower.rig.stream.assign(0)
    follower.loader.failures = [too_large(tmp_path)]
    follower.store.publish(TWO)
    follower.follow()
    refused = follower.events.refused["main"]
    assert (refused.digest, refused.reason) == (TWO.digest, "memory")
    assert "takes about 19.0 GiB of memory, and 4.0 GiB are free" in refused.problem
    assert "(tried again in 60 s)" in refused.problem
    assert (follower.main.digest, drained.times) == (ONE.digest, 0)
    drained.restart.check()
    now[0] = 61.0
    follower.follow()
    assert follower.main.digest == TWO.digest
    assert "main" not in follower.events.refused


def test_where_it_is_wanted_the_worker_drains_and_ends_with_a_code_of_its_own(
    tmp_path: Path,
) -> None:
    """The pointer names the new adapter, which the next start begins with."""
    drained = Drained(enabled=True)
    follower = Follower(AdapterStore(tmp_path), ONE, restart=drained.restart)
    follower.rig.stream.assign(0)
    follower.loader.failures = [too_large(tmp_path)]
    follower.store.publish(TWO)
    follower.follow()
    assert (follower.main.digest, drained.times) == (ONE.digest, 1)
    assert follower.events.refused == {}
    with pytest.raises(RestartNeeded, match=r"two .* by a restart: .*19\.0 GiB") as caught:
        drained.restart.check()
    assert caught.value.exit_code == 7


def test_no_canary_is_worth_a_restart(tmp_path: Path) -> None:
    """The next start would have no more room for both."""
    drained = Drained(enabled=True)
    follower = Follower(AdapterStore(tmp_path), ONE, restart=drained.restart)
    follower.rig.stream.assign(0)
    follower.loader.failures = [too_large(tmp_path)]
    follower.store.canary(TWO, 0.5)
    follower.follow()
    assert follower.events.refused["canary"].reason == "memory"
    assert drained.times == 0


def test_no_restart_for_what_this_start_could_not_serve(tmp_path: Path) -> None:
    """It would end there again, for ever. What the store names after it is another matter."""
    drained = Drained(enabled=True)
    follower = Follower(
        AdapterStore(tmp_path),
        ONE,
        restart=drained.restart,
        declined=Declined(TWO.digest, "misclassifies its probes"),
    )
    follower.rig.stream.assign(0)
    follower.loader.failures = [too_large(tmp_path)]
    follower.store.publish(TWO)
    follower.follow()
    assert drained.times == 0
    problem = follower.events.refused["main"].problem
    assert problem.startswith("misclassifies its probes (when this worker started); and now: ")
    follower.loader.failures = [too_large(tmp_path)]
    follower.store.publish(THREE)
    follower.follow()
    assert drained.times == 1
