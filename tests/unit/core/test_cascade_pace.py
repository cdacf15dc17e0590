"""A cascade in the loop: quick answers of the first stage say nothing of what the second has."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.support.cascades import CASCADE, LARGE, SMALL, large, small
from tests.support.rig import Rig
from tests.support.toy_adapter import ENCODERS, toy_serving_adapter
from worker.core.adapter_router import AdapterRouter
from worker.core.arms import TrafficSplit
from worker.engine.cascade import CascadeEngine, OpenStage
from worker.engine.fake import FakeEngine
from worker.engine.pacing import AdmissionPolicy

POLICY = AdmissionPolicy(max_in_engine=256, deadline_s=60.0)  # the settings' defaults


class PacedCascade:
    """A loop over a cascade whose stages answer so many messages a second, first come first."""

    def __init__(self, paces: tuple[float, float], policy: AdmissionPolicy = POLICY) -> None:
        self.rig = Rig(deadline_s=policy.deadline_s)
        self.engines = (FakeEngine(small), FakeEngine(large))
        self.paces = paces
        self.credit = [0.0, 0.0]
        stages = [
            OpenStage(rule, manifest, ENCODERS.plain, engine)
            for rule, manifest, engine in zip(
                CASCADE.stages, (SMALL, LARGE), self.engines, strict=True
            )
        ]
        cascade = CascadeEngine(stages, policy, self.rig.clock)
        adapter = toy_serving_adapter(cascade, CASCADE)
        self.rig.use(AdapterRouter(TrafficSplit.all_to(adapter), self.rig.router_events))

    def run(self, seconds: float, step_s: float = 0.1) -> Counter[str | None]:
        """Work so long; count the results by reason (None: labelled)."""
        for _ in range(int(seconds / step_s)):
            self.rig.clock.advance(step_s)
            for at, engine in enumerate(self.engines):
                self.credit[at] = min(self.credit[at] + self.paces[at] * step_s, 1_000.0)
                pending = len(engine.pending)
                for _ in range(min(pending, int(self.credit[at]))):
                    engine.finish()
                    self.credit[at] -= 1
                if not pending:
                    self.credit[at] = min(self.credit[at], 1.0)
            self.rig.loop.run_once()
        return Counter(published.reason for published in self.rig.outputs)


@pytest.mark.parametrize("pace", [5.0, 1.0, 0.5, 0.1])
def test_a_slow_last_stage_makes_no_dead_letters(pace: float) -> None:
    """A fifth of the messages goes to it, for ten minutes, and more come than it can do."""
    world, draw = PacedCascade((200.0, pace)), random.Random(7)
    for number in range(5_000):
        world.rig.add(f"{'sure' if draw.random() < 0.8 else 'unsure'} {number}")
    world.rig.stream.assign(0)
    found = world.run(600.0)
    assert set(found) == {None}
    assert found[None] >= 0.9 * 5 * pace * 600 or found[None] == 5_000
