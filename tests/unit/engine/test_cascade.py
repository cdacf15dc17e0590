"""A cascade behind the engine port: stages, failures, deadlines."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from tests.support.follower import ToyFiles
from tests.support.rig import Clock
from tests.support.toy_adapter import CASCADE, ENCODERS, LARGE, SMALL, large, small
from worker.contract import Manifest, write_manifest
from worker.contract.errors import MessageRejected
from worker.contract.records import InputFormat, SupportMessage
from worker.core.labeller import Labeller, Prepared
from worker.engine.cascade import CascadeEngine, OpenStage
from worker.engine.fake import FakeEngine
from worker.engine.open import load_cascade
from worker.engine.pacing import UNBOUNDED, AdmissionPolicy
from worker.engine.port import Answer, Engine, StageDecisions
from worker.errors import EngineDied
from worker.records.types import Timing

WATCHED = AdmissionPolicy(max_in_engine=256, deadline_s=30.0)
"""Silent for 10 s, a stage is asked something."""


class World:
    """A cascade of two fake engines."""

    def __init__(self, policy: AdmissionPolicy = UNBOUNDED, **timing: Any) -> None:
        self.clock = Clock()
        self.small, self.large = FakeEngine(small, **timing), FakeEngine(large, **timing)
        engines: list[Engine] = [self.small, self.large]
        self.engine = CascadeEngine(
            [
                OpenStage(rule, manifest, ENCODERS.plain, engine)
                for rule, manifest, engine in zip(
                    CASCADE.stages, (SMALL, LARGE), engines, strict=True
                )
            ],
            policy,
            time.monotonic if timing else self.clock,
        )
        self.labeller = Labeller(
            CASCADE,
            ENCODERS.plain,
            CASCADE.thresholds,
            InputFormat("text"),
            stages=tuple(stage.thresholds for stage in CASCADE.stages),
        )

    def prepare(self, text: str) -> Prepared:
        return self.labeller.prepare_message(SupportMessage(text, None))

    def submit(self, text: str) -> Future[Answer]:
        return self.engine.submit(self.prepare(text).prompt_ids)


def test_the_first_stage_answers_what_it_is_sure_of() -> None:
    world = World()
    future = world.submit("sure")
    world.small.finish()
    answer = future.result(0)
    assert isinstance(answer, StageDecisions)
    assert [decision.label for decision in answer.decisions] == ["billing"]
    assert world.large.pending == []
    found = world.labeller.classify(world.prepare("sure"), answer, Timing(0.0, 1.0))
    assert (found.decision.label, found.decision.earlier, found.review) == ("billing", (), ())


def test_other_messages_go_on_with_the_next_stages_prompt() -> None:
    world = World()
    text = "a message that is too long for one"
    future = world.submit(text)
    world.clock.advance(2.0)
    world.small.finish()
    assert not future.done()
    world.clock.advance(3.0)
    world.large.finish()
    answer = future.result(0)
    assert isinstance(answer, StageDecisions)
    assert answer.seconds == (2.0, 3.0)
    found = world.labeller.classify(world.prepare(text), answer, Timing(0.0, 5.0))
    assert found.decision.label == "other"
    assert [(one.label, round(one.confidence, 2)) for one in found.decision.earlier] == [
        ("delivery", 0.61)
    ]
    assert found.review == ("disagreement",)
    assert found.truncated, "it was, for the stage that answered"
    assert not world.prepare("sure").truncated
    assert found.timing.stages_s == (2.0, 3.0)


@pytest.mark.parametrize("stage", ["small", "large"])
def test_cancelling_cancels_in_the_current_stage(stage: str) -> None:
    world = World()
    future = world.submit("unsure")
    if stage == "large":
        world.small.finish()
    assert future.cancel()
    assert world.small.pending == world.large.pending == []
    with pytest.raises(CancelledError):
        future.result(0)


def test_an_invalid_answer_rejects_the_message() -> None:
    world = World()
    for text, reason in (("reject", "engine_rejected"), ("nothing", "invalid_answer")):
        future = world.submit(text)
        world.small.finish()
        with pytest.raises(MessageRejected) as rejected:
            future.result(0)
        assert rejected.value.reason == reason


def test_a_stage_that_dies_is_the_death_of_the_cascade() -> None:
    world = World()
    waiting = world.submit("unsure")
    world.small.finish()
    later = world.submit("unsure too")
    world.large.die("out of memory")
    with pytest.raises(EngineDied, match="out of memory"):
        waiting.result(0)
    world.small.finish()
    with pytest.raises(EngineDied, match="out of memory"):
        later.result(0)
    with pytest.raises(EngineDied, match="stage 2 of the cascade: out of memory"):
        world.engine.check_health()


def test_a_silent_stage_is_found_out_while_the_other_answers() -> None:
    """The first stage's answers prove nothing about the second."""
    world = World(WATCHED)
    world.submit("unsure")
    world.small.finish()
    for _ in range(9):
        world.clock.advance(1.0)
        world.submit("sure")
        world.small.finish()
        world.engine.check_health()
    world.clock.advance(2.0)
    world.engine.check_health()
    assert len(world.large.pending) == 2, "it is asked a golden prompt"
    world.clock.advance(9.0)
    world.engine.check_health()
    world.clock.advance(1.5)
    for _ in range(2):  # the loop and the health endpoint both have to hear of it
        with pytest.raises(EngineDied, match=r"stage 2 of the cascade: .* answered nothing"):
            world.engine.check_health()
    world.large.finish_all()
    with pytest.raises(EngineDied, match="answered nothing"):
        world.engine.check_health()


def test_a_stage_that_answers_a_golden_prompt_is_alive_and_rejects_lost_messages() -> None:
    world = World(WATCHED)
    world.clock.advance(100.0)
    lost = world.submit("unsure")
    world.small.finish()
    for _ in range(4):
        world.clock.advance(11.0)
        world.engine.check_health()
        if len(world.large.pending) > 1:
            world.large.finish(1)
    world.engine.check_health()
    with pytest.raises(MessageRejected) as rejected:
        lost.result(0)
    assert rejected.value.reason == "deadline_exceeded"
    assert world.large.pending == []


def test_messages_for_a_full_stage_wait_without_a_deadline() -> None:
    """A slow last stage makes messages wait, but never dead letters."""
    world = World(AdmissionPolicy(max_in_engine=2, deadline_s=30.0))
    waiting = [world.submit(f"unsure {number}") for number in range(5)]
    for _ in range(5):
        world.small.finish()
    assert len(world.large.pending) == 2
    assert world.engine.has_room()
    assert world.submit("sure").done() is False
    world.small.finish()
    assert waiting[3].cancel()
    for _ in range(4):
        world.clock.advance(25.0)
        world.large.finish()
        world.engine.check_health()
    assert [future.done() for future in waiting] == [True] * 5
    assert all(isinstance(each.result(0), StageDecisions) for each in (*waiting[:3], waiting[4]))


def test_under_load_from_many_threads_each_message_ends_once() -> None:
    """Stages answer on their own threads, and some requests are cancelled meanwhile."""
    world = World(AdmissionPolicy(4, deadline_s=90.0), service_s=0.0, concurrency=4)
    draw = random.Random(5)
    texts = [f"{'sure' if draw.random() < 0.7 else 'un'} {n}" for n in range(400)]
    futures: dict[str, Future[Answer]] = {}
    called_off: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            world.engine.check_health()

    watcher = threading.Thread(target=watch)
    watcher.start()
    for text in texts:
        futures[text] = world.submit(text)
        if draw.random() < 0.1 and futures[text].cancel():
            called_off.add(text)
    for text, future in futures.items():
        if text in called_off:
            continue
        answer = future.result(10)
        assert isinstance(answer, StageDecisions)
        last = "billing" if text.startswith("sure") else "other"
        assert answer.decisions[-1].label == last
        assert len(answer.decisions) == len(answer.seconds) == (1 if last == "billing" else 2)
    stop.set()
    watcher.join()
    assert world.small.pending == world.large.pending == []
    world.engine.close()
    with pytest.raises(EngineDied):
        world.submit("sure")


class Loader:
    """An AdapterLoader that fails on one adapter."""

    def __init__(self, fails: str | None = None) -> None:
        self.fails = fails
        self.loaded: list[str] = []
        self.open: list[FakeEngine] = []

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        assert adapter.name == manifest.digest
        assert background
        self.loaded.append(manifest.name)
        if manifest.name == self.fails:
            raise EngineDied("no memory")
        engine = FakeEngine(small)
        self.open.append(engine)
        return engine


def test_stages_are_loaded_from_the_last_and_all_are_closed_on_failure(tmp_path: Path) -> None:
    for manifest in (SMALL, LARGE, CASCADE):
        (tmp_path / manifest.digest).mkdir()
        write_manifest(tmp_path / manifest.digest, manifest)
    files = ToyFiles(SMALL.base)
    where = tmp_path / CASCADE.digest
    loader = Loader()
    load_cascade(loader, files, where, CASCADE, UNBOUNDED, background=True).check_health()
    assert loader.loaded == ["large", "small"]
    failing = Loader("small")
    with pytest.raises(EngineDied, match="no memory"):
        load_cascade(failing, files, where, CASCADE, UNBOUNDED, background=True)
    with pytest.raises(EngineDied, match="closed"):
        failing.open[0].check_health()
