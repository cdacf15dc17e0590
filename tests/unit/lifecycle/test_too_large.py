"""An adapter without memory next to the serving one is refused, or loaded by a restart."""

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
    """A restart that counts how often the worker had to drain."""

    def __init__(self, *, enabled: bool) -> None:
        self.times = 0
        self.restart = Restart(enabled=enabled)
        self.restart.drain = self._drain

    def _drain(self) -> None:
        self.times += 1


def test_an_adapter_without_room_is_refused_with_both_numbers_and_tried_again(
    tmp_path: Path,
) -> None:
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


def test_if_enabled_the_worker_drains_and_exits_with_code_7(
    tmp_path: Path,
) -> None:
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


def test_a_canary_without_room_causes_no_restart(tmp_path: Path) -> None:
    drained = Drained(enabled=True)
    follower = Follower(AdapterStore(tmp_path), ONE, restart=drained.restart)
    follower.rig.stream.assign(0)
    follower.loader.failures = [too_large(tmp_path)]
    follower.store.canary(TWO, 0.5)
    follower.follow()
    assert follower.events.refused["canary"].reason == "memory"
    assert drained.times == 0


def test_an_adapter_that_this_start_declined_causes_no_restart(tmp_path: Path) -> None:
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
    assert problem.startswith("misclassifies its probes (when this worker started); now: ")
    follower.loader.failures = [too_large(tmp_path)]
    follower.store.publish(THREE)
    follower.follow()
    assert drained.times == 1
